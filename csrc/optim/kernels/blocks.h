// Block-wise low-bit storage of moments: one fp32 scale (the largest magnitude) per block, and a code per element.
#pragma once

#include <cstdint>

namespace gramcore::optim {

inline constexpr std::int64_t kBlock8 = 256;  // elements per scale of 8-bit codes
inline constexpr std::int64_t kBlock4 = 128;  // of 4-bit codes, two per byte, the first in the low nibble

// `n` may end inside a block; `from` and `to` start at one.
struct BlocksKernels {
  // [0] signed values, [1] values >= 0.
  void (*load8[2])(const std::uint8_t* codes, const float* scales, float* to, std::int64_t n);
  void (*store8[2])(const float* from, std::uint8_t* codes, float* scales, std::int64_t n);
  void (*load4[2])(const std::uint8_t* codes, const float* scales, float* to, std::int64_t n);
  void (*store4[2])(const float* from, std::uint8_t* codes, float* scales, std::int64_t n);
};
const BlocksKernels& blocks_kernels();

}  // namespace gramcore::optim
