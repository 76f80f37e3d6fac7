// The small operators of a Llama-family layer, and products with dense weights in panels of 16 rows.
#pragma once

#include <cstdint>

#include "core/half.h"

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
  // 1 / sqrt(mean(x^2) + eps) over n elements.
  float (*rms_factor)(const float* x, float eps, std::int64_t n);
  // y = x * factor * w; y may be x.
  void (*normalise)(const float* x, float factor, const float* w, std::int64_t n, float* y);
  // Rotates the halves of a head of 2 * half elements: (a, b) -> (a cos - b sin, b cos + a sin).
  void (*rotate)(float* x, const float* cos, const float* sin, std::int64_t half);
  // y = x * w, which may lie in x's place; returns the sum of x^2.
  float (*weigh)(const float* x, const float* w, std::int64_t n, float* y);
  // x = x * factor + bias (null: 0).
  void (*affine)(float* x, float factor, const float* bias, std::int64_t n);
  // y = silu(gate) * up of factor * gate and factor * up; y may be either.
  void (*swiglu)(const float* gate, const float* up, float factor, std::int64_t n, float* y);
  void (*to_f16)(const float* x, std::int64_t n, f16* y);
  void (*dense_f32)(const DensePanel& panel);
  void (*dense_bf16)(const DensePanel& panel);
};

const LayersKernels& layers_kernels();

}  // namespace gramcore::model
