// Random words on vectors: those of stochastic rounding, and Philox blocks kLanes at a time.  Included by kernel
// sources.
#pragma once

#include "optim/kernels/rules.h"
#include "optim/kernels/vec.h"
#include "optim/rounding.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

// As rounding_word() of optim/rounding.h, for the elements of one block; a block lies in one run.
struct RoundingVectors {
  RoundingKey key;
  vu place;  // place mixed in for lane 0..kLanes-1 of element 0

  GC_INLINE RoundingVectors of(const NoiseKey& k) {
    const auto first = static_cast<std::uint64_t>(k.element);
    vu lane;
    for (std::uint32_t i = 0; i < kLanes; ++i) lane[i] = i;
    const RoundingKey key = rounding_key(k.seed, k.step, k.tensor, first);
    return {key, (lane + static_cast<std::uint32_t>(first % kRoundingRun)) * kPlaceMix + key.a};
  }
  __attribute__((always_inline)) vu words(std::int64_t i) const {
    vu x = place + static_cast<std::uint32_t>(i) * kPlaceMix;
    x = (x ^ (x >> 16)) * kMixA;
    x = (x ^ (x >> 13) ^ key.b) * kMixB;
    return x ^ (x >> 16);
  }
};

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
