// Stands in for NVIDIA's <cuda_bf16.h>.
#pragma once

#include "half_types.h"
#include "vector_types.h"

using __nv_bfloat16 = gramcore::cuda_host::SmallFloat<gramcore::bf16>;
using __nv_bfloat162 = gramcore::cuda_host::SmallFloat2<__nv_bfloat16>;
using nv_bfloat16 = __nv_bfloat16;
using nv_bfloat162 = __nv_bfloat162;

GC_HOST_SMALL_FLOAT(__nv_bfloat16, __nv_bfloat162, bfloat16)

inline float2 __bfloat1622float2(__nv_bfloat162 v) {
  return {float(v.x), float(v.y)};
}
