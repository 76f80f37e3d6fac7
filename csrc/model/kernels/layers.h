// The small operators of a Llama-family layer, and products with dense weights in panels of 16 rows.
#pragma once

#include <cstdint>

namespace gramcore::model {

inline constexpr std::int64_t kPanelRows = 16;

// One panel: weights[k][16] (fp32 or bf16) against rows of x; out (rows, 16).
struct DensePanel {
  const void* weights;
  std::int64_t k;
  const float* x;
  std::int64_t x_stride, rows;
  float* out;
};

struct LayersKernels {
  // y = x / sqrt(mean(x^2) + eps) * w over n elements; y may be x.
  void (*rms_norm)(const float* x, const float* w, float eps, std::int64_t n, float* y);
  // Rotates the halves of a head of 2 * half elements: (a, b) -> (a cos - b sin, b cos + a sin).
  void (*rotate)(float* x, const float* cos, const float* sin, std::int64_t half);
  // y = silu(gate) * up; y may be either.
  void (*swiglu)(const float* gate, const float* up, std::int64_t n, float* y);
  void (*dense_f32)(const DensePanel& panel);
  void (*dense_bf16)(const DensePanel& panel);
};

const LayersKernels& layers_kernels();

}  // namespace gramcore::model
