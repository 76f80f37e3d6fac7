// Many searches of one shard at once.  A single binary search waits for memory at every probe; here kLanes searches
// take turns, each prefetching what it will read when its turn comes again.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <vector>

#include "ngram/shard_view.h"

namespace gramcore::ngram {

// Query q is ids[offsets[q], offsets[q + 1]).
struct QueryBatch {
  Span<const std::uint32_t> ids;
  Span<const std::int64_t> offsets;  // one more than queries, ascending, within ids
  std::int64_t size() const { return static_cast<std::int64_t>(offsets.size()) - 1; }
  Span<const std::uint32_t> query(std::int64_t q) const {
    const auto i = static_cast<std::size_t>(q);
    return ids.subspan(static_cast<std::size_t>(offsets[i]), static_cast<std::size_t>(offsets[i + 1] - offsets[i]));
  }
};

// The queries in about the order of the suffixes that begin with them, so that neighbours read the same cache lines;
// few queries as they come.
template <class T>
std::vector<std::uint32_t> search_order(const QueryBatch& batch) {
  struct Keyed {
    std::uint32_t key, query;
  };
  constexpr int kBits = 11, kTokenBits = sizeof(T) == 1 ? 8 : 16;  // of 4-byte tokens those that come first
  const auto n = static_cast<std::size_t>(batch.size());
  std::vector<std::uint32_t> order(n);
  std::iota(order.begin(), order.end(), 0u);
  if (n < 512) return order;
  std::vector<Keyed> keyed(n), other(n);
  for (std::size_t q = 0; q < n; ++q) {
    const auto ids = batch.query(static_cast<std::int64_t>(q));
    std::uint32_t key = 0;
    for (std::size_t i = 0; i < 32 / kTokenBits; ++i) {
      key <<= kTokenBits;
      if (i < ids.size()) key |= rank_order(static_cast<T>(ids[i])) >> (8 * sizeof(T) - kTokenBits);
    }
    keyed[q] = {key, static_cast<std::uint32_t>(q)};
  }
  for (int shift = 0; shift < 32; shift += kBits) {
    std::uint32_t ends[(1 << kBits) + 1] = {0};
    const auto digit = [&](const Keyed& k) { return k.key >> shift & ((1u << kBits) - 1); };
    for (const Keyed& k : keyed) ++ends[digit(k) + 1];
    for (int d = 0; d < 1 << kBits; ++d) ends[d + 1] += ends[d];
    for (const Keyed& k : keyed) other[ends[digit(k)]++] = k;
    keyed.swap(other);
  }
  for (std::size_t i = 0; i < n; ++i) order[i] = keyed[i].query;
  return order;
}

template <class T>
class BatchFinder {
 public:
  explicit BatchFinder(const ShardView<T>& view) : view_(view) {}

  // found(q, range) for each of the queries named.
  template <class F>
  void run(const QueryBatch& batch, Span<const std::uint32_t> queries, F&& found) {
    for (std::size_t begin = 0; begin < queries.size(); begin += kLanes) {
      const auto now = queries.subspan(begin, std::min<std::size_t>(kLanes, queries.size() - begin));
      const auto n = static_cast<int>(now.size());
      for (int i = 0; i < n; ++i) start(lanes_[i], batch.query(now[static_cast<std::size_t>(i)]));
      Lanes sampled;
      for (int i = 0; i < n; ++i) {
        if (lanes_[i].step == Step::pair && look_up(lanes_[i])) sampled.add(lanes_[i]);
      }
      if (sampled.size > 0) search_samples(sampled);
      Lanes active;
      for (int i = 0; i < n; ++i) active.add(lanes_[i]);
      while (active.size > 0) active.keep_if([&](Lane& lane) { return !advance(lane); });
      for (int i = 0; i < n; ++i) found(now[static_cast<std::size_t>(i)], lanes_[i].result);
    }
  }

