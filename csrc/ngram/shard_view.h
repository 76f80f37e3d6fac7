// The hot part of a shard for one token type: raw pointers and the searches on them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ngram/accel.h"
#include "ngram/rank_window.h"
#include "ngram/shard.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {

// A query in the token type; `possible` is false when an id does not fit, so that nothing can match.
template <class T>
class TypedQuery {
 public:
  explicit TypedQuery(Span<const std::uint32_t> ids) : size_(ids.size()) {
    if (size_ > kInline) heap_.resize(size_);
    T* to = size_ > kInline ? heap_.data() : inline_;
    for (std::size_t i = 0; i < size_; ++i) {
      possible_ &= ids[i] <= separator<T>();
      to[i] = static_cast<T>(ids[i]);
    }
  }
  bool possible() const { return possible_; }
  Span<const T> span() const { return {size_ > kInline ? heap_.data() : inline_, size_}; }

 private:
  static constexpr std::size_t kInline = 32;
  T inline_[kInline];
  std::vector<T> heap_;
  std::size_t size_;
  bool possible_ = true;
};

// `have` tokens, or as many as fit, as Accel's samples hold them.
template <class T, class F>
std::uint64_t sample_key(std::size_t have, F&& token) {
  std::uint64_t key = 0;
  for (std::size_t i = 0; i < Accel::kSampleTokens<T>; ++i) {
    if constexpr (sizeof(T) < 8) key <<= 8 * sizeof(T);
    if (i < have) key |= rank_order(static_cast<T>(token(i)));
  }
  return key;
}

// The tokens of a query behind its first two, to be compared with samples.
template <class T>
struct SampleQuery {
  std::uint64_t key = 0, mask = 0;
  bool whole = false;     // nothing of the query is left out
  bool has_zero = false;  // a token of the key is 0

  SampleQuery() = default;
  template <class Id>
  explicit SampleQuery(Span<const Id> query)
      : key(sample_key<T>(query.size() - 2, [&](std::size_t i) { return query[i + 2]; })),
        whole(query.size() - 2 <= Accel::kSampleTokens<T>) {
    const std::size_t spare = whole ? 8 * (sizeof(key) - (query.size() - 2) * sizeof(T)) : 0;
    mask = spare < 64 ? ~std::uint64_t{0} << spare : 0;
    for (std::size_t i = 2; i < std::min(query.size(), 2 + Accel::kSampleTokens<T>); ++i) has_zero |= query[i] == 0;
  }
  bool below(std::uint64_t sample, bool or_equal) const {  // is the sample below the query
    return or_equal ? (sample & mask) <= key : (sample & mask) < key;
  }
  // Tokens in which the query and a sample that differs from it agree, or 0 where a suffix that ends within its sample
  // could seem to agree in more than it has.
  std::size_t agreed(std::uint64_t sample) const {
    if (has_zero) return 0;
    return 2 + static_cast<std::size_t>(__builtin_clzll((sample ^ key) & mask)) / (8 * sizeof(T));
  }
  // Whether a suffix that ends within its sample, filled up with zeros, would look like the query.
  bool ends_in_zero() const { return (key & (mask ^ mask << 8 * sizeof(T))) == 0; }
};

template <class T>
struct ShardView {
  const unsigned char* text;
  const unsigned char* table;
  std::uint64_t text_bytes, table_bytes, mask;
  std::int64_t num_tokens;
  unsigned width;
  const Shard* shard;
  const Accel* accel;  // null: none

  std::uint64_t pointer_unchecked(std::int64_t rank) const {
    const std::uint64_t at = static_cast<std::uint64_t>(rank) * width;
    if (at + 8 <= table_bytes) [[likely]]
      return load_raw<std::uint64_t>(table + at) & mask;
    std::uint64_t value = 0;
    std::memcpy(&value, table + at, width);
    return value;
  }
  std::uint64_t pointer(std::int64_t rank) const {
    const std::uint64_t value = pointer_unchecked(rank);
    if (value >= text_bytes || value % sizeof(T) != 0) [[unlikely]]
      shard->bad_pointer(rank);
    return value;
  }
  T token_at(std::uint64_t pointer) const { return load_raw<T>(text + pointer); }
  void prefetch_table(std::int64_t rank) const { __builtin_prefetch(table + static_cast<std::uint64_t>(rank) * width); }

