// A resizable bitset in 64-bit words (bits past size() are kept zero) and views of the 32-bit token bitmasks
// that torch and other engines share (bit i of word i/32 set = token i allowed).
#pragma once

#include <cstdint>
#include <vector>

#include "core/span.h"

namespace gramcore {

class Bitset {
 public:
  Bitset() = default;
  explicit Bitset(std::size_t size, bool value = false) : size_(size), words_((size + 63) / 64, value ? ~0ull : 0ull) {
    clear_tail();
  }

  std::size_t size() const { return size_; }
  Span<const std::uint64_t> words() const { return words_; }
  Span<std::uint64_t> mutable_words() { return words_; }  // keep the tail zero

  bool test(std::size_t i) const {
    GC_DCHECK(i < size_);
    return (words_[i >> 6] >> (i & 63)) & 1u;
  }
  void set(std::size_t i) {
    GC_DCHECK(i < size_);
    words_[i >> 6] |= 1ull << (i & 63);
  }
  void reset(std::size_t i) {
    GC_DCHECK(i < size_);
    words_[i >> 6] &= ~(1ull << (i & 63));
  }
  void fill(bool value) {
    for (auto& w : words_) w = value ? ~0ull : 0ull;
    clear_tail();
  }
  std::size_t count() const {
    std::size_t n = 0;
    for (auto w : words_) n += static_cast<std::size_t>(__builtin_popcountll(w));
    return n;
  }
  bool any() const {
    for (auto w : words_) {
      if (w) return true;
    }
    return false;
  }
  Bitset& operator|=(const Bitset& other) {
    return combine(other, [](auto a, auto b) { return a | b; });
  }
  Bitset& operator&=(const Bitset& other) {
    return combine(other, [](auto a, auto b) { return a & b; });
  }
  Bitset& operator-=(const Bitset& other) {
    return combine(other, [](auto a, auto b) { return a & ~b; });
  }
  void flip() {
    for (auto& w : words_) w = ~w;
    clear_tail();
  }
  bool operator==(const Bitset& other) const { return size_ == other.size_ && words_ == other.words_; }

  // Calls f(i) for every set bit, ascending.
  template <class F>
  void for_each(F&& f) const {
    for (std::size_t w = 0; w < words_.size(); ++w) {
      for (std::uint64_t rest = words_[w]; rest; rest &= rest - 1) {
        f(w * 64 + static_cast<std::size_t>(__builtin_ctzll(rest)));
      }
    }
  }

 private:
  template <class Op>
  Bitset& combine(const Bitset& other, Op op) {
    GC_DCHECK(size_ == other.size_);
    for (std::size_t i = 0; i < words_.size(); ++i) words_[i] = op(words_[i], other.words_[i]);
    return *this;
  }
  void clear_tail() {
    if (size_ % 64) words_.back() &= (1ull << (size_ % 64)) - 1;
  }

  std::size_t size_ = 0;
  std::vector<std::uint64_t> words_;
};

// Words of a 32-bit token bitmask over `vocab_size` tokens.
constexpr std::size_t bitmask_words(std::size_t vocab_size) {
  return (vocab_size + 31) / 32;
}
inline bool bitmask_test(const std::int32_t* mask, std::size_t token) {
  return (static_cast<std::uint32_t>(mask[token >> 5]) >> (token & 31)) & 1u;
}
inline void bitmask_set(std::int32_t* mask, std::size_t token) {
  mask[token >> 5] = static_cast<std::int32_t>(static_cast<std::uint32_t>(mask[token >> 5]) | (1u << (token & 31)));
}
inline void bitmask_reset(std::int32_t* mask, std::size_t token) {
  mask[token >> 5] = static_cast<std::int32_t>(static_cast<std::uint32_t>(mask[token >> 5]) & ~(1u << (token & 31)));
}

}  // namespace gramcore
