// Included first by every kernel source (`<family>/kernels/<name>.inl.h`), which CMake compiles once per
// instruction-set level with GC_ISA set to the level's name.  Rules for such sources (checked with nm):
// no standard-library templates, no inline library functions, nothing with weak linkage; internal linkage
// (static or GC_ISA_NS) only.  A weak AVX-512 symbol merged into another file would crash older machines.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/half.h"

#ifndef GC_ISA
#error "kernel sources are compiled through gc_kernel() in cmake/isa.cmake"
#endif

#define GC_ISA_CAT2(a, b) a##b
#define GC_ISA_CAT(a, b) GC_ISA_CAT2(a, b)
#define GC_ISA_NS GC_ISA_CAT(isa_, GC_ISA)
#define GC_RESTRICT __restrict__
#define GC_INLINE static inline __attribute__((always_inline))
