// The CUDA twin of quant/binary.h: reads its planes as they are.
#pragma once

#include <cstdint>

#include "quant/packed.h"

namespace gramcore::quant {

// y = x W^T + bias for a sum of two one-bit planes per part.  Device pointers; strides and sizes count elements.
struct LinearBinaryArgs {
  const void* x;               // (rows, k), float32, bfloat16 or float16
  const std::uint8_t* planes;  // both salient planes, both plain ones; 16-byte aligned
  const std::int32_t* order;   // column of x of each of salient.k + plain.k columns, -1: none; a kernel traps on others
  const float* bias;           // n, or null
  void* y;                     // (rows, n), dtype of x
  std::int64_t rows, x_stride, y_stride, k;
  void* workspace;  // gc_cuda_linear_binary_workspace bytes, 16-byte aligned
  std::int64_t workspace_bytes;
  PackSpec salient, plain;        // the first plane of either part
  std::int32_t dtype;             // gramcore::DType of x and y
  std::int32_t int8_activations;  // 1: x is rounded to int8 in blocks of 32 columns in the order; 0: fp32 products
};

}  // namespace gramcore::quant

extern "C" std::int64_t gc_cuda_linear_binary_workspace(const gramcore::quant::LinearBinaryArgs* args);

// stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_linear_binary(const gramcore::quant::LinearBinaryArgs* args, void* stream);
