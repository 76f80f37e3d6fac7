// PTX instructions used by kernels, each with a host twin so that the same source runs under the host execution layer.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "core/half.h"

namespace gramcore::cuda::ptx {

// D = A B + C for A (16, 16) row-major, B (16, 8) column-major, C and D (16, 8), by one warp.  With g = lane / 4 and
// t = lane % 4 a lane holds, two 16-bit values to a register (lower column or row in the lower half):
//   a[0] = A[g][2t..],  a[1] = A[g+8][2t..],  a[2] = A[g][2t+8..],  a[3] = A[g+8][2t+8..]
//   b[0] = B[2t..][g],  b[1] = B[2t+8..][g]
//   c = C[g][2t], C[g][2t+1], C[g+8][2t], C[g+8][2t+1]
// The device accumulates in float in an unstated order; the host twin sums in double and rounds once.

#if !defined(__CUDACC__)
namespace host {

struct MmaFragments {
  std::uint32_t a[4], b[2];
  float c[4];
};

template <class Half>
float half_of(std::uint32_t pair, int which) {
  Half h;
  h.bits = static_cast<std::uint16_t>(pair >> (16 * which));
  return to_f32(h);
}

template <class Half>
void mma_m16n8k16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4],
                  cuda_host::Site site) {
  MmaFragments mine{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}, {c[0], c[1], c[2], c[3]}};
  cuda_host::warp_collective(
      mine,
      [&d](const MmaFragments(&all)[32], int lane) {
        for (int i = 0; i < 4; ++i) {
          const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
          double sum = all[lane].c[i];
          for (int k = 0; k < 16; ++k) {
            const std::uint32_t a_pair = all[row % 8 * 4 + k % 8 / 2].a[row / 8 + 2 * (k / 8)];
            const std::uint32_t b_pair = all[column * 4 + k % 8 / 2].b[k / 8];
            sum += static_cast<double>(half_of<Half>(a_pair, k % 2)) * half_of<Half>(b_pair, k % 2);
          }
          d[i] = static_cast<float>(sum);
        }
        return 0;
      },
      site);
}

}  // namespace host
#endif

#if defined(__CUDACC__)
#define GC_MMA_M16N8K16(name, Half, type)                                                                             \
  __device__ __forceinline__ void name(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],       \
                                       const float (&c)[4]) {                                                         \
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                                               \
                 ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"                           \
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])                                                     \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), \
                   "f"(c[3]));                                                                                        \
  }
#else
#define GC_MMA_M16N8K16(name, Half, type)                                                                        \
  inline void name(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], const float (&c)[4], \
                   GC_HOST_SITE) {                                                                               \
    host::mma_m16n8k16<Half>(d, a, b, c, {file, line});                                                          \
  }
#endif
GC_MMA_M16N8K16(mma_m16n8k16_bf16, bf16, "bf16")
GC_MMA_M16N8K16(mma_m16n8k16_f16, f16, "f16")
#undef GC_MMA_M16N8K16

// Loads four 8x8 matrices of 16-bit elements from shared memory by one warp.  Lane 8j + r names row r of matrix j
// (16 bytes, 16-byte aligned); register j of a lane then holds elements 2t and 2t+1 of row g of matrix j, or with
// kTransposed of its column g (g = lane / 4, t = lane % 4): the fragments mma_m16n8k16 takes.
#if defined(__CUDACC__)
template <bool kTransposed>
__device__ __forceinline__ void ldmatrix_x4(std::uint32_t (&r)[4], const void* row) {
  const std::uint32_t address = static_cast<std::uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  }
}
#else
template <bool kTransposed>
void ldmatrix_x4(std::uint32_t (&r)[4], const void* row, GC_HOST_SITE) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0) {
    cuda_host::kernel_error("ldmatrix needs rows aligned to 16 bytes", {file, line});
  }
  cuda_host::warp_collective(
      row,
      [&r](const void* const(&rows)[32], int lane) {
        const int g = lane / 4, t = lane % 4;
        for (int j = 0; j < 4; ++j) {
          const auto element = [&](int i) {
            const int from_row = kTransposed ? i : g, from_column = kTransposed ? g : i;
            return std::uint32_t{static_cast<const std::uint16_t*>(rows[8 * j + from_row])[from_column]};
          };
          r[j] = element(2 * t) | element(2 * t + 1) << 16;
        }
        return 0;
      },
      {file, line});
}
#endif

}  // namespace gramcore::cuda::ptx
