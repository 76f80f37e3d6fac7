// The one way to start a kernel, and dynamic shared memory, for sources that both nvcc and the host execution layer
// compile.
//   GC_CUDA_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, args...);
//   GC_DYNAMIC_SHARED(float, tile);   // inside a kernel: float* tile, 16-byte aligned
// A template-id with a comma goes into parentheses: GC_CUDA_LAUNCH((copy_kernel<float, 4>), ...).
#pragma once

#include <cuda_runtime.h>

#if defined(__CUDACC__)
#define GC_CUDA_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, ...) \
  (kernel)<<<(grid), (block), (dynamic_shared_bytes), (stream)>>>(__VA_ARGS__)
#define GC_DYNAMIC_SHARED(T, name)                                   \
  extern __shared__ __align__(16) unsigned char gc_dynamic_shared[]; \
  T* name = reinterpret_cast<T*>(gc_dynamic_shared)
#else
#define GC_CUDA_LAUNCH(kernel, grid, block, dynamic_shared_bytes, stream, ...) \
  ::gramcore::cuda_host::launch((kernel), (grid), (block), (dynamic_shared_bytes), (stream), ##__VA_ARGS__)
#define GC_DYNAMIC_SHARED(T, name) T* name = static_cast<T*>(::gramcore::cuda_host::current_thread->dynamic_shared)
#endif
