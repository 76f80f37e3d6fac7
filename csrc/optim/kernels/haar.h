// Rows of matrices beside the approximation coefficients of their Haar transform: runs of 2^level elements, the last
// one padded with zeros.
#pragma once

#include <cstdint>

namespace gramcore::optim {

// Buffers of coefficients have room for kHaarPad numbers more than there are runs.
inline constexpr std::int64_t kHaarPad = 16;

// What a run's coefficient makes of its elements: u = weight g + offset.
struct HaarScale {
  float factor, eps;  // weight = factor / (sqrt(v) + eps)
  float spread;       // offset = (m - r) weight spread, 2^(-level / 2)
};

struct HaarKernels {
  // r = spread times the sum of each run of n elements.
  void (*down)(const float* g, int level, float spread, float* r, std::int64_t n);
  // Over r comes the offset.
  void (*weigh)(const float* m, const float* v, float* r, float* weight, const HaarScale& scale, std::int64_t runs);
  // p += before p;  p -= lr (weight g + offset);  p += after p
  void (*lift)(float* p, const float* g, const float* weight, const float* offset, int level, const float decay[2],
               float lr, std::int64_t n);
};
const HaarKernels& haar_kernels();

}  // namespace gramcore::optim
