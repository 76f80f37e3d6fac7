// The CUDA twin of quant/linear.h: reads the packed layout of quant/packed.h as it is.
#pragma once

#include <cstdint>

#include "quant/packed.h"

namespace gramcore::quant {

// y = x W^T + bias.  Device pointers; strides and sizes count elements.
struct LinearPackedArgs {
  const void* x;               // (rows, k), float32, bfloat16 or float16
  const std::uint8_t* packed;  // spec.packed_bytes(), 16-byte aligned
  const float* bias;           // n, or null
  void* y;                     // (rows, n), dtype of x
  std::int64_t rows, x_stride, y_stride;
  void* workspace;  // gc_cuda_linear_packed_workspace bytes, 16-byte aligned
  std::int64_t workspace_bytes;
  PackSpec spec;
  std::int32_t dtype;            // gramcore::DType of x and y
  std::int32_t activation_bits;  // 8: x is rounded to int8 in blocks of 32 columns; 1 to 7: to odd numbers; 0: not
};

// out[i] = row ids[i] of W as fp32, (rows, k) dense; ids null: rows 0 .. rows - 1.
struct GatherPackedArgs {
  const std::uint8_t* packed;
  const std::int64_t* ids;  // on the device; the kernel traps on an id outside [0, n)
  float* out;
  std::int64_t rows;
  PackSpec spec;
};

}  // namespace gramcore::quant

extern "C" std::int64_t gc_cuda_linear_packed_workspace(const gramcore::quant::LinearPackedArgs* args);

// stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_linear_packed(const gramcore::quant::LinearPackedArgs* args, void* stream);
extern "C" int gc_cuda_gather_packed(const gramcore::quant::GatherPackedArgs* args, void* stream);
