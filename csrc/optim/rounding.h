// Random bits for stochastic rounding of optimizer state, a function of what is rounded: (seed, step, tensor, element).
// CPU and CUDA steps draw from here, so they store the same bits whatever the launch shape or thread count.
#pragma once

#include <cstdint>

#include "core/hd.h"
#include "core/rng.h"

namespace gramcore::optim {

enum class RoundedField : std::uint32_t { param = 0, moments = 1 };

// Four words for elements 4 * quad .. 4 * quad + 3 of a tensor, one each.  For `param` the low 16 bits of a word round
// the parameter; for `moments` the low half rounds exp_avg and the high half exp_avg_sq.
GC_HD static inline Philox4 rounding_words(std::uint64_t seed, std::uint32_t step, std::uint32_t tensor,
                                           std::uint64_t quad, RoundedField field) {
  const std::uint64_t where = quad | static_cast<std::uint64_t>(field) << 63;
  return philox4x32(seed, where, static_cast<std::uint64_t>(tensor) << 32 | step);
}

}  // namespace gramcore::optim
