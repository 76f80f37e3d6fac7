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
  // order.  Runs are measured by doubling steps, so long runs cost their logarithm.  A suffix that ends after `depth`
  // tokens comes first and is left out.
  template <class F>
  void for_each_next(RankRange range, std::size_t depth, F&& fn) const {
    const std::uint64_t skip = depth * sizeof(T);
    std::int64_t r = range.begin;
    if (r < range.end && pointer(r) + skip >= text_bytes) ++r;
    const auto token_of = [&](std::int64_t rank) {
      const std::uint64_t at = pointer(rank) + skip;
      if (at >= text_bytes) [[unlikely]]
        shard->bad_pointer(rank);
      return token_at(at);
    };
    while (r < range.end) {
      const T token = token_of(r);
      std::int64_t inside = r, step = 1;
      while (inside + step < range.end && token_of(inside + step) == token) {
        inside += step;
        step *= 2;
      }
      std::int64_t outside = std::min(inside + step, range.end);
      while (outside - inside > 1) {
        const std::int64_t middle = inside + (outside - inside) / 2;
        (token_of(middle) == token ? inside : outside) = middle;
      }
      fn(token, r, outside);
      r = outside;
    }
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
