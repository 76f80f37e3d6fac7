// The hot part of a shard for one token type: raw pointers and the searches on them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "ngram/accel.h"
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
  bool whole = false;  // nothing of the query is left out

  SampleQuery() = default;
  template <class Id>
  explicit SampleQuery(Span<const Id> query)
      : key(sample_key<T>(query.size() - 2, [&](std::size_t i) { return query[i + 2]; })),
        whole(query.size() - 2 <= Accel::kSampleTokens<T>) {
    const std::size_t spare = whole ? 8 * (sizeof(key) - (query.size() - 2) * sizeof(T)) : 0;
    mask = spare < 64 ? ~std::uint64_t{0} << spare : 0;
  }
  bool below(std::uint64_t sample, bool or_equal) const {  // is the sample below the query
    return or_equal ? (sample & mask) <= key : (sample & mask) < key;
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

  // Sign of (suffix at byte `from`, cut to the query's length) - query; the first `skip` tokens are known to agree.
  int compare(std::uint64_t from, Span<const T> query, std::size_t skip) const {
    const std::size_t have = std::min<std::uint64_t>(query.size(), (text_bytes - from) / sizeof(T));
    for (std::size_t i = skip; i < have; ++i) {
      const T left = token_at(from + i * sizeof(T)), right = query[i];
      if (left != right) return rank_order(left) < rank_order(right) ? -1 : 1;
    }
    return have < query.size() ? -1 : 0;
  }

  // Ranks inside `range` (whose suffixes agree with the query on `skip` tokens) that begin with the query.
  RankRange narrow(RankRange range, Span<const T> query, std::size_t skip) const {
    return has_samples(range, query.size(), skip) ? narrow_sampled(range, query, skip) : search(range, query, skip);
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
    return wanted.ends_in_zero() && (accel->samples()[sample] & wanted.mask) == wanted.key &&
           pointer(sample * Accel::kStride) + (2 + Accel::kSampleTokens<T>)*sizeof(T) > text_bytes;
  }
  RankRange narrow_sampled(RankRange range, Span<const T> query, std::size_t skip) const {
    constexpr std::int64_t kStride = Accel::kStride;
    const SampleQuery<T> wanted(query);
    const std::uint64_t* const samples = accel->samples();
    const RankRange inside = samples_of(range);
    const auto bound = [&](std::int64_t from, std::int64_t to, bool or_equal) {
      return std::partition_point(samples + from, samples + to,
                                  [&](std::uint64_t s) { return wanted.below(s, or_equal); }) -
             samples;
    };
    const std::int64_t first = bound(inside.begin, inside.end, false);
    std::int64_t last = first;  // samples [first, last) agree, mostly few
    for (std::int64_t step = 1; last < inside.end && wanted.below(samples[last], true); step *= 2) {
      last = bound(last, std::min(last + step, inside.end), true);
    }
    if (first < inside.end && misleads(wanted, first)) return search(range, query, skip);
    const auto [low, high] = between_samples(range, first, last);
    if (first == last || !wanted.whole) {
      if (high - low <= kStride) prefetch_texts(low, high, skip);
      return search({low, high}, query, skip);
    }
    prefetch_texts(low, first * kStride, skip);
    prefetch_texts((last - 1) * kStride + 1, high, skip);
    return {lower(low, first * kStride, query, skip), upper((last - 1) * kStride + 1, high, query, skip)};
  }
  void prefetch_texts(std::int64_t begin, std::int64_t end, std::size_t skip) const {
    for (std::int64_t r = begin; r < end; ++r) __builtin_prefetch(text + pointer_unchecked(r) + skip * sizeof(T));
  }
  RankRange search(RankRange range, Span<const T> query, std::size_t skip) const {
    std::int64_t low = range.begin, high = range.end;
    while (low < high) {
      const std::int64_t middle = low + (high - low) / 2;
      const int sign = compare(pointer(middle), query, skip);
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
      if (compare(pointer(middle), query, skip) < 0) {
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
      if (compare(pointer(middle), query, skip) > 0) {
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
    const bool sampled = accel && depth >= 2 && depth < 2 + Accel::kSampleTokens<T>;
    while (r < range.end) {
      const T token = token_of(r);
      // Last rank known to be inside the run, first known to be outside, or the range's end.
      RankRange edge = sampled ? last_sample(r, range.end, depth, token) : RankRange{r, range.end};
      for (std::int64_t step = 1; edge.begin + step < edge.end; step *= 2) {
        if (token_of(edge.begin + step) != token) {
          edge.end = edge.begin + step;
          break;
        }
        edge.begin += step;
      }
      while (edge.end - edge.begin > 1) {
        const std::int64_t middle = edge.begin + edge.size() / 2;
        (token_of(middle) == token ? edge.begin : edge.end) = middle;
      }
      fn(token, r, edge.end);
      r = edge.end;
    }
  }
  // Where samples say that the run of `token` from rank r on ends: {a rank inside, one outside or `end`}.
  RankRange last_sample(std::int64_t r, std::int64_t end, std::size_t depth, T token) const {
    const RankRange inside = samples_of({r + 1, end});
    const std::size_t shift = 8 * (sizeof(std::uint64_t) - (depth - 1) * sizeof(T));
    const auto agrees = [&](std::int64_t i) {
      return static_cast<T>(accel->samples()[i] >> shift) == rank_order(token);
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
    return {std::max(r, in * Accel::kStride), std::min(end, out * Accel::kStride)};
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
