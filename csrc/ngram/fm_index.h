// FM-index (Ferragina & Manzini 2000) of a token sequence stored backwards, so that a search grows to the right: every
// step appends a token, and the distinct tokens that may follow are read off the same structure.  The transformed text
// is a Huffman-shaped wavelet tree (Mäkinen & Navarro 2005) over compressed bits.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/span.h"
#include "ngram/hybrid_bits.h"
#include "ngram/packed_ints.h"
#include "ngram/section_file.h"
#include "ngram/wavelet.h"

namespace gramcore::ngram {

class FmIndex {
 public:
  struct Rows {
    std::uint64_t begin = 0, end = 0;
    std::uint64_t size() const { return end - begin; }
  };

  // T: uint8_t, uint16_t, uint32_t; fewer than 2^31 tokens.  The position is kept of every `sample_every`th token, and
  // the row of every fourth of those.
  template <class T>
  static FmIndex build(Span<const T> tokens, int sample_every);

  void save(const std::string& path) const;
  // Maps a file of save(): read once and checked, so that no query can leave it.  Throws FormatError, IoError.
  static FmIndex load(const std::string& path);

  std::uint64_t size() const { return size_; }
  std::uint64_t bytes() const;
  Rows all() const { return {0, size_ + 1}; }
  Rows extend(Rows rows, std::uint32_t token) const;  // empty when the token does not follow
  Rows find(Span<const std::uint32_t> ids) const;
  // Tokens that follow the n-gram of `rows`, ascending, with counts.
  void successors(Rows rows, std::vector<std::uint32_t>& ids, std::vector<std::int64_t>& counts) const;
  // Start positions, ascending, of an n-gram of `length` tokens.
  void locate(Rows rows, std::size_t length, std::vector<std::int64_t>& positions) const;
  std::vector<std::uint32_t> extract(std::uint64_t begin, std::uint64_t end) const;

 private:
  struct Facts;
  void count_rows(const std::vector<std::uint64_t>& counts);
  void require(bool holds) const;  // what only a forged file can break
  std::uint64_t skip_end(std::uint64_t row) const { return row - (row > primary_); }
  std::uint64_t back(std::uint64_t row, std::uint32_t* symbol) const;  // row of the suffix one token earlier

  std::uint64_t row_sample_every() const { return 4 * static_cast<std::uint64_t>(sample_every_); }

  std::uint64_t size_ = 0, primary_ = 0;
  int sample_every_ = 1;
  std::vector<std::uint32_t> symbols_;  // distinct tokens, ascending
  std::vector<std::uint64_t> starts_;   // first row of each symbol's
  WaveletTree before_;                  // the token before each row's suffix
  HybridBits marked_;                   // rows whose position is kept
  PackedInts positions_;                // of marked rows in row order, divided by sample_every
  PackedInts rows_of_;                  // row of every row_sample_every()-th position
  MappedFile file_;                     // empty unless loaded
};

}  // namespace gramcore::ngram
