// Unsigned integers of a fixed number of bits.
#pragma once

#include <cstdint>
#include <vector>

namespace gramcore::ngram {

class PackedInts {
 public:
  PackedInts() = default;
  // n zeros that may become values up to `most`.
  PackedInts(std::size_t n, std::uint64_t most) {
    while (width_ < 64 && most >> width_ != 0) ++width_;
    words_.assign(n * width_ / 64 + 2, 0);
  }
  void set(std::size_t i, std::uint64_t value) {  // once
    const std::size_t bit = i * width_, word = bit / 64;
    const unsigned shift = bit % 64;
    words_[word] |= value << shift;
    if (shift != 0) words_[word + 1] |= value >> (64 - shift);
  }
  std::uint64_t operator[](std::size_t i) const {
    const std::size_t bit = i * width_, word = bit / 64;
    const unsigned shift = bit % 64;
    const std::uint64_t value = words_[word] >> shift | (shift != 0 ? words_[word + 1] << (64 - shift) : 0);
    return width_ == 64 ? value : value & ((std::uint64_t{1} << width_) - 1);
  }
  std::uint64_t bytes() const { return words_.size() * 8; }

 private:
  unsigned width_ = 1;
  std::vector<std::uint64_t> words_;
};

}  // namespace gramcore::ngram
