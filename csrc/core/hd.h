// GC_HD marks small functions that CUDA kernels share with CPU code.
#pragma once

#if defined(__CUDACC__)
#define GC_HD __host__ __device__
#else
#define GC_HD
#endif
