// One row of logits: the reductions that verification needs, over float32, bfloat16 and float16.
#pragma once

#include <cstdint>

#include "core/half.h"

namespace gramcore::spec {

struct RowsKernels {
  // Index of the largest entry, the lowest one among equals; NaN is never chosen; -1 when every entry is NaN or
  // n == 0.  *value receives the entry.
  std::int64_t (*argmax_f32)(const float* x, std::int64_t n, float* value);
  std::int64_t (*argmax_bf16)(const bf16* x, std::int64_t n, float* value);
  std::int64_t (*argmax_f16)(const f16* x, std::int64_t n, float* value);
  // out[i] = exp((x[i] - shift) * scale), 0 for NaN and -inf; returns the sum.
  double (*exp_f32)(const float* x, std::int64_t n, float shift, float scale, float* out);
  double (*exp_bf16)(const bf16* x, std::int64_t n, float shift, float scale, float* out);
  double (*exp_f16)(const f16* x, std::int64_t n, float shift, float scale, float* out);
  // The sum alone, to the same bits.
  double (*exp_sum_f32)(const float* x, std::int64_t n, float shift, float scale);
  double (*exp_sum_bf16)(const bf16* x, std::int64_t n, float shift, float scale);
  double (*exp_sum_f16)(const f16* x, std::int64_t n, float shift, float scale);
};

const RowsKernels& rows_kernels();

}  // namespace gramcore::spec
