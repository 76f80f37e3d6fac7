// y[m, n] = sum_k x[m, k] W[n, k] + bias[n],  W[n, k] = scale[n, g] (code[n, k] - zero) + min[n, g]
//
// x is first written to a workspace in whole blocks of 32 columns (prepare): as int8 or odd numbers of fewer bits with
// a scale and a sum per block, rounded as the CPU kernel rounds, or as float with a sum per block.  A thread then owns
// one weight row (a column of y) and up to eight rows of x.  Per block: an exact integer product by dp4a, or fused
// multiply-adds in column order; blocks of a group in order, then the scale; groups of a segment in order; segments of
// the columns (a sixteenth each) in order. This order is fixed, so a row of y has the same bits in the vector and the
// tile kernel and beside any other rows. Vector kernel: block = panel of 16 weight rows, half-warp = segment.  Tile
// kernel: block = 4 panels x 32 rows of x, x staged in shared memory.  Neither uses tensor cores. Reads: a panel once
// per eight (thirty-two) rows; half a warp reads 64 neighbouring bytes.  The last panel may be partly padding (read,
// not stored).
#pragma once

#include <cstdint>

#include "core/cuda/any_float.cuh"
#include "quant/cuda/codes.cuh"
#include "quant/cuda/linear_packed_policy.h"

namespace gramcore::quant {

// Prepared rows of x, in the workspace or in a stage: `step` blocks between rows.
struct Int8Blocks {
  using Value = std::int8_t;
  using Sum = std::int32_t;
  static constexpr bool kScaled = true;
  std::int8_t* values;
  float* scales;
  std::int32_t* sums;
  std::int64_t step;
};
struct FloatBlocks {
  using Value = float;
  using Sum = float;
  static constexpr bool kScaled = false;
  float* values;
  float* scales;  // unused
  float* sums;
  std::int64_t step;
};

template <class Rows>
struct PrepareLaunch {
  Rows x;  // step: blocks of a row
  const void* source;
  const std::int32_t* order;  // of every column of x its column in source, -1: zeros; null: the same
  std::int64_t source_stride;
  std::uint32_t rows, cols, source_cols;  // columns from cols on are zeros
  DType dtype;
  int bits;  // see LinearPackedArgs::activation_bits
};

// Where results go.
struct Product {
  void* y;
  const float* bias;
  std::int64_t y_stride;
  std::uint32_t n, rows;
  DType dtype;
};

template <class Rows>
struct LinearPackedLaunch {
  PanelShape shape;
  Rows x;
  const std::uint8_t* packed;
  Product product;
  std::uint32_t blocks_per_segment;
};

template <class T, class Combine>
__device__ __forceinline__ T warp_reduce(T x, Combine combine) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) x = combine(x, __shfl_xor_sync(0xffffffffu, x, offset));
  return x;
}

// Codes that a warp's block of finite values up to absmax is rounded to.  Eight bits: integers within 127.
__device__ __forceinline__ int even_code(float v, float absmax) {
  return __float2int_rn(__fmul_rn(v, 127.0f / absmax));
}
// Fewer: odd numbers within top = 2^bits - 1; one bit: signs.
__device__ __forceinline__ int odd_code(float v, float absmax, int top) {
  if (top == 1) return v >= 0.0f ? 1 : -1;
  const float half = __fmul_rn(v, 0.5f * static_cast<float>(top) / absmax);
  const int cut = static_cast<int>(half);
  return 2 * (cut - (static_cast<float>(cut) > half ? 1 : 0)) + 1;
}

// One warp's block of 32 columns, lane = column; `real`: not padding.
__device__ __forceinline__ void prepare_block(const Int8Blocks& x, std::int64_t at, int lane, float v, int bits,
                                              bool real) {
  // Magnitudes compare like their bit patterns, NaN above all; such a block gets scale NaN.
  const std::uint32_t largest =
      warp_reduce(bits::of(v) & 0x7fffffffu, [](std::uint32_t a, std::uint32_t b) { return a > b ? a : b; });
  const float absmax = bits::to_float(largest);
  const bool finite = largest < 0x7f800000u, tiny = absmax < 1e-30f, even = bits == 8;
  const int top = even ? 127 : (1 << bits) - 1;
  int code = even ? 0 : 1;
  if (finite && !tiny) code = even ? even_code(v, absmax) : odd_code(v, absmax, top);
  if (!real) code = 0;
  x.values[32 * at + lane] = static_cast<std::int8_t>(code);
  const auto add = [](auto a, auto b) { return a + b; };
  const int sum = warp_reduce(code, add);
  float scale = absmax / static_cast<float>(top);
  if (bits == 1) {  // the mean magnitude
    const float total = warp_reduce(fabsf(v), [](float a, float b) { return __fadd_rn(a, b); });
    scale = total / static_cast<float>(warp_reduce(real ? 1 : 0, add));
  }
  if (lane == 0) x.scales[at] = finite ? (tiny ? 0.0f : scale) : bits::to_float(0x7fc00000u);
  if (lane == 0) x.sums[at] = sum;
}
__device__ __forceinline__ void prepare_block(const FloatBlocks& x, std::int64_t at, int lane, float v, int, bool) {
  x.values[32 * at + lane] = v;
  const float sum = warp_reduce(v, [](float a, float b) { return __fadd_rn(a, b); });
  if (lane == 0) x.sums[at] = sum;
}

