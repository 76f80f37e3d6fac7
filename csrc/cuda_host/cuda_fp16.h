// Stands in for NVIDIA's <cuda_fp16.h>.
#pragma once

#include "half_types.h"
#include "vector_types.h"

using __half = gramcore::cuda_host::SmallFloat<gramcore::f16>;
using __half2 = gramcore::cuda_host::SmallFloat2<__half>;
using half = __half;
using half2 = __half2;

GC_HOST_SMALL_FLOAT(__half, __half2, half)

inline float2 __half22float2(__half2 v) {
  return {float(v.x), float(v.y)};
}
