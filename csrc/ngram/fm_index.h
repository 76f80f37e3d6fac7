// FM-index (Ferragina & Manzini 2000) of a token sequence stored backwards, so that a search grows to the right: every
// step appends a token, and the distinct tokens that may follow are read off the same structure.  The transformed text
// is a wavelet matrix (Claude, Navarro & Ordonez 2015) of ceil(log2 k) bit planes for k distinct tokens.
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"

namespace gramcore::ngram {

// Bits with constant-time rank: a count before each block of 512.
class RankBits {
 public:
  RankBits() = default;
  explicit RankBits(std::size_t n) : words_((n / 512 + 1) * 8, 0) {}
  void set(std::size_t i) { words_[i >> 6] |= std::uint64_t{1} << (i & 63); }
  void finish();
  bool test(std::size_t i) const { return (words_[i >> 6] >> (i & 63)) & 1u; }
  std::uint64_t rank1(std::size_t i) const {  // ones before position i
    std::uint64_t n = blocks_[i >> 9];
    const std::size_t last = i >> 6;
    for (std::size_t w = (i >> 9) << 3; w < last; ++w) n += static_cast<unsigned>(__builtin_popcountll(words_[w]));
    const unsigned rest = i & 63;
    if (rest) n += static_cast<unsigned>(__builtin_popcountll(words_[last] << (64 - rest)));
    return n;
  }
  std::uint64_t bytes() const { return words_.size() * 8 + blocks_.size() * 4; }

 private:
  std::vector<std::uint64_t> words_;
  std::vector<std::uint32_t> blocks_;
};

class FmIndex {
 public:
  struct Rows {
    std::uint64_t begin = 0, end = 0;
    std::uint64_t size() const { return end - begin; }
  };

  // T: uint8_t, uint16_t, uint32_t; fewer than 2^31 tokens.  A position is kept of every `sample_every`th token.
  template <class T>
  static FmIndex build(Span<const T> tokens, int sample_every);

  std::uint64_t size() const { return size_; }
  std::uint64_t bytes() const;
  Rows all() const { return {0, size_ + 1}; }
  Rows extend(Rows rows, std::uint32_t token) const;  // empty when the token does not follow
  Rows find(Span<const std::uint32_t> ids) const;
  // Tokens that follow the n-gram of `rows`, ascending in the order of their first appearance as symbols, with counts.
  void successors(Rows rows, std::vector<std::uint32_t>& ids, std::vector<std::int64_t>& counts) const;
  // Start positions, ascending, of an n-gram of `length` tokens.
  void locate(Rows rows, std::size_t length, std::vector<std::int64_t>& positions) const;
  std::vector<std::uint32_t> extract(std::uint64_t begin, std::uint64_t end) const;

 private:
  std::uint64_t skip_end(std::uint64_t row) const { return row - (row > primary_); }
  std::uint64_t descend(std::uint32_t symbol, std::uint64_t at) const;
  std::uint64_t back(std::uint64_t row, std::uint32_t* symbol) const;  // row of the suffix one token earlier

  std::uint64_t size_ = 0, primary_ = 0;
  int levels_ = 0, sample_every_ = 1;
  std::vector<std::uint32_t> symbols_;        // distinct tokens, ascending
  std::vector<std::uint64_t> starts_, base_;  // rows before a symbol's first; where the matrix puts its first
  std::vector<RankBits> planes_;
  std::vector<std::uint64_t> zeros_;
  RankBits marked_;                       // rows whose position is kept
  std::vector<std::uint32_t> positions_;  // of marked rows, in row order
  std::vector<std::uint32_t> rows_of_;    // row of every sample_every-th position
};

}  // namespace gramcore::ngram
