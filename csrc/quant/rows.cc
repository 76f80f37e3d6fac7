#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/thread_pool.h"
#include "quant/kernels/qgemm.h"
#include "quant/linear.h"
#include "quant/shared.h"

namespace gramcore::quant {
namespace {

// Columns that cover the last group of any size.
std::int64_t padded_columns(std::int64_t cols) {
  return (ceil_div(cols, kBlock) - 1) * kBlock + kMaxGroup;
}

const float* row_as_floats(const RowsView& x, std::int64_t row, std::vector<float>* buffer) {
  if (x.dtype == DType::f32) return static_cast<const float*>(x.data) + row * x.stride;
  const bf16* from = static_cast<const bf16*>(x.data) + row * x.stride;
  float* to = scratch(buffer, x.cols);
  for (std::int64_t i = 0; i < x.cols; ++i) to[i] = to_f32(from[i]);
  return to;
}

}  // namespace

void QuantizedRows::resize(std::int64_t rows, std::int64_t cols, int bits) {
  GC_CHECK(bits >= 1 && bits <= 8, "bits of activations must be in [1, 8], got ", bits);
  bits_ = bits;
  rows_ = rows;
  cols_ = cols;
  blocks_ = padded_columns(cols) / kBlock;
  scratch(&codes_, rows_ * blocks_ * kBlock);
  scratch(&scales_, rows_ * blocks_);
  scratch(&sums_, rows_ * blocks_);
  for (Prepared& p : prepared_) p.current = false;
  tables_current_ = planes_current_ = false;
}

void QuantizedRows::quantize(const RowsView& x, int bits) {
  check_dtype(x.dtype, "x");
  resize(x.rows, x.cols, bits);
  const std::int64_t grain = std::max<std::int64_t>(1, (std::int64_t{1} << 15) / std::max<std::int64_t>(1, cols_));
  parallel_for(rows_, grain, [&](std::int64_t begin, std::int64_t end) { set(x, {begin, end, 0, blocks_}); });
}

std::int64_t QuantizedRows::block_step() const {
  std::int64_t step = 1;
  for (const Prepared& p : prepared_) {
    if (p.current && p.group) step = std::lcm(step, p.group / kBlock);
  }
  return step;
}

void QuantizedRows::set(const RowsView& x, const Piece& piece) {
  static thread_local std::vector<float> buffer;
  const auto kernel = qgemm_kernels().quantize_row;
  const std::int64_t skipped = piece.block0 * kBlock;
  for (std::int64_t row = piece.row0; row < piece.row1; ++row) {
    const std::int64_t first = row / kTile * kTile, height = std::min(kTile, rows_ - first);
    const std::int64_t at = first * blocks_ + piece.block0 * height + (row - first);
    kernel(row_as_floats(x, row, &buffer) + skipped, cols_ - skipped, bits_, piece.block1 - piece.block0,
           codes_.data() + at * kBlock, height * kBlock, scales_.data() + at, sums_.data() + at, height);
  }
  for (Prepared& p : prepared_) {
    if (p.current) fill(&p, piece);
  }
  if (tables_current_) fill_tables(piece);
  if (planes_current_) fill_planes(piece);
}

// What is derived from the codes of a piece.
void QuantizedRows::fill(Prepared* slot, const Piece& piece) const {
  const std::int64_t per_group = slot->group / kBlock, groups = slot->group ? ceil_div(cols_, slot->group) : 0;
  for (std::int64_t row = piece.row0; row < piece.row1; ++row) {
    const std::int64_t first = row / kTile * kTile, height = std::min(kTile, rows_ - first), r = row - first;
    const std::int64_t at = first * blocks_ + r;
    std::int32_t* const init = slot->init.data() + at;
    const std::int32_t* const sums = sums_.data() + at;
    for (std::int64_t b = piece.block0; b < piece.block1; ++b) {
      const std::int32_t sum = sums[b * height];
      init[b * height] = (slot->planes == 1 ? 0 : -slot->zero * sum);
      if (slot->planes == 0) continue;
      // Bits that all differ from none of those of x: see quant/kernels/popcount.inl.h.
      const std::int32_t columns = static_cast<std::int32_t>(std::clamp<std::int64_t>(cols_ - b * kBlock, 0, kBlock));
      const std::int32_t top = (1 << slot->planes) - 1, most = columns * top * ((1 << bits_) - 1);
      init[b * height] += slot->planes == 1 ? most : (most + top * sum) / 2;
    }
    if (groups == 0) continue;
    const float* const scales = scales_.data() + at;
    for (std::int64_t g = piece.block0 / per_group; g < std::min(groups, ceil_div(piece.block1, per_group)); ++g) {
      float total = 0;
      for (std::int64_t b = g * per_group; b < (g + 1) * per_group; ++b) {
        total += scales[b * height] * static_cast<float>(sums[b * height]);
      }
      slot->gsum[static_cast<std::size_t>(first * groups + g * height + r)] = total;
    }
  }
}

void QuantizedRows::fill_tables(const Piece& piece) {
  for (std::int64_t b = piece.block0; b < piece.block1; ++b) {
    const std::int64_t at = b * rows_ + piece.row0;
    qgemm_kernels().build_tables(codes_.data() + at * kBlock, piece.row1 - piece.row0, tables_.data() + at * 256);
  }
}

// Bits of dword j of a block, columns 4 j .. 4 j + 3, go to bit j of every byte, and for the order of pairs to bit
// 2 (j mod 4) + j / 4.
void QuantizedRows::fill_planes(const Piece& piece) {
  const std::int64_t half = bits_ + 1, words = 2 * half;
  const int top = (1 << bits_) - 1;
  for (std::int64_t row = piece.row0; row < piece.row1; ++row) {
    const std::int64_t first = row / kTile * kTile, height = std::min(kTile, rows_ - first);
    for (std::int64_t b = piece.block0; b < piece.block1; ++b) {
      const std::int64_t at = first * blocks_ + b * height + (row - first);
      std::uint8_t codes[kBlock];
      std::uint32_t four[kBlock / 4], real[kBlock / 4] = {};
      for (std::int64_t c = 0; c < kBlock; ++c) {
        codes[c] = static_cast<std::uint8_t>((codes_[static_cast<std::size_t>(at * kBlock + c)] + top) >> 1);
      }
      std::memcpy(four, codes, sizeof(four));
      for (std::int64_t c = 0; c < std::min(kBlock, cols_ - b * kBlock); ++c) real[c / 4] |= 1u << (8 * (c % 4));
      std::uint32_t* const to = planes_.data() + at * words;
      std::fill(to, to + words, 0u);
      for (int j = 0; j < 8; ++j) {
        const int paired = 2 * (j % 4) + j / 4;
        for (std::int64_t i = 0; i < half; ++i) {
          const std::uint32_t bits = i < bits_ ? (four[j] >> i) & real[j] : real[j];
          to[i] |= bits << j;
          to[half + i] |= bits << paired;
        }
      }
    }
  }
}

bool QuantizedRows::by_planes(const PackSpec& w) const {
  const QgemmKernels& kernels = qgemm_kernels();
  return w.bits <= 3 && bits_ <= 4 && kernels.popcount[w.bits][bits_] && rows_ <= kernels.popcount_rows[w.bits];
}

QuantizedRows::Prepared* QuantizedRows::slot(const PackSpec& w) {
  const std::int64_t group = w.has_min ? w.group : 0;
  const int planes = by_planes(w) ? w.bits : 0;
  Prepared* found = nullptr;
  for (Prepared& p : prepared_) {
    if (p.zero == w.zero && p.group == group && p.planes == planes) found = &p;
  }
  if (!found) found = &prepared_.emplace_back();
  if (found->current) return nullptr;
  found->zero = w.zero;
  found->group = group;
  found->planes = planes;
  found->current = true;
  scratch(&found->init, rows_ * blocks_);
  if (group) scratch(&found->gsum, rows_ * ceil_div(cols_, group));
  return found;
}

// Memory for what the kernels of w read beside the codes, filled if asked for and not done before.
void QuantizedRows::use(const PackSpec& w, bool filled) {
  if (by_planes(w)) {
    if (planes_current_) return;
    scratch(&planes_, rows_ * blocks_ * 2 * (bits_ + 1));
    if (filled) fill_planes(everything());
    planes_current_ = true;
  } else if (w.bits == 1 && !tables_current_ && rows_ <= qgemm_kernels().table_rows) {
    scratch(&tables_, rows_ * blocks_ * 256);
    if (filled) fill_tables(everything());
    tables_current_ = true;
  }
}

void QuantizedRows::expect(const PackSpec& w) {
  slot(w);
  use(w, false);
}

void QuantizedRows::prepare(const PackSpec& w) {
  use(w, true);
  if (Prepared* fresh = slot(w)) fill(fresh, everything());
}

const QuantizedRows::Prepared& QuantizedRows::prepared(const PackSpec& w) const {
  // The level may have been changed since: any way of multiplying that it has gives the same bits.
  const bool counted = w.bits <= 3 && bits_ <= 4 && qgemm_kernels().popcount[w.bits][bits_];
  for (const Prepared& p : prepared_) {
    const bool like =
        p.zero == w.zero && p.group == (w.has_min ? w.group : 0) && (p.planes == 0 || (counted && p.planes == w.bits));
    if (p.current && like) return p;
  }
  throw InvalidArgument("x must be prepared for this weight; call QuantizedRows::prepare first");
}

void FloatRows::set(const RowsView& x) {
  check_dtype(x.dtype, "x");
  rows_ = x.rows;
  cols_ = x.cols;
  stride_ = padded_columns(x.cols);
  float* to = scratch(&values_, rows_ * stride_);
  for (std::int64_t r = 0; r < rows_; ++r) {
    float* row = to + r * stride_;
    if (x.dtype == DType::f32) {
      std::memcpy(row, static_cast<const float*>(x.data) + r * x.stride, static_cast<std::size_t>(cols_) * 4);
    } else {
      const bf16* from = static_cast<const bf16*>(x.data) + r * x.stride;
      for (std::int64_t c = 0; c < cols_; ++c) row[c] = to_f32(from[c]);
    }
    std::fill(row + cols_, row + stride_, 0.0f);
  }
}

}  // namespace gramcore::quant
