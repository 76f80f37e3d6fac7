// Element i of a float32, bfloat16 or float16 array whose type is known at run time: for the few values a kernel reads
// or writes once, where an instance per type would only cost compile time.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "core/dtype.h"

namespace gramcore::cuda {

__device__ __forceinline__ float load_any(const void* data, DType dtype, std::int64_t i) {
  switch (dtype) {
    case DType::bf16: return to_f32(static_cast<const bf16*>(data)[i]);
    case DType::f16: return to_f32(static_cast<const f16*>(data)[i]);
    default: return static_cast<const float*>(data)[i];
  }
}

__device__ __forceinline__ void store_any(void* data, DType dtype, std::int64_t i, float x) {
  switch (dtype) {
    case DType::bf16: static_cast<bf16*>(data)[i] = to_bf16(x); break;
    case DType::f16: static_cast<f16*>(data)[i] = to_f16(x); break;
    default: static_cast<float*>(data)[i] = x; break;
  }
}

}  // namespace gramcore::cuda
