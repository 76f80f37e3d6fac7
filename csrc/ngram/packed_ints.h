// Unsigned integers of a fixed number of bits.
#pragma once

#include <cstdint>
#include <vector>

#include "ngram/section_file.h"

namespace gramcore::ngram {

class PackedInts {
 public:
  PackedInts() = default;
  // n zeros that may become values up to `most`.
  PackedInts(std::size_t n, std::uint64_t most) : width_(width_for(most)), own_(words_for(n, width_), 0) {
    words_ = own_;
  }
  // As save() wrote them; any value of the width may be met.
  static PackedInts map(SectionReader& file, std::size_t n, std::uint64_t most) {
    PackedInts found;
    found.width_ = width_for(most);
    found.words_ = file.take<std::uint64_t>(words_for(n, found.width_));
    return found;
  }
  void save(SectionWriter& file) const { file.add(words_); }
  PackedInts(PackedInts&&) noexcept = default;
  PackedInts& operator=(PackedInts&&) noexcept = default;

  void set(std::size_t i, std::uint64_t value) {  // once
    const std::size_t bit = i * width_, word = bit / 64;
    const unsigned shift = bit % 64;
    own_[word] |= value << shift;
    if (shift != 0) own_[word + 1] |= value >> (64 - shift);
  }
  std::uint64_t operator[](std::size_t i) const {
    const std::size_t bit = i * width_, word = bit / 64;
    const unsigned shift = bit % 64;
    const std::uint64_t value = words_[word] >> shift | (shift != 0 ? words_[word + 1] << (64 - shift) : 0);
    return width_ == 64 ? value : value & ((std::uint64_t{1} << width_) - 1);
  }
  std::uint64_t bytes() const { return words_.size() * 8; }

 private:
  static unsigned width_for(std::uint64_t most) {
    unsigned width = 1;
    while (width < 64 && most >> width != 0) ++width;
    return width;
  }
  static std::size_t words_for(std::size_t n, unsigned width) { return n * width / 64 + 2; }

  unsigned width_ = 1;
  std::vector<std::uint64_t> own_;   // empty when mapped
  Span<const std::uint64_t> words_;  // own_ or a part of a mapped file
};

}  // namespace gramcore::ngram
