// The CUDA twin of quant/table.h: reads the packed layout of quant/packed.h as it is.
#pragma once

#include <cstdint>

#include "quant/packed.h"

namespace gramcore::quant {

// y = x W^T + bias, W[n, k] = scale[n, g] values[code[n, k]].  Device pointers unless said otherwise; strides and sizes
// count elements.
struct LinearTableArgs {
  const void* x;               // (rows, k), float32, bfloat16 or float16
  const std::uint8_t* packed;  // spec.packed_bytes(), 16-byte aligned
  const float* values;         // 2^spec.bits, on the host
  const float* bias;           // n, or null
  void* y;                     // (rows, n), dtype of x
  std::int64_t rows, x_stride, y_stride;
  void* workspace;  // gc_cuda_linear_table_workspace bytes, 16-byte aligned
  std::int64_t workspace_bytes;
  PackSpec spec;       // 2 to 8 bits; has_min: groups of 16 columns, spec.group is 32
  std::int32_t dtype;  // gramcore::DType of x and y
};

// All of W as fp32, (n, k) dense.
struct DequantizeTableArgs {
  const std::uint8_t* packed;
  const float* values;  // on the host
  float* out;
  PackSpec spec;
};

}  // namespace gramcore::quant

extern "C" std::int64_t gc_cuda_linear_table_workspace(const gramcore::quant::LinearTableArgs* args);

// stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_linear_table(const gramcore::quant::LinearTableArgs* args, void* stream);
extern "C" int gc_cuda_dequantize_table(const gramcore::quant::DequantizeTableArgs* args, void* stream);
