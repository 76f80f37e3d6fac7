// Directions of zeroth-order steps: standard normal values that are a function of (seed, tensor, draw, element), so
// that a direction is drawn again wherever it is needed and never stored.
#pragma once

#include <cstdint>

#include "optim/kernels/rules.h"

namespace gramcore::optim {

struct GaussKernels {
  // to[i] += amount * z(key.element + i) for i < n, where z is 0 with probability 1 - keep.  key.step is the draw;
  // key.element is a multiple of 128.
  void (*add)(const NoiseKey& key, float amount, float keep, float* to, std::int64_t n);
};
const GaussKernels& gauss_kernels();

}  // namespace gramcore::optim
