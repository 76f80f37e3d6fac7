// Many searches of one shard at once.  A single binary search waits for memory at every probe; here kLanes searches
// take turns, each prefetching what it will read when its turn comes again.
#pragma once

#include <cstdint>

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

template <class T>
class BatchFinder {
 public:
  explicit BatchFinder(const ShardView<T>& view) : view_(view) {}

  // found(q, range) for each q in [begin, end), in any order.
  template <class F>
  void run(const QueryBatch& batch, std::int64_t begin, std::int64_t end, F&& found) {
    std::int64_t next = begin;
    int active = 0;
    for (; active < kLanes && next < end; ++active) start(lanes_[active], batch, next++);
    while (active > 0) {
      for (int i = 0; i < active; ++i) {
        Lane& lane = lanes_[i];
        if (!advance(lane)) continue;
        found(lane.number, lane.result);
        if (next < end) {
          start(lane, batch, next++);
        } else if (i != --active) {
          std::swap(lane, lanes_[active]);
          --i;
        }
      }
    }
  }

 private:
  static constexpr int kLanes = 24;
  enum class Step : std::uint8_t { pair, sample, pointer, text, done };
  enum class Side : std::uint8_t { any, left, right };

  struct Lane {
    Span<const std::uint32_t> ids;
    std::int64_t number, low, high, middle;
    std::int64_t right_low, right_high;  // bounds of the right edge once a match is known
    std::uint64_t at;                    // text pointer of `middle`
    RankRange result;
    SampleQuery<T> sample;
    std::uint32_t skip;
    Step step;
    Side side;
    bool near;  // what is left of the table lies in cache
  };

  void start(Lane& lane, const QueryBatch& batch, std::int64_t number) {
    lane.ids = batch.query(number);
    lane.number = number;
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

  // Looks for the samples next to the query, which lie in [low, high).
  void search_samples(Lane& lane, RankRange range) {
    const RankRange inside = view_.samples_of(range);
    lane.sample = SampleQuery<T>(lane.ids);
    lane.result = range;
    lane.low = inside.begin;
    lane.high = inside.end;
    lane.side = Side::left;
    probe_sample(lane);
  }
  void probe_sample(Lane& lane) {
    lane.middle = lane.low + (lane.high - lane.low) / 2;
    __builtin_prefetch(view_.accel->samples() + lane.middle);
    lane.step = Step::sample;
  }
  void advance_sample(Lane& lane) {
    const std::uint64_t* const samples = view_.accel->samples();
    const bool right = lane.side == Side::right;
    if (lane.low < lane.high) {
      const bool below = lane.sample.below(samples[lane.middle], right);
      (below ? lane.low : lane.high) = below ? lane.middle + 1 : lane.middle;
    }
    if (lane.low < lane.high) return probe_sample(lane);
    const RankRange range = lane.result, inside = view_.samples_of(range);
    if (!right) {
      lane.right_low = lane.low;  // the first sample that is not below; mostly no other agrees
      for (int near = 0; near < 8 && lane.low < inside.end; ++near, ++lane.low) {
        if (!lane.sample.below(samples[lane.low], true)) break;
      }
      if (lane.low - lane.right_low == 8 && lane.low < inside.end) {
        lane.side = Side::right;
        lane.high = inside.end;
        return probe_sample(lane);
      }
    }
    search_between(lane, range, lane.right_low, lane.low);
  }
  // Samples [first, last) agree with the query as far as they go.
  void search_between(Lane& lane, RankRange range, std::int64_t first, std::int64_t last) {
    constexpr std::int64_t kStride = Accel::kStride;
    if (first < view_.samples_of(range).end && view_.misleads(lane.sample, first)) return search(lane, range);
    const auto [low, high] = view_.between_samples(range, first, last);
    if (first == last || !lane.sample.whole) return search(lane, {low, high});
    lane.side = Side::left;
    lane.low = low;
    lane.high = first * kStride;
    lane.right_low = (last - 1) * kStride + 1;
    lane.right_high = high;
    probe(lane);
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
      if (lane.side == Side::any) {
        lane.result = {lane.low, lane.low};
        lane.step = Step::done;
        return;
      }
      if (lane.side == Side::right) {
        lane.result.end = lane.low;
        lane.step = Step::done;
        return;
      }
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

  int compare(const Lane& lane) const {
    const std::size_t size = lane.ids.size();
    const std::size_t have = std::min<std::uint64_t>(size, (view_.text_bytes - lane.at) / sizeof(T));
    for (std::size_t i = lane.skip; i < have; ++i) {
      const T left = view_.token_at(lane.at + i * sizeof(T)), right = static_cast<T>(lane.ids[i]);
      if (left != right) return rank_order(left) < rank_order(right) ? -1 : 1;
    }
    return have < size ? -1 : 0;
  }

  // One step of a lane; true when its result is ready.
  bool advance(Lane& lane) {
    switch (lane.step) {
      case Step::pair: {
        const RankRange range = view_.accel->pair(lane.ids[0], lane.ids[1]);
        if (lane.ids.size() == 2 || range.size() == 0) {
          lane.result = range;
          return true;
        }
        lane.skip = 2;
        if (view_.has_samples(range, lane.ids.size(), 2)) {
          search_samples(lane, range);
        } else {
          search(lane, range);
        }
        return false;
      }
      case Step::sample: advance_sample(lane); return lane.step == Step::done;
      case Step::pointer: read_pointer(lane); return false;
      case Step::text: {
        const int sign = compare(lane);
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
      case Step::done: break;
    }
    return true;
  }

  const ShardView<T> view_;
  Lane lanes_[kLanes];
};

}  // namespace gramcore::ngram