template <class Rows>
__global__ void __launch_bounds__(32 * LinearPackedPolicy::kPrepareWarps)
    prepare_kernel(const __grid_constant__ PrepareLaunch<Rows> launch) {
  const std::uint32_t blocks = static_cast<std::uint32_t>(launch.x.step), lane = threadIdx.x & 31;
  const std::uint32_t at = blockIdx.x * LinearPackedPolicy::kPrepareWarps + (threadIdx.x >> 5);
  const std::uint32_t row = at / blocks, place = at % blocks * 32 + lane;
  if (row >= launch.rows) return;
  std::int64_t column = place < launch.cols ? static_cast<std::int64_t>(place) : -1;
  if (launch.order != nullptr && column >= 0) column = launch.order[place];
  if (column < -1 || column >= launch.source_cols) __trap();
  const std::int64_t from = row * launch.source_stride + column;
  const float v = column >= 0 ? cuda::load_any(launch.source, launch.dtype, from) : 0.0f;
  prepare_block(launch.x, at, static_cast<int>(lane), v, launch.bits, column >= 0);
}

// One column of y against kRows rows of x: the running sums of a group and of a segment.
template <int kRows>
struct ColumnSums {
  float group[kRows], low[kRows], segment[kRows];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int m = 0; m < kRows; ++m) group[m] = low[m] = segment[m] = 0.0f;
  }
  __device__ __forceinline__ void end_group(const PanelShape& s, const std::uint8_t* values, int row) {
    const float scale = load_value(s, values, row, 0), min = s.has_min ? load_value(s, values, row, 1) : 0.0f;
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      segment[m] = __fmaf_rn(scale, group[m], segment[m]);
      if (s.has_min) segment[m] = __fmaf_rn(min, low[m], segment[m]);
      group[m] = low[m] = 0.0f;
    }
  }
};

template <int kBits>
__device__ __forceinline__ void dot_block(const Int8Blocks& x, std::int64_t at, const std::uint32_t (&v)[8], int zero,
                                          float& group, float& low) {
  const int4* const words = reinterpret_cast<const int4*>(x.values + 32 * at);
  const int4 a = words[0], b = words[1];
  const int columns[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
  int sum = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    // 8-bit codes have zero 128: they become signed bytes.
    sum = __dp4a(static_cast<int>(kBits == 8 ? v[j] ^ 0x80808080u : v[j]), columns[j], sum);
  }
  const int block_sum = x.sums[at];
  if constexpr (kBits != 8) sum -= zero * block_sum;
  const float scale = x.scales[at];
  group = __fmaf_rn(static_cast<float>(sum), scale, group);
  low = __fmaf_rn(static_cast<float>(block_sum), scale, low);
}

template <int kBits>
__device__ __forceinline__ void dot_block(const FloatBlocks& x, std::int64_t at, const std::uint32_t (&v)[8], int zero,
                                          float& group, float& low) {
  const float4* const quads = reinterpret_cast<const float4*>(x.values + 32 * at);
#pragma unroll
  for (int j = 0; j < 8; ++j) {
    const float4 q = quads[j];
    const float columns[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float code = static_cast<float>(static_cast<int>(v[j] >> (8 * c) & 0xffu) - zero);
      group = __fmaf_rn(columns[c], code, group);
    }
  }
  low = __fadd_rn(low, x.sums[at]);
}

