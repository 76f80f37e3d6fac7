// What the launchers of products with packed weights share: checks of arguments, shapes, rows in a workspace.
#pragma once

#include <cstdint>

#include "core/cuda/status.h"
#include "quant/cuda/linear_packed.cuh"

namespace gramcore::quant {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

inline int check_spec(const PackSpec& s, const std::uint8_t* packed) {
  if (s.n < 1 || s.k < 1 || s.n > 0x7fffffc0 || s.k > 0x7fffff00) {
    return cuda::invalid("weight must have 1 to 2^31 - 256 rows and columns on a CUDA device, got (", s.n, ", ", s.k,
                         ")");
  }
  if (s.bits < 1 || s.bits > 8) return cuda::invalid("bits must be in [1, 8], got ", s.bits);
  const std::int64_t row = ceil_div(s.k, kBlock) * kBlock;
  if ((s.group < kBlock || s.group > kMaxGroup || s.group % kBlock != 0) && s.group != row) {
    return cuda::invalid("group_size must be 32, 64, 96, 128 or ", row, " (one group per row), got ", s.group);
  }
  if (s.zero < 0 || s.zero >= 1 << s.bits || (s.bits == 8 && s.zero != 128) || (s.bits == 1 && s.zero != 1)) {
    return cuda::invalid("zero must be a code, 128 for 8 bits and 1 for one bit, got ", s.zero, " (", s.bits, " bits)");
  }
  if (packed == nullptr || reinterpret_cast<std::uintptr_t>(packed) % 16 != 0) {
    return cuda::invalid("packed must not be null and must be aligned to 16 bytes");
  }
  return cuda::kOk;
}

inline PanelShape shape_of(const PackSpec& s) {
  PanelShape p{};
  p.panel_bytes = s.panel_bytes();
  p.group_bytes = s.group_bytes();
  p.n = static_cast<std::uint32_t>(s.n);
  p.blocks = static_cast<std::uint32_t>(s.k_padded() / kBlock);
  p.blocks_per_group = static_cast<std::uint32_t>(s.group / kBlock);
  p.block_bytes = static_cast<std::uint32_t>(s.block_bytes());
  p.scale_bytes = static_cast<std::uint32_t>(s.scale_bytes());
  p.bits = s.bits;
  p.zero = s.zero;
  p.has_min = s.has_min ? 1 : 0;
  return p;
}

// Sizes of a product: y (rows, n) = x (rows, k), prepared in `blocks` blocks per row, in a workspace of `workspace`
// bytes; `rows_at_once` by one block of threads.
struct ProductSize {
  std::int64_t n, k, blocks, workspace, rows_at_once;
};

template <class Args>
int check_product(const Args& a, const ProductSize& size) {
  const std::int64_t n = size.n, k = size.k, needed = size.workspace, most = 65535 * size.rows_at_once;
  if (a.rows < 0 || a.rows > most || a.rows * size.blocks > 0x7fffff00) {
    return cuda::invalid("x must have 0 to ", most, " rows and fewer than 2^36 elements on a CUDA device, got ", a.rows,
                         " rows");
  }
  if (a.rows == 0) return cuda::kOk;
  if (a.x == nullptr || a.y == nullptr) return cuda::invalid("x and y must not be null");
  if (a.x_stride < k && a.rows > 1) return cuda::invalid("x_stride must be >= k, got ", a.x_stride, " (k ", k, ")");
  if (a.y_stride < n && a.rows > 1) return cuda::invalid("y_stride must be >= n, got ", a.y_stride, " (n ", n, ")");
  const DType dtype = static_cast<DType>(a.dtype);
  if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f16) {
    return cuda::invalid("x must be float32, bfloat16 or float16, got dtype code ", a.dtype);
  }
  if (a.workspace_bytes < needed || a.workspace == nullptr || reinterpret_cast<std::uintptr_t>(a.workspace) % 16 != 0) {
    return cuda::invalid("workspace must have ", needed, " bytes, aligned to 16, got ", a.workspace_bytes);
  }
  return cuda::kOk;
}

template <class Args>
Product product_of(const Args& a, std::int64_t n) {
  return {a.y,
          a.bias,
          a.y_stride,
          static_cast<std::uint32_t>(n),
          static_cast<std::uint32_t>(a.rows),
          static_cast<DType>(a.dtype)};
}

// Bytes of prepared rows: values, then sums, then scales.
template <class Rows>
std::int64_t prepared_bytes(std::int64_t rows, std::int64_t blocks) {
  const std::int64_t scale = Rows::kScaled ? 4 : 0;
  return rows * blocks * (kBlock * static_cast<std::int64_t>(sizeof(typename Rows::Value)) + 4 + scale);
}

// Blocks of a prepared row, columns of x, and the bits that they are rounded to (where they are).
struct PrepareShape {
  std::int64_t blocks, cols;
  int bits = 8;
};

// Prepares columns `order` of x (null: all) in `workspace`.
template <class Rows, class Args>
int prepare(const Args& a, void* workspace, const PrepareShape& shape, const std::int32_t* order, cudaStream_t stream,
            Rows* rows) {
  const std::int64_t blocks = shape.blocks, cols = shape.cols;
  using Value = typename Rows::Value;
  using Sum = typename Rows::Sum;
  Value* const values = static_cast<Value*>(workspace);
  Sum* const sums = reinterpret_cast<Sum*>(values + a.rows * blocks * kBlock);
  *rows = {values, Rows::kScaled ? reinterpret_cast<float*>(sums + a.rows * blocks) : nullptr, sums, blocks};
  PrepareLaunch<Rows> l{};
  l.x = *rows;
  l.source = a.x;
  l.order = order;
  l.source_stride = a.x_stride;
  l.source_cols = static_cast<std::uint32_t>(cols);
  l.rows = static_cast<std::uint32_t>(a.rows);
  l.cols = static_cast<std::uint32_t>(order == nullptr ? cols : blocks * kBlock);
  l.dtype = static_cast<DType>(a.dtype);
  l.bits = shape.bits;
  constexpr int kWarps = LinearPackedPolicy::kPrepareWarps;
  GC_CUDA_LAUNCH((prepare_kernel<Rows>), static_cast<unsigned>(ceil_div(a.rows * blocks, kWarps)), 32 * kWarps, 0,
                 stream, l);
  return cuda::launch_status("prepare");
}

// Segments of a row of blocks.
inline std::uint32_t blocks_per_segment(std::uint32_t blocks) {
  return static_cast<std::uint32_t>(ceil_div(blocks, LinearPackedPolicy::kSegments));
}

}  // namespace gramcore::quant