 private:
  static constexpr int kLanes = 64;
  enum class Step : std::uint8_t { pair, pointer, text, done };
  enum class Side : std::uint8_t { any, left, right, none };

  struct Lane {
    Span<const std::uint32_t> ids;
    std::int64_t low, high, middle;
    std::int64_t right_low, right_high;  // bounds of the right edge once a match is known
    std::uint64_t at;                    // text pointer of `middle`
    RankRange result;
    SampleQuery<T> sample;
    RankWindow window;
    std::uint32_t skip;
    Step step;
    Side side;
    bool near;  // what is left of the table lies in cache
  };
  struct Lanes {
    Lane* at[kLanes];
    int size = 0;
    void add(Lane& lane) { at[size++] = &lane; }
    template <class F>
    void keep_if(F&& keep) {
      int kept = 0;
      for (int i = 0; i < size; ++i) {
        at[kept] = at[i];
        kept += keep(*at[i]);
      }
      size = kept;
    }
  };

  void start(Lane& lane, Span<const std::uint32_t> ids) {
    lane.ids = ids;
    lane.skip = 0;
    lane.near = false;
    lane.result = {0, 0};
    for (const std::uint32_t id : lane.ids) {
      if (id > separator<T>()) {
        lane.step = Step::done;
        return;
      }
    }
    if (view_.accel && lane.ids.size() >= 2) {
      view_.accel->prefetch_pair(lane.ids[0], lane.ids[1]);
      lane.step = Step::pair;
      return;
    }
    if (lane.ids.empty() || (view_.accel && lane.ids.size() == 1 && view_.accel->has_token(lane.ids[0]))) {
      lane.result = lane.ids.empty() ? RankRange{0, view_.num_tokens} : view_.accel->token(lane.ids[0]);
      lane.step = Step::done;
      return;
    }
    search(lane, {0, view_.num_tokens});
  }

  // What is known of the first two tokens; whether samples are to be searched for the others.
  bool look_up(Lane& lane) {
    const RankRange range = view_.accel->pair(lane.ids[0], lane.ids[1]);
    if (lane.ids.size() == 2 || range.size() == 0) {
      finish(lane, range);
      return false;
    }
    if (!view_.has_samples(range, lane.ids.size(), 2)) {
      go_on(lane, view_.rest(range, lane.ids.size(), 2));
      return false;
    }
    lane.sample = SampleQuery<T>(lane.ids);
    lane.result = range;
    return true;
  }
  // Looks for the samples that agree with the queries.
  void search_samples(const Lanes& lanes) {
    for (int i = 0; i < lanes.size; ++i) {
      Lane& lane = *lanes.at[i];
      const RankRange inside = view_.samples_of(lane.result);
      lane.low = inside.begin;
      lane.high = inside.end;
    }
    bisect_samples<false>(lanes);
    Lanes frequent;
    for (int i = 0; i < lanes.size; ++i) {
      Lane& lane = *lanes.at[i];
      const std::int64_t end = view_.samples_of(lane.result).end, near = std::min(end, lane.low + 8);
      lane.right_low = lane.low;  // the first sample that is not below; mostly few others agree
      while (lane.low < near && lane.sample.below(view_.accel->samples()[lane.low].key, true)) ++lane.low;
      lane.high = end;
      if (lane.low == near && near < end) frequent.add(lane);
    }
    bisect_samples<true>(frequent);
    for (int i = 0; i < lanes.size; ++i) {
      Lane& lane = *lanes.at[i];
      go_on(lane, view_.rest_of_samples(lane.result, lane.sample, lane.ids.size(), 2, lane.right_low, lane.low));
    }
  }
  // low becomes the first of samples [low, high), not empty, that is not below the query, or high.
  template <bool kOrEqual>
  void bisect_samples(Lanes lanes) {
    const Accel::Sample* const samples = view_.accel->samples();
    const auto ahead = [&](const Lane& lane) {
      __builtin_prefetch(samples + lane.low + (lane.high - lane.low - 1) / 2);
    };
    for (int i = 0; i < lanes.size; ++i) ahead(*lanes.at[i]);
    while (lanes.size > 0) {
      lanes.keep_if([&](Lane& lane) {
        const std::int64_t half = (lane.high - lane.low + 1) / 2, middle = lane.low + half - 1;
        const bool below = lane.sample.below(samples[middle].key, kOrEqual);
        const std::int64_t rest = lane.high - lane.low - half;
        lane.low = below ? middle + 1 : lane.low;
        lane.high = lane.low + (below ? rest : half - 1);
        ahead(lane);
        return lane.high > lane.low;
      });
    }
  }
  void go_on(Lane& lane, const typename ShardView<T>::Rest& left) {
    using Kind = typename ShardView<T>::Rest::Kind;
    lane.skip = static_cast<std::uint32_t>(left.skip);
    if (left.kind == Kind::search) return search(lane, left.range);
    if (left.kind == Kind::found) return finish(lane, left.range);
    lane.window = left.window;
    lane.side = Side::none;
    probe_window(lane);
  }
  void probe_window(Lane& lane) {
    if (lane.window.empty()) return finish(lane, lane.window.result());
    lane.middle = lane.window.probe();
    lane.skip = static_cast<std::uint32_t>(lane.window.depth());
    if (lane.near) return read_pointer(lane);
    lane.near = true;
    view_.prefetch_table(lane.middle);
    lane.step = Step::pointer;
  }
  void finish(Lane& lane, RankRange result) {
    lane.result = result;
    lane.step = Step::done;
  }