// Adds the products of blocks [begin, end) of a panel and rows first_row .. first_row + kRows of x.
template <int kBits, int kRows, class Rows>
__device__ __forceinline__ void add_blocks(const PanelShape& s, const std::uint8_t* panel, int row, const Rows& x,
                                           std::uint32_t first_row, std::uint32_t rows, std::uint32_t begin,
                                           std::uint32_t end, ColumnSums<kRows>& sums) {
  std::uint32_t in_group = begin % s.blocks_per_group;
  const std::uint8_t* group = panel + begin / s.blocks_per_group * s.group_bytes;
  for (std::uint32_t b = begin; b < end; ++b) {
    std::uint32_t v[8];
    load_codes<kBits>(group + in_group * s.block_bytes, row, v);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (first_row + m < rows) {
        dot_block<kBits>(x, (first_row + m) * x.step + b, v, s.zero, sums.group[m], sums.low[m]);
      }
    }
    if (++in_group == s.blocks_per_group || b + 1 == end) {
      sums.end_group(s, group + s.blocks_per_group * s.block_bytes, row);
      in_group = 0;
      group += s.group_bytes;
    }
  }
}

// Adds the segments, in order, and the bias: rows first_row .. of the panel's columns of y.
template <int kRows>
__device__ __forceinline__ void store_segments(const Product& product, std::uint32_t first_row,
                                               const float (&sums)[kRows]) {
  constexpr int kSegments = LinearPackedPolicy::kSegments;
  static_assert(kRows <= kSegments, "a half-warp stores a row");
  __shared__ float partial[kSegments][kRows][16];
  const int row = static_cast<int>(threadIdx.x) % 16, segment = static_cast<int>(threadIdx.x) / 16;
#pragma unroll
  for (int m = 0; m < kRows; ++m) partial[segment][m][row] = sums[m];
  __syncthreads();
  const std::uint32_t m = threadIdx.x / 16, column = blockIdx.x * 16 + row;
  if (m >= kRows || first_row + m >= product.rows || column >= product.n) return;
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kSegments; ++i) total = __fadd_rn(total, partial[i][m][row]);
  if (product.bias != nullptr) total = __fadd_rn(total, product.bias[column]);
  cuda::store_any(product.y, product.dtype, (first_row + m) * product.y_stride + column, total);
}

// blockIdx.x = panel; threadIdx.x = (segment, row of the panel).
template <class Rows, int kBits, int kRows>
__global__ void __launch_bounds__(LinearPackedPolicy::kThreads, LinearPackedPolicy::kMinBlocks)
    linear_vector_kernel(const __grid_constant__ LinearPackedLaunch<Rows> launch) {
  const PanelShape& s = launch.shape;
  const std::uint32_t begin = threadIdx.x / 16 * launch.blocks_per_segment;
  const std::uint32_t end = begin + launch.blocks_per_segment < s.blocks ? begin + launch.blocks_per_segment : s.blocks;
  ColumnSums<kRows> sums;
  sums.clear();
  add_blocks<kBits>(s, launch.packed + blockIdx.x * s.panel_bytes, static_cast<int>(threadIdx.x) % 16, launch.x, 0,
                    launch.product.rows, begin, end, sums);
  store_segments(launch.product, 0, sums.segment);
}

// Copies blocks [first, first + kStageBlocks) of the tile's rows; rows and blocks that do not exist are left alone and
// never used in a stored sum.
template <class Rows>
__device__ __forceinline__ void stage_rows(const LinearPackedLaunch<Rows>& launch, const Rows& stage,
                                           std::uint32_t first_row, std::uint32_t first) {
  using Policy = LinearPackedPolicy;
  constexpr int kVectors = 32 * sizeof(typename Rows::Value) / 16;  // 16-byte vectors of a block
  for (int i = static_cast<int>(threadIdx.x); i < Policy::kTileRows * Policy::kStageBlocks * kVectors;
       i += Policy::kThreads) {
    const int at = i / kVectors, vector = i % kVectors;
    const std::uint32_t row = first_row + at / Policy::kStageBlocks, block = first + at % Policy::kStageBlocks;
    if (row >= launch.product.rows || block >= launch.shape.blocks) continue;
    const std::int64_t from = row * launch.x.step + block;
    reinterpret_cast<uint4*>(stage.values + 32 * at)[vector] =
        reinterpret_cast<const uint4*>(launch.x.values + 32 * from)[vector];
    if (vector == 0) stage.sums[at] = launch.x.sums[from];
    if (Rows::kScaled && vector == 0) stage.scales[at] = launch.x.scales[from];
  }
}