  struct Comparison {
    std::size_t agreed;
    int sign;  // of the suffix, cut to the query's length, minus the query
  };
  // The suffix at byte `from` and a query, of which the first `skip` tokens are known to agree.
  template <class Id>
  Comparison compare(std::uint64_t from, Span<const Id> query, std::size_t skip) const {
    const std::size_t have = std::min<std::uint64_t>(query.size(), (text_bytes - from) / sizeof(T));
    std::size_t i = skip;
    while (i < have && token_at(from + i * sizeof(T)) == query[i]) ++i;
    if (i >= have) return {i, have < query.size() ? -1 : 0};
    return {i, rank_order(token_at(from + i * sizeof(T))) < rank_order(static_cast<T>(query[i])) ? -1 : 1};
  }

  // Ranks inside `range` (whose suffixes agree with the query on `skip` tokens) that begin with the query.
  RankRange narrow(RankRange range, Span<const T> query, std::size_t skip) const {
    if (!accel) return search(range, query, skip);
    if (skip < 2 && query.size() >= 2) return find(query);
    if (has_samples(range, query.size(), skip)) return narrow_sampled(range, query, skip);
    return finish(rest(range, query.size(), skip), query);
  }
  bool has_samples(RankRange range, std::size_t size, std::size_t skip) const {
    return accel && skip >= 2 && size > 2 && skip < 2 + Accel::kSampleTokens<T> && range.size() > Accel::kStride;
  }
  // Samples of ranks in `range`, from the first to past the last.
  RankRange samples_of(RankRange range) const {
    return {(range.begin + Accel::kStride - 1) / Accel::kStride, (range.end + Accel::kStride - 1) / Accel::kStride};
  }
  // Ranks that may begin with a query with which samples [first, last) of `range` agree.
  RankRange between_samples(RankRange range, std::int64_t first, std::int64_t last) const {
    const RankRange inside = samples_of(range);
    return {first > inside.begin ? (first - 1) * Accel::kStride + 1 : range.begin,
            last < inside.end ? last * Accel::kStride : range.end};
  }
  // Whether a sample only looks like the query because its suffix ends and zeros follow.
  bool misleads(const SampleQuery<T>& wanted, std::int64_t sample) const {
    return wanted.ends_in_zero() && (accel->samples()[sample].key & wanted.mask) == wanted.key &&
           pointer(sample * Accel::kStride) + (2 + Accel::kSampleTokens<T>)*sizeof(T) > text_bytes;
  }
  RankRange narrow_sampled(RankRange range, Span<const T> query, std::size_t skip) const {
    const SampleQuery<T> wanted(query);
    const Accel::Sample* const samples = accel->samples();
    const RankRange inside = samples_of(range);
    const auto bound = [&](std::int64_t from, std::int64_t to, bool or_equal) {
      return std::partition_point(samples + from, samples + to,
                                  [&](const Accel::Sample& s) { return wanted.below(s.key, or_equal); }) -
             samples;
    };
    const std::int64_t first = bound(inside.begin, inside.end, false);
    std::int64_t last = first;  // samples [first, last) agree, mostly few
    for (std::int64_t step = 1; last < inside.end && wanted.below(samples[last].key, true); step *= 2) {
      last = bound(last, std::min(last + step, inside.end), true);
    }
    return finish(rest_of_samples(range, wanted, query.size(), skip, first, last), query);
  }

