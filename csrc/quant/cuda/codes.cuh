// Reading panels of quant/packed.h on a device: a lane owns one of the 16 rows, a 32-bit word four neighbouring
// columns.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/half.h"
#include "quant/packed.h"

namespace gramcore::quant {

// What kernels need of a PackSpec, in 32 bits where that suffices.
struct PanelShape {
  std::int64_t panel_bytes, group_bytes;
  std::uint32_t n, blocks, blocks_per_group, block_bytes, scale_bytes;
  std::int32_t bits, zero, has_min;
};

// v[j] = the codes of columns 4j .. 4j+3 of `row`, one per byte; one-bit codes come as 0 and 2, for -1 and +1.
template <int kBits>
__device__ __forceinline__ void load_codes(const std::uint8_t* block, int row, std::uint32_t (&v)[8]) {
  const std::uint32_t* const words = reinterpret_cast<const std::uint32_t*>(block) + row;
  if constexpr (kBits == 8) {
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldg(words + 16 * j);
    return;
  }
  constexpr bool kNibbles = (kBits & 4) != 0, kPairs = (kBits & 2) != 0, kPlane = (kBits & 1) != 0;
  constexpr int kPairsAt = kNibbles ? 64 : 0, kPlaneAt = kPairsAt + (kPairs ? 32 : 0);
  constexpr int kPairTo = kNibbles ? 4 : 0, kPlaneTo = kBits == 1 ? 1 : kPairTo + (kPairs ? 2 : 0);
#pragma unroll
  for (int j = 0; j < 8; ++j) v[j] = 0;
  if constexpr (kNibbles) {
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] = __ldg(words + 16 * (j % 4)) >> (j / 4 * 4) & 0x0f0f0f0fu;
  }
  if constexpr (kPairs) {
    const std::uint32_t low[2] = {__ldg(words + kPairsAt), __ldg(words + kPairsAt + 16)};
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] |= (low[j / 4] >> (2 * (j % 4)) & 0x03030303u) << kPairTo;
  }
  if constexpr (kPlane) {
    const std::uint32_t plane = __ldg(words + kPlaneAt);
#pragma unroll
    for (int j = 0; j < 8; ++j) v[j] |= (plane >> j & 0x01010101u) << kPlaneTo;
  }
}

// Scale (which = 0) or minimum (1) of `row` from the values that end a group.
__device__ __forceinline__ float load_value(const PanelShape& s, const std::uint8_t* values, int row, int which) {
  const std::uint8_t* const at = values + which * 16 * s.scale_bytes;
  return s.scale_bytes == 2 ? to_f32(reinterpret_cast<const f16*>(at)[row]) : reinterpret_cast<const float*>(at)[row];
}

}  // namespace gramcore::quant
