// Memory-bandwidth probes: the limit that benchmarks divide by.
#pragma once

#include <cstddef>

namespace gramcore::core {

struct BandwidthKernels {
  float (*read)(const float* x, std::size_t n);                                     // sum, so that nothing is skipped
  void (*copy)(float* y, const float* x, std::size_t n);                            // y = x
  void (*triad)(float* z, const float* x, const float* y, float a, std::size_t n);  // z = x + a y
};

const BandwidthKernels& bandwidth_kernels();

}  // namespace gramcore::core
