// Rows of matrices scaled by a number per row and one per column: the passes of optimizers with factored statistics.
#pragma once

#include <cstdint>

#include "optim/kernels/rules.h"

namespace gramcore::optim {

// One stretch of a row.  u = factor * x * column, d = u - m after m += weight * (u - m), or d = u without m.
struct RowSpan {
  const float* x;
  const float* column;  // one per element, or null for ones
  float* m;             // or null
  float* sums;          // the statistic of each element is added here
  std::int64_t n;
  float factor, weight, eps;
  bool residual;  // the statistic is d^2 + eps, else u^2 + eps
};

// A stretch of a row stepped along x: p += before p;  p -= factor * x * column;  p += after p.
struct RowStep {
  void* p;
  const void* x;
  const float* column;  // one per element, or null for ones
  std::int64_t n;
  float factor, before, after;
  NoiseKey key;
};

using RowStepFn = void (*)(const RowStep& row);

struct RowsKernels {
  // Updates m and sums; returns the sum of the statistic.
  double (*fold)(const RowSpan& row);
  // to = factor * x * column; `to` may be x.
  void (*scale)(const float* x, const float* column, float factor, float* to, std::int64_t n);
  void (*scale_bf16)(const std::uint16_t* x, const float* column, float factor, float* to, std::int64_t n);
  // The values of x at set bits, in order, and back; bit j % 8 of byte j / 8 is that of x[j].  `chosen` has room for 16
  // numbers more than there are set bits.
  void (*gather)(const float* x, const std::uint8_t* bits, float* chosen, std::int64_t n);
  void (*scatter)(const float* chosen, const std::uint8_t* bits, float* x, std::int64_t n);
  // By the form of (p, x) as a rule's (parameter, moments).
  RowStepFn descend[kNumForms];
  // to += factor * x * column.
  void (*add_scaled)(const float* x, const float* column, float factor, float* to, std::int64_t n);
  // Sum of x * column.  squares += the sum of x * x.
  double (*dot)(const float* x, const float* column, std::int64_t n, double* squares);
  // sums += factor * x.  Returns the sum of x * x.
  double (*accumulate)(const float* x, float factor, float* sums, std::int64_t n);
  // Sum of (x * column)^2.
  double (*squares)(const float* x, const float* column, std::int64_t n);
  // m += weight * (factor * x - m).  Returns the sum of (factor * x)^2.
  double (*moment)(const float* x, float factor, float weight, float* m, std::int64_t n);
};
const RowsKernels& rows_kernels();

}  // namespace gramcore::optim
