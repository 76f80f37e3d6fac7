// Function and variable qualifiers of CUDA C++ for a plain C++ compiler.
#pragma once

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))

// A statically sized __shared__ array belongs to the block that is running on this CPU thread.  AddressSanitizer
// puts no redzone around thread-local variables, so under it the array is an ordinary global and run_grid() runs
// one block at a time.
#if defined(GC_HOST_ASAN)
#define __shared__ static
#else
#define __shared__ static thread_local
#endif
