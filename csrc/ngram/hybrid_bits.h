// A bit sequence in compressed blocks of 256 bits with rank (Kärkkäinen, Kempa & Puglisi 2014): a block is stored as
// it is, as the places of its rarer bit, or as the places where the bit changes, whichever is shortest.  Planes of a
// Burrows-Wheeler transform are mostly long runs and shrink to a third or less.
#pragma once

#include <cstdint>
#include <vector>

#include "ngram/big_array.h"
#include "ngram/kernels/wavelet_walk.h"
#include "ngram/section_file.h"

namespace gramcore::ngram {

class HybridBits {
 public:
  void push(bool bit) {
    if (bit) words_[fill_ >> 6] |= std::uint64_t{1} << (fill_ & 63);
    if (++fill_ == kHybridBlock) encode();
  }
  // No push after this.
  void finish();
  void save(SectionWriter& file) const;
  // `size` bits in `num_data` bytes of lists; every block is checked, so that no rank can leave the range.
  static HybridBits map(SectionReader& file, std::uint64_t size, std::uint64_t num_data);

  std::uint64_t size() const { return size_; }
  std::uint64_t bytes() const { return num_groups_ * sizeof(HybridGroup) + num_data_; }
  std::uint64_t data_bytes() const { return num_data_; }
  HybridView view() const { return {groups_, data_}; }
  // Ones before i < size(), and the bit there.
  std::uint64_t rank1(std::uint64_t i, bool* bit) const { return wavelet_walk_kernels().rank1(view(), i, bit); }

 private:
  void encode();
  void check(const SectionReader& file) const;

  const HybridGroup* groups_ = nullptr;  // one more than num_groups_ may be read
  const std::uint8_t* data_ = nullptr;
  std::uint64_t num_groups_ = 0, num_data_ = 0, size_ = 0;
  BigArray<HybridGroup> own_groups_;  // null when mapped
  BigArray<std::uint8_t> own_data_;
  // while bits are pushed: what is done, and the block being filled
  std::vector<HybridGroup> made_groups_;
  std::vector<std::uint8_t> made_data_;
  std::uint64_t ones_ = 0, blocks_ = 0;
  std::uint64_t words_[kHybridBlock / 64] = {};
  unsigned fill_ = 0;
};

}  // namespace gramcore::ngram
