// Random bits for stochastic rounding of optimizer state, a function of what is rounded: (seed, step, tensor, element).
// CPU and CUDA steps draw from here, so they store the same bits whatever the launch shape or thread count.
// Philox draws a key for every kRoundingRun elements; the word of an element is a mix of its place and the key, six
// times cheaper than Philox: rounding needs unbiased bits, not long periods.
#pragma once

#include <cstdint>

#include "core/hd.h"
#include "core/rng.h"

namespace gramcore::optim {

inline constexpr std::uint32_t kRoundingRun = 32768;
inline constexpr std::uint32_t kPlaceMix = 0x9E3779B1u, kMixA = 0x85EBCA6Bu, kMixB = 0xC2B2AE35u;  // odd
inline constexpr std::uint32_t kMomentMix = 0x9E3779B1u;

struct RoundingKey {
  std::uint32_t a, b;
};

// Of the run that holds `element`.
GC_HD static inline RoundingKey rounding_key(std::uint64_t seed, std::uint32_t step, std::uint32_t tensor,
                                             std::uint64_t element) {
  const Philox4 drawn = philox4x32(seed, element / kRoundingRun, static_cast<std::uint64_t>(tensor) << 32 | step);
  return RoundingKey{drawn.v[0], drawn.v[1]};
}

GC_HD static inline std::uint32_t rounding_word(RoundingKey key, std::uint64_t element) {
  std::uint32_t x = static_cast<std::uint32_t>(element % kRoundingRun) * kPlaceMix + key.a;
  x = (x ^ (x >> 16)) * kMixA;
  x = (x ^ (x >> 13) ^ key.b) * kMixB;
  return x ^ (x >> 16);
}

// The 16 bits that round one field of the element: 0 the parameter, 1 the first moment, 2 the second.  Each is uniform;
// the three come from one word, which is all an unbiased rounding of each needs.
GC_HD static inline std::uint32_t rounding_bits(std::uint32_t word, int field) {
  return field == 0 ? word & 0xffffu : field == 1 ? (word * kMomentMix) >> 16 : word >> 16;
}

}  // namespace gramcore::optim