// blockIdx = (kTilePanels panels, kTileRows rows of x); threadIdx.x = (eight of the rows, column).
template <class Rows, int kBits>
__global__ void __launch_bounds__(LinearPackedPolicy::kThreads, LinearPackedPolicy::kMinBlocks)
    linear_tile_kernel(const __grid_constant__ LinearPackedLaunch<Rows> launch) {
  using Policy = LinearPackedPolicy;
  constexpr int kColumns = 16 * Policy::kTilePanels, kRows = 8, kStaged = Policy::kTileRows * Policy::kStageBlocks;
  static_assert(Policy::kThreads / kColumns * kRows == Policy::kTileRows, "every thread owns eight rows of the tile");
  __shared__ __align__(16) typename Rows::Value values[kStaged * 32];
  __shared__ float scales[Rows::kScaled ? kStaged : 1];
  __shared__ typename Rows::Sum block_sums[kStaged];
  const Rows stage{values, scales, block_sums, Policy::kStageBlocks};
  const PanelShape& s = launch.shape;
  const int row = static_cast<int>(threadIdx.x) % 16;
  const std::uint32_t column = blockIdx.x * kColumns + threadIdx.x % kColumns;
  const int mine = static_cast<int>(threadIdx.x) / kColumns * kRows;  // first of this thread's rows in the tile
  const std::uint32_t first_row = blockIdx.y * Policy::kTileRows;
  const bool active = column / 16 < (s.n + 15) / 16;
  const std::uint8_t* group = launch.packed + (active ? column / 16 : 0) * s.panel_bytes;
  ColumnSums<kRows> sums;
  sums.clear();
  float total[kRows] = {};
  std::uint32_t in_group = 0, in_segment = 0;
  for (std::uint32_t b = 0; b < s.blocks; ++b) {
    if (b % Policy::kStageBlocks == 0) {
      __syncthreads();  // the last stage's readers are done
      stage_rows(launch, stage, first_row, b);
      __syncthreads();
    }
    if (!active) continue;
    std::uint32_t v[8];
    load_codes<kBits>(group + in_group * s.block_bytes, row, v);
#pragma unroll
    for (int m = 0; m < kRows; ++m) {
      if (first_row + mine + m < launch.product.rows) {
        dot_block<kBits>(stage, (mine + m) * stage.step + b % Policy::kStageBlocks, v, s.zero, sums.group[m],
                         sums.low[m]);
      }
    }
    const bool segment_ends = ++in_segment == launch.blocks_per_segment || b + 1 == s.blocks;
    const bool group_ends = ++in_group == s.blocks_per_group;
    if (group_ends || segment_ends) sums.end_group(s, group + s.blocks_per_group * s.block_bytes, row);
    if (group_ends) {
      in_group = 0;
      group += s.group_bytes;
    }
    if (segment_ends) {
      in_segment = 0;
#pragma unroll
      for (int m = 0; m < kRows; ++m) {
        total[m] = __fadd_rn(total[m], sums.segment[m]);
        sums.segment[m] = 0.0f;
      }
    }
  }
  if (column >= s.n) return;
  const Product& product = launch.product;
  const float bias = product.bias != nullptr ? product.bias[column] : 0.0f;
#pragma unroll
  for (int m = 0; m < kRows; ++m) {
    const std::uint32_t at = first_row + mine + m;
    if (at >= product.rows) continue;
    cuda::store_any(product.y, product.dtype, at * product.y_stride + column,
                    product.bias != nullptr ? __fadd_rn(total[m], bias) : total[m]);
  }
}

// out[i, c] = W[ids[i], c]; block = row, thread = columns c, c + blockDim, ...
template <int kBits>
__global__ void __launch_bounds__(LinearPackedPolicy::kThreads)
    gather_kernel(const PanelShape s, const std::uint8_t* packed, const std::int64_t* ids, float* out,
                  const std::uint32_t cols) {
  const std::int64_t id = ids != nullptr ? ids[blockIdx.x] : blockIdx.x;
  if (id < 0 || id >= s.n) __trap();
  const int row = static_cast<int>(id % 16);
  const std::uint8_t* const panel = packed + id / 16 * s.panel_bytes;
  for (std::uint32_t b = threadIdx.x; b < s.blocks; b += LinearPackedPolicy::kThreads) {
    const std::uint8_t* const group = panel + b / s.blocks_per_group * s.group_bytes;
    const std::uint8_t* const at = group + s.blocks_per_group * s.block_bytes;
    const float scale = load_value(s, at, row, 0), min = s.has_min ? load_value(s, at, row, 1) : 0.0f;
    std::uint32_t v[8];
    load_codes<kBits>(group + b % s.blocks_per_group * s.block_bytes, row, v);
#pragma unroll
    for (std::uint32_t c = 0; c < 32; ++c) {
      const float product =
          __fmul_rn(scale, static_cast<float>(static_cast<int>(v[c / 4] >> (8 * (c % 4)) & 0xffu) - s.zero));
      const std::int64_t to = blockIdx.x * std::int64_t{cols} + 32 * b + c;
      if (32 * b + c < cols) out[to] = s.has_min ? __fadd_rn(product, min) : product;
    }
  }
}

}  // namespace gramcore::quant
