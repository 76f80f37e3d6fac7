// Huffman-shaped wavelet tree: a sequence of symbols in about its zero-order entropy of bits, compressed further
// (hybrid_bits.h), with rank, access, and the distinct symbols of an interval.
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"
#include "ngram/hybrid_bits.h"

namespace gramcore::ngram {

class WaveletTree {
 public:
  WaveletTree() = default;
  // Symbols in [0, k); every one occurs.
  WaveletTree(std::vector<std::uint32_t> sequence, std::uint32_t k);

  // Occurrences of `symbol` before positions *begin <= *end, in place.
  void rank(std::uint32_t symbol, std::uint64_t* begin, std::uint64_t* end) const;
  // The symbol at `at`; *before: its occurrences before `at`.
  std::uint32_t access(std::uint64_t at, std::uint64_t* before) const;
  struct Found {
    std::uint32_t symbol;
    std::uint64_t count;
  };
  // Distinct symbols of [begin, end) with their counts, in no particular order.
  void distinct(std::uint64_t begin, std::uint64_t end, std::vector<Found>* found) const;
  std::uint64_t bytes() const;

  // What the arrays of save() do not say themselves.
  struct Facts {
    std::uint64_t bits, data_bytes;
  };
  Facts facts() const { return {bits_.size(), bits_.data_bytes()}; }
  void save(SectionWriter& file) const;
  // A sequence of n symbols in [0, k); *counts: how often each occurs.  Everything a query follows is checked.
  static WaveletTree map(SectionReader& file, std::uint64_t n, std::uint32_t k, const Facts& facts,
                         std::vector<std::uint64_t>* counts);

 private:
  void make_codes(const std::vector<std::uint64_t>& counts);
  void assign_codes();
  void check(const SectionReader& file, std::uint64_t n, std::vector<std::uint64_t>* counts) const;
  void fill(std::vector<std::uint32_t> sequence);

  HybridBits bits_;
  std::vector<WaveletNode> nodes_;  // the root first; empty for fewer than two symbols
  std::vector<WaveletCode> codes_;
};

}  // namespace gramcore::ngram
