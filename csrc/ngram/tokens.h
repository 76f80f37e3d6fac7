// Tokens as they lie in index files: little-endian u8, u16 or u32, ordered by their bytes (memcmp), that is by the
// byte-swapped value.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/check.h"

namespace gramcore::ngram {

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "index files are mapped as they are");

template <class T>
T load_raw(const unsigned char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

inline std::uint8_t rank_order(std::uint8_t t) {
  return t;
}
inline std::uint16_t rank_order(std::uint16_t t) {
  return __builtin_bswap16(t);
}
inline std::uint32_t rank_order(std::uint32_t t) {
  return __builtin_bswap32(t);
}

// The separator before each document is the largest value of the type.
template <class T>
constexpr T separator() {
  return static_cast<T>(~T{0});
}

// Calls fn(T{}) for the token type of that many bytes.
template <class F>
auto with_token_type(int token_bytes, F&& fn) {
  switch (token_bytes) {
    case 1: return fn(std::uint8_t{});
    case 2: return fn(std::uint16_t{});
    case 4: return fn(std::uint32_t{});
    default: break;
  }
  throw InvalidArgument(cat("token width must be 1, 2 or 4 bytes, got ", token_bytes));
}

// Bytes of one entry of table.N for a tokenized.N of that size: ceil(log2(size) / 8), at least 1.
inline int pointer_bytes(std::uint64_t tokenized_bytes) {
  int bytes = 1;
  while (bytes < 8 && (tokenized_bytes - 1) >> (8 * bytes) != 0) ++bytes;
  return bytes;
}

}  // namespace gramcore::ngram
