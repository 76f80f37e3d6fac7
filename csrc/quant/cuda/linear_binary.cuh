// y = x W^T + bias with W = s1 + s2 in each of two parts of the columns (quant/binary.h), planes of one-bit codes.
//
// x is prepared part by part in the order of the stored columns, as int8 or floats in blocks of 32.  blockIdx = (panel
// of 16 weight rows, up to eight rows of x); a half-warp has a sixteenth of the blocks of either part, a thread one
// weight row, and adds the salient part's planes, then the plain part's, as linear_packed adds one-bit weights; then
// segments in order.  A row of y does not depend on the others.  Bytes: every panel once per eight rows.
#pragma once

#include "quant/cuda/linear_packed.cuh"

namespace gramcore::quant {

template <class Rows>
struct LinearBinaryLaunch {
  struct Part {
    PanelShape first, second;  // of the planes
    const std::uint8_t *first_plane, *second_plane;
    Rows x;
    std::uint32_t blocks_per_segment;
  };
  Part salient, plain;
  Product product;
};

template <class Rows, int kRows>
__device__ __forceinline__ void add_part(const typename LinearBinaryLaunch<Rows>::Part& part, std::uint32_t first_row,
                                         std::uint32_t rows, ColumnSums<kRows>& sums) {
  const int row = static_cast<int>(threadIdx.x) % 16;
  const std::uint32_t begin = threadIdx.x / 16 * part.blocks_per_segment, blocks = part.first.blocks;
  const std::uint32_t end = begin + part.blocks_per_segment < blocks ? begin + part.blocks_per_segment : blocks;
  add_blocks<1>(part.first, part.first_plane + blockIdx.x * part.first.panel_bytes, row, part.x, first_row, rows, begin,
                end, sums);
  add_blocks<1>(part.second, part.second_plane + blockIdx.x * part.second.panel_bytes, row, part.x, first_row, rows,
                begin, end, sums);
}

template <class Rows, int kRows>
__global__ void __launch_bounds__(LinearPackedPolicy::kThreads, LinearPackedPolicy::kMinBlocks)
    linear_binary_kernel(const __grid_constant__ LinearBinaryLaunch<Rows> launch) {
  const std::uint32_t first_row = blockIdx.y * kRows;
  ColumnSums<kRows> sums;
  sums.clear();
  add_part<Rows>(launch.salient, first_row, launch.product.rows, sums);
  add_part<Rows>(launch.plain, first_row, launch.product.rows, sums);
  store_segments(launch.product, first_row, sums.segment);
}

}  // namespace gramcore::quant
