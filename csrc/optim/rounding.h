// Random bits for stochastic rounding of optimizer state, a function of what is rounded: (seed, step, tensor, element).
// CPU and CUDA steps draw from here, so they store the same bits whatever the launch shape or thread count.
#pragma once

#include <cstdint>

#include "core/hd.h"
#include "core/rng.h"

namespace gramcore::optim {

inline constexpr std::uint32_t kMomentMix = 0x9E3779B1u;  // odd: multiplication permutes the words

// Four words for elements 4 * quad .. 4 * quad + 3 of a tensor, one each.
GC_HD static inline Philox4 rounding_words(std::uint64_t seed, std::uint32_t step, std::uint32_t tensor,
                                           std::uint64_t quad) {
  return philox4x32(seed, quad, static_cast<std::uint64_t>(tensor) << 32 | step);
}

// The 16 bits that round one field of the element: 0 the parameter, 1 the first moment, 2 the second.  Each is uniform;
// the three come from one word, which is all an unbiased rounding of each needs.
GC_HD static inline std::uint32_t rounding_bits(std::uint32_t word, int field) {
  return field == 0 ? word & 0xffffu : field == 1 ? (word * kMomentMix) >> 16 : word >> 16;
}

}  // namespace gramcore::optim
