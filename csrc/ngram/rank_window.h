// A search among a few neighbouring ranks by what acceleration knows of the tokens that suffixes share: of those that
// go on alike only the first is compared with the query, and where matches end is known without comparing.
#pragma once

#include <algorithm>
#include <cstdint>

#include "ngram/accel.h"

namespace gramcore::ngram {

class RankWindow {
 public:
  static bool fits(RankRange range, std::size_t query_size) {
    return range.end - group(range.begin) * Accel::kStride <= kMost && query_size <= Accel::kMaxShared;
  }

  RankWindow() = default;
  // All suffixes of `range`, which fits, agree with the query in `depth` tokens, fewer than it has.
  RankWindow(const Accel::Sample* samples, RankRange range, std::size_t depth)
      : samples_(samples + group(range.begin)),
        base_(group(range.begin) * Accel::kStride),
        begin_(static_cast<int>(range.begin - base_)),
        end_(static_cast<int>(range.end - base_)) {
    enter(depth);
    candidates_ |= bits(begin_, std::min(begin_ + 1, end_));
  }

  // What is known of a neighbour of the range: it agrees with the query in `depth` tokens, and is below or above it.
  void neighbour_below(std::size_t depth) {
    end_ = next(begin_, depth);
    enter(depth);
  }
  void neighbour_above(std::size_t depth, bool shares) {  // `shares`: that many or more with the last of the range
    if (!shares) begin_ = end_;
    const std::uint64_t heads = heads_of(depth) & bits(begin_, end_);
    if (heads != 0) begin_ = 63 - __builtin_clzll(heads);
    enter(depth);
    candidates_ |= bits(begin_, std::min(begin_ + 1, end_));
  }

  bool empty() const { return candidates_ == 0; }
  std::size_t depth() const { return depth_; }  // tokens in which candidates are known to agree with the query
  std::int64_t probe() const {                  // the candidate to compare next; not when empty()
    const int low = __builtin_ctzll(candidates_), high = 63 - __builtin_clzll(candidates_);
    return base_ + __builtin_ctzll(candidates_ & bits((low + high + 1) / 2, 64));
  }
  // What comparing found: tokens in which that candidate agrees with a query of `size`, and whether it is below.
  // Whether the query is found.
  bool seen(std::int64_t rank, std::size_t agreed, bool below, std::size_t size) {
    const int at = static_cast<int>(rank - base_);
    if (agreed == size) {
      begin_ = at;
      end_ = next(at + 1, size);
      return true;
    }
    if (agreed == depth_) {
      candidates_ &= below ? bits(at + 1, 64) : bits(0, at);
    } else if (!below) {  // the first of those that agree so far is above
      candidates_ = 0;
    }
    if (!below) {
      end_ = at;
    } else if (agreed > depth_) {
      begin_ = at + 1;
      neighbour_below(agreed);
    }
    return false;
  }
  // The ranks found, or, when empty(), none where they would be.
  RankRange result() const { return {base_ + (empty() ? end_ : begin_), base_ + end_}; }

 private:
  static constexpr int kMost = 64;
  static std::int64_t group(std::int64_t rank) { return rank / Accel::kStride; }
  static std::uint64_t bits(int begin, int end) {
    const auto below = [](int i) { return i < 64 ? (std::uint64_t{1} << i) - 1 : ~std::uint64_t{0}; };
    return below(end) & ~below(begin);
  }
  std::uint64_t heads_of(std::size_t depth) const {
    std::uint64_t heads = 0;
    for (int at = 0; at < end_; at += Accel::kStride) {
      heads |= std::uint64_t{samples_[at / Accel::kStride].heads(depth)} << at;
    }
    return heads;
  }
  // The first suffix from `at` on that shares fewer than `depth` tokens with the one before it, or the end.
  int next(int at, std::size_t depth) const {
    const std::uint64_t heads = heads_of(depth) & bits(at, end_);
    return heads != 0 ? __builtin_ctzll(heads) : end_;
  }
  void enter(std::size_t depth) {  // [begin_, end_) agree with the query in `depth` tokens
    depth_ = depth;
    candidates_ = heads_of(depth + 1) & bits(begin_, end_);
  }

  const Accel::Sample* samples_ = nullptr;  // from base_ on
  std::int64_t base_ = 0;
  std::uint64_t candidates_ = 0;  // the first suffixes of each run that goes on alike
  std::size_t depth_ = 0;
  int begin_ = 0, end_ = 0;
};

}  // namespace gramcore::ngram
