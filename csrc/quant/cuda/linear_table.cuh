// y[m, n] = sum_k x[m, k] W[n, k] + bias[n],  W[n, k] = scale[n, g] values[code[n, k]]
//
// x is prepared as floats in whole blocks of 32 columns.  blockIdx = (panel of 16 weight rows, up to eight rows of x);
// a half-warp has a sixteenth of the columns, a thread one weight row of it.  The values are copied to shared memory; a
// thread looks up one at a time and multiplies it with all its rows of x: fused multiply-adds in column order, then the
// scale at the end of a group, or of each half of a block where groups have 16 columns; segments in order.  The order
// does not depend on the other rows.  Bytes: a panel once per eight rows.
#pragma once

#include "quant/cuda/linear_packed.cuh"

namespace gramcore::quant {

struct ValuesOf {  // by value among the arguments of a kernel
  float values[256];
};

struct LinearTableLaunch {
  PanelShape shape;
  FloatBlocks x;
  const std::uint8_t* packed;
  Product product;
  std::uint32_t blocks_per_segment;
  ValuesOf table;
};

__device__ __forceinline__ void share_values(const ValuesOf& table, int count, float* shared) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += LinearPackedPolicy::kThreads) shared[i] = table.values[i];
  __syncthreads();
}

template <int kRows>
__device__ __forceinline__ void scale_sums(float scale, float (&group)[kRows], float (&segment)[kRows]) {
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    segment[m] = __fmaf_rn(scale, group[m], segment[m]);
    group[m] = 0.0f;
  }
}

// Adds quads [kFirst, kFirst + kCount) of four columns of a block to the rows' sums.
template <int kFirst, int kCount, int kRows>
__device__ __forceinline__ void add_quads(const LinearTableLaunch& launch, const float* values, std::uint32_t first_row,
                                          std::uint32_t block, const std::uint32_t (&v)[8], float (&group)[kRows]) {
#pragma unroll
  for (int j = kFirst; j < kFirst + kCount; ++j) {
    float w[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) w[c] = values[v[j] >> (8 * c) & 0xffu];
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (first_row + m >= launch.product.rows) continue;
      const std::int64_t at = (first_row + m) * launch.x.step + block;
      const float4 q = reinterpret_cast<const float4*>(launch.x.values + 32 * at)[j];
      group[m] = __fmaf_rn(q.x, w[0], group[m]);
      group[m] = __fmaf_rn(q.y, w[1], group[m]);
      group[m] = __fmaf_rn(q.z, w[2], group[m]);
      group[m] = __fmaf_rn(q.w, w[3], group[m]);
    }
  }
}

template <int kBits, bool kHalves, int kRows>
__global__ void __launch_bounds__(LinearPackedPolicy::kThreads, LinearPackedPolicy::kMinBlocks)
    linear_table_kernel(const __grid_constant__ LinearTableLaunch launch) {
  __shared__ float values[1 << kBits];
  share_values(launch.table, 1 << kBits, values);
  const PanelShape& s = launch.shape;
  const int row = static_cast<int>(threadIdx.x) % 16;
  const std::uint32_t first_row = blockIdx.y * kRows;
  const std::uint32_t begin = threadIdx.x / 16 * launch.blocks_per_segment;
  const std::uint32_t end = begin + launch.blocks_per_segment < s.blocks ? begin + launch.blocks_per_segment : s.blocks;
  float sums[kRows] = {}, segment[kRows] = {};
  std::uint32_t in_group = begin % s.blocks_per_group;
  const std::uint8_t* group = launch.packed + blockIdx.x * s.panel_bytes + begin / s.blocks_per_group * s.group_bytes;
  for (std::uint32_t b = begin; b < end; ++b) {
    std::uint32_t v[8];
    load_codes<kBits>(group + in_group * s.block_bytes, row, v);
    const std::uint8_t* const scales = group + s.blocks_per_group * s.block_bytes;
    add_quads<0, 4>(launch, values, first_row, b, v, sums);
    if (kHalves) scale_sums(load_value(s, scales, row, 0), sums, segment);
    add_quads<4, 4>(launch, values, first_row, b, v, sums);
    if (++in_group == s.blocks_per_group || b + 1 == end) {
      scale_sums(load_value(s, scales, row, kHalves ? 1 : 0), sums, segment);
      in_group = 0;
      group += s.group_bytes;
    }
  }
  store_segments(launch.product, first_row, segment);
}

// out[n, k] = W[n, k]; block = row, thread = blocks of columns.
template <int kBits>
__global__ void __launch_bounds__(LinearPackedPolicy::kThreads)
    dequantize_table_kernel(const PanelShape s, const std::uint8_t* packed, float* out, const std::uint32_t cols,
                            const __grid_constant__ ValuesOf table) {
  __shared__ float values[1 << kBits];
  share_values(table, 1 << kBits, values);
  const int row = static_cast<int>(blockIdx.x % 16);
  const std::uint8_t* const panel = packed + blockIdx.x / 16 * s.panel_bytes;
  for (std::uint32_t b = threadIdx.x; b < s.blocks; b += LinearPackedPolicy::kThreads) {
    const std::uint8_t* const group = panel + b / s.blocks_per_group * s.group_bytes;
    const std::uint8_t* const at = group + s.blocks_per_group * s.block_bytes;
    const float first = load_value(s, at, row, 0), last = s.has_min ? load_value(s, at, row, 1) : first;
    std::uint32_t v[8];
    load_codes<kBits>(group + b % s.blocks_per_group * s.block_bytes, row, v);
#pragma unroll
    for (std::uint32_t c = 0; c < 32; ++c) {
      const float value = values[v[c / 4] >> (8 * (c % 4)) & 0xffu];
      if (32 * b + c < cols)
        out[blockIdx.x * std::int64_t{cols} + 32 * b + c] = __fmul_rn(c < 16 ? first : last, value);
    }
  }
}

}  // namespace gramcore::quant