  void search(Lane& lane, RankRange range) {
    lane.low = range.begin;
    lane.high = range.end;
    lane.side = Side::any;
    probe(lane);
  }

  // Chooses the next rank to look at, or moves on to the other edge, or finishes.
  void probe(Lane& lane) {
    while (lane.low >= lane.high) {
      if (lane.side == Side::any) return finish(lane, {lane.low, lane.low});
      if (lane.side == Side::right) return finish(lane, {lane.result.begin, lane.low});
      lane.result.begin = lane.low;
      lane.side = Side::right;
      lane.low = lane.right_low;
      lane.high = lane.right_high;
      lane.near &= lane.high - lane.low <= Accel::kStride;
    }
    lane.middle = lane.low + (lane.high - lane.low) / 2;
    if (lane.near) return read_pointer(lane);
    lane.near = lane.high - lane.low <= Accel::kStride;
    view_.prefetch_table(lane.middle);
    lane.step = Step::pointer;
  }
  void read_pointer(Lane& lane) {
    lane.at = view_.pointer(lane.middle);
    __builtin_prefetch(view_.text + lane.at + lane.skip * sizeof(T));
    lane.step = Step::text;
  }

  // One step of a lane; true when its result is ready.
  bool advance(Lane& lane) {
    switch (lane.step) {
      case Step::pointer: read_pointer(lane); return false;
      case Step::text: {
        const auto [agreed, sign] = view_.compare(lane.at, lane.ids, lane.skip);
        if (lane.side == Side::none) {
          if (lane.window.seen(lane.middle, agreed, sign < 0, lane.ids.size())) {
            finish(lane, lane.window.result());
          } else {
            probe_window(lane);
          }
          return lane.step == Step::done;
        }
        if (sign == 0 && lane.side == Side::any) {
          lane.right_low = lane.middle + 1;
          lane.right_high = lane.high;
          lane.side = Side::left;
          lane.high = lane.middle;
        } else if (sign < 0 || (sign == 0 && lane.side == Side::right)) {
          lane.low = lane.middle + 1;
        } else {
          lane.high = lane.middle;
        }
        probe(lane);
        return lane.step == Step::done;
      }
      case Step::pair:
      case Step::done: break;
    }
    return true;
  }

  const ShardView<T> view_;
  Lane lanes_[kLanes];
};

}  // namespace gramcore::ngram