  // What is left of a search once samples have been looked at.
  struct Rest {
    enum class Kind : std::uint8_t { found, window, search };
    Kind kind;
    RankRange range;  // which holds the matches, or is them
    std::size_t skip;
    RankWindow window;
  };
  Rest rest(RankRange range, std::size_t size, std::size_t skip) const {
    if (!RankWindow::fits(range, size)) return {Rest::Kind::search, range, skip, {}};
    return {Rest::Kind::window, range, skip, RankWindow(accel->samples(), range, skip)};
  }
  // Samples [first, last) agree with the query as far as they go.
  Rest rest_of_samples(RankRange range, const SampleQuery<T>& wanted, std::size_t size, std::size_t skip,
                       std::int64_t first, std::int64_t last) const {
    const Accel::Sample* const samples = accel->samples();
    const RankRange inside = samples_of(range);
    if (first < inside.end && misleads(wanted, first)) return {Rest::Kind::search, range, skip, {}};
    RankRange between = between_samples(range, first, last);
    if (first < last) {
      const std::size_t depth = std::min(size, 2 + Accel::kSampleTokens<T>);
      between = block(between, first, last - 1, depth);
      if (wanted.whole) return {Rest::Kind::found, between, size, {}};
      return rest(between, size, depth);
    }
    Rest left = rest(between, size, skip);
    if (left.kind == Rest::Kind::window) {
      const std::size_t low = first > inside.begin ? wanted.agreed(samples[first - 1].key) : 0;
      const std::size_t high = first < inside.end ? wanted.agreed(samples[first].key) : 0;
      if (low > 0 && low >= high) left.window.neighbour_below(low);
      if (high > low) left.window.neighbour_above(high, (samples[first].heads(high) & 1) == 0);
    }
    return left;
  }
  // Ranks of `range` that agree in `depth` tokens with the suffixes of samples `first` and `last`.
  RankRange block(RankRange range, std::int64_t first, std::int64_t last, std::size_t depth) const {
    const Accel::Sample* const samples = accel->samples();
    std::int64_t begin = first * Accel::kStride;
    if (begin > range.begin && (samples[first].heads(depth) & 1) == 0) {
      const std::uint32_t heads = samples[first - 1].heads(depth);
      begin = heads != 0 ? begin - __builtin_clz(heads << (32 - Accel::kStride)) - 1 : range.begin;
    }
    const std::uint32_t heads = samples[last].heads(depth) & ~1u;
    const std::int64_t end = heads != 0 ? last * Accel::kStride + __builtin_ctz(heads) : range.end;
    return {std::max(begin, range.begin), std::min(end, range.end)};
  }
  RankRange finish(Rest left, Span<const T> query) const {
    if (left.kind == Rest::Kind::found) return left.range;
    if (left.kind == Rest::Kind::search) return search(left.range, query, left.skip);
    RankWindow& window = left.window;
    while (!window.empty()) {
      const std::int64_t rank = window.probe();
      const Comparison with = compare(pointer(rank), query, window.depth());
      if (window.seen(rank, with.agreed, with.sign < 0, query.size())) break;
    }
    return window.result();
  }
  void prefetch_texts(std::int64_t begin, std::int64_t end, std::size_t skip) const {
    for (std::int64_t r = begin; r < end; ++r) __builtin_prefetch(text + pointer_unchecked(r) + skip * sizeof(T));
  }
  RankRange search(RankRange range, Span<const T> query, std::size_t skip) const {
    std::int64_t low = range.begin, high = range.end;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      const int sign = compare(pointer(middle), query, skip).sign;
      if (sign == 0) return {lower(low, middle, query, skip), upper(middle + 1, high, query, skip)};
      if (sign < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return {low, low};
  }
  // First rank in [low, high] that is not below the query / that is above it, where `high` is known to be.
  std::int64_t lower(std::int64_t low, std::int64_t high, Span<const T> query, std::size_t skip) const {
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (compare(pointer(middle), query, skip).sign < 0) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  std::int64_t upper(std::int64_t low, std::int64_t high, Span<const T> query, std::size_t skip) const {
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      if (compare(pointer(middle), query, skip).sign > 0) {
        high = middle;
      } else {
        low = middle + 1;
      }
    }
    return low;
  }

  // Where a search for `query` starts: the range that acceleration knows, and how many tokens it covers.
  RankRange start(Span<const T> query, std::size_t* covered) const {
    *covered = 0;
    if (accel && query.size() >= 2) {
      *covered = 2;
      return accel->pair(query[0], query[1]);
    }
    if (accel && query.size() == 1 && accel->has_token(query[0])) {
      *covered = 1;
      return accel->token(query[0]);
    }
    return {0, num_tokens};
  }
  RankRange find(Span<const T> query) const {
    std::size_t covered = 0;
    const RankRange range = start(query, &covered);
    return covered == query.size() || range.size() == 0 ? range : narrow(range, query, covered);
  }

  // fn(token, begin, end) for each token that follows the first `depth` tokens of the suffixes in `range`, in rank
  // order.  Runs are known to acceleration, or measured by doubling steps, so long ones cost their logarithm.  A suffix
  // that ends after `depth` tokens comes first and is left out.
  template <class F>
  void for_each_next(RankRange range, std::size_t depth, F&& fn) const {
    const std::uint64_t skip = depth * sizeof(T);
    std::int64_t r = range.begin;
    if (r < range.end && pointer(r) + skip >= text_bytes) ++r;
    if (accel && depth == 1) {
      accel->for_each_pair_in({r, range.end}, [&](std::uint32_t token, std::int64_t begin, std::int64_t end) {
        fn(static_cast<T>(token), begin, end);
      });
      return;
    }
    const bool heads_known = accel && depth > 0 && depth < Accel::kMaxShared;
    const bool sampled = heads_known && depth >= 2 && depth < 2 + Accel::kSampleTokens<T>;
    std::int64_t primed = -1;  // stretch whose text was prefetched
    const auto token_of = [&](std::int64_t rank) {
      if (rank / Accel::kStride != primed) {
        primed = rank / Accel::kStride;
        prefetch_texts(rank, std::min((primed + 1) * Accel::kStride, range.end), depth);
      }
      const std::uint64_t at = pointer(rank) + skip;
      if (at >= text_bytes) [[unlikely]]
        shard->bad_pointer(rank);
      return token_at(at);
    };
    while (r < range.end) {
      const T token = token_of(r);
      const std::int64_t near = heads_known ? std::min(r + 2 * Accel::kStride, range.end) : r;
      std::int64_t end = next_head(r + 1, near, depth);
      if (end >= near && near < range.end) {
        end = sampled ? end_of_sampled_run(r, range.end, depth, token) : end_of_run(r, range.end, token, token_of);
      }
      fn(token, r, end);
      r = end;
    }
  }
  // The first rank in [rank, end) whose suffix shares no more than `depth` tokens with the one before it, else `end`.
  std::int64_t next_head(std::int64_t rank, std::int64_t end, std::size_t depth) const {
    while (rank < end) {
      const std::int64_t at = rank % Accel::kStride;
      const std::uint32_t heads = accel->samples()[rank / Accel::kStride].heads(depth + 1) >> at;
      if (heads != 0) return std::min(rank + __builtin_ctz(heads), end);
      rank += Accel::kStride - at;
    }
    return end;
  }
  // Where the run of `token` from rank r on ends, in doubling steps.
  template <class F>
  std::int64_t end_of_run(std::int64_t r, std::int64_t end, T token, F&& token_of) const {
    for (std::int64_t step = 1; r + step < end; step *= 2) {
      if (token_of(r + step) != token) {
        end = r + step;
        break;
      }
      r += step;
    }
    while (end - r > 1) {
      const std::int64_t middle = r + (end - r) / 2;
      (token_of(middle) == token ? r : end) = middle;
    }
    return end;
  }
  std::int64_t end_of_sampled_run(std::int64_t r, std::int64_t end, std::size_t depth, T token) const {
    const RankRange inside = samples_of({r + 1, end});
    const std::size_t shift = 8 * (sizeof(std::uint64_t) - (depth - 1) * sizeof(T));
    const auto agrees = [&](std::int64_t i) {
      return static_cast<T>(accel->samples()[i].key >> shift) == rank_order(token);
    };
    std::int64_t in = inside.begin - 1, out = inside.end;
    for (std::int64_t step = 1; in + step < out; step *= 2) {
      if (!agrees(in + step)) {
        out = in + step;
        break;
      }
      in += step;
    }
    while (out - in > 1) {
      const std::int64_t middle = in + (out - in) / 2;
      (agrees(middle) ? in : out) = middle;
    }
    return next_head(std::max(r, in * Accel::kStride) + 1, std::min(end, out * Accel::kStride), depth);
  }
};

template <class T>
ShardView<T> Shard::view() const {
  return {tokenized_.bytes().data(),
          table_.bytes().data(),
          tokenized_.size(),
          table_.size(),
          width_ < 8 ? (std::uint64_t{1} << (8 * width_)) - 1 : ~std::uint64_t{0},
          num_tokens_,
          static_cast<unsigned>(width_),
          this,
          accel_.present() ? &accel_ : nullptr};
}

}  // namespace gramcore::ngram
