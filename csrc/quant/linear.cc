#include "quant/linear.h"

#include <algorithm>
#include <cstring>

#include "core/thread_pool.h"
#include "quant/kernels/fgemm.h"
#include "quant/kernels/qgemm.h"

namespace gramcore::quant {
namespace {

constexpr std::int64_t kTile = 16;             // rows of an activation tile
constexpr std::int64_t kRowsAtOnce = 128;      // rows whose codes stay in L2 while panels stream by
constexpr std::int64_t kOutputsAtOnce = 2048;  // of a kernel call: 8 KiB that are stored while in L1

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Columns that cover the last group of any size.
std::int64_t padded_columns(std::int64_t cols) {
  return (ceil_div(cols, kBlock) - 1) * kBlock + kMaxGroup;
}

// Memory reused by the calls of one thread.
template <class Vector>
typename Vector::value_type* scratch(Vector* buffer, std::int64_t size) {
  if (buffer->size() < static_cast<std::size_t>(size)) buffer->resize(static_cast<std::size_t>(size));
  return buffer->data();
}

const float* row_as_floats(const RowsView& x, std::int64_t row, std::vector<float>* buffer) {
  if (x.dtype == DType::f32) return static_cast<const float*>(x.data) + row * x.stride;
  const bf16* from = static_cast<const bf16*>(x.data) + row * x.stride;
  float* to = scratch(buffer, x.cols);
  for (std::int64_t i = 0; i < x.cols; ++i) to[i] = to_f32(from[i]);
  return to;
}

}  // namespace

namespace {

template <bool kAdd>
void store_floats(const float* from, std::int64_t rows, std::int64_t panels, float* to, std::int64_t stride) {
  for (std::int64_t r = 0; r < rows; ++r, to += stride) {
    for (std::int64_t p = 0; p < panels; ++p) {
      const float* const value = from + (p * rows + r) * kPanelRows;
      float* const at = to + p * kPanelRows;
      for (std::int64_t c = 0; c < kPanelRows; ++c) at[c] = kAdd ? at[c] + value[c] : value[c];
    }
  }
}

// Any dtype, bias and width of one panel.
void store_panel(const float* from, std::int64_t rows, std::int64_t row0, std::int64_t col0, const float* bias,
                 const MutableRowsView& y) {
  const std::int64_t width = std::min(kPanelRows, y.cols - col0);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t at = (row0 + r) * y.stride + col0;
    for (std::int64_t c = 0; c < width; ++c) {
      const float value = from[r * kPanelRows + c] + (bias ? bias[col0 + c] : 0.0f);
      if (y.dtype != DType::f32) {
        static_cast<bf16*>(y.data)[at + c] = to_bf16(value);
      } else {
        float* const to = static_cast<float*>(y.data) + at + c;
        *to = y.add ? *to + value : value;
      }
    }
  }
}

}  // namespace

// Row by row: neighbouring panels share lines of a row, and rows may lie in one set of the cache.
void store_rows(const float* from, std::int64_t rows, std::int64_t row0, std::int64_t col0, const float* bias,
                const MutableRowsView& y, std::int64_t panels) {
  const bool plain = y.dtype == DType::f32 && !bias;
  const std::int64_t fast = plain ? std::min(panels, (y.cols - col0) / kPanelRows) : 0;
  if (fast > 0) {
    float* const to = static_cast<float*>(y.data) + row0 * y.stride + col0;
    (y.add ? store_floats<true> : store_floats<false>)(from, rows, fast, to, y.stride);
  }
  for (std::int64_t p = fast; p < panels; ++p) {
    store_panel(from + p * rows * kPanelRows, rows, row0, col0 + p * kPanelRows, bias, y);
  }
}

namespace {

const std::uint8_t* panel_of(const PackedLinear& w, std::int64_t n) {
  return w.packed.data() + n / kPanelRows * w.spec.panel_bytes();
}

// Adds the product of `panels` other panels, without minima, to a.out.
template <class Args>
void add_panels(void (*kernel)(const Args&), Args a, const std::uint8_t* panel, std::int64_t panels,
                std::vector<float>* buffer) {
  const std::int64_t outputs = panels * a.rows * kPanelRows;
  float* const total = a.out;
  a.panel = panel;
  a.has_min = 0;
  a.out = scratch(buffer, outputs);
  kernel(a);
  for (std::int64_t i = 0; i < outputs; ++i) total[i] += a.out[i];
}

void check_dtype(DType dtype, const char* name) {
  GC_CHECK_AS(TypeMismatch, dtype == DType::f32 || dtype == DType::bf16, name, " must be float32 or bfloat16, got ",
              dtype_name(dtype));
}

}  // namespace

void PackedLinear::validate() const {
  spec.validate();
  GC_CHECK(packed.size() == static_cast<std::size_t>(spec.packed_bytes()), "packed must have ", spec.packed_bytes(),
           " bytes, got ", packed.size());
}

void QuantizedRows::resize(std::int64_t rows, std::int64_t cols) {
  rows_ = rows;
  cols_ = cols;
  blocks_ = padded_columns(cols) / kBlock;
  scratch(&codes_, rows_ * blocks_ * kBlock);
  scratch(&scales_, rows_ * blocks_);
  scratch(&sums_, rows_ * blocks_);
  for (Prepared& p : prepared_) p.current = false;
  tables_current_ = false;
}

void QuantizedRows::quantize(const RowsView& x) {
  check_dtype(x.dtype, "x");
  resize(x.rows, x.cols);
  const std::int64_t grain = std::max<std::int64_t>(1, (std::int64_t{1} << 15) / std::max<std::int64_t>(1, cols_));
  parallel_for(rows_, grain, [&](std::int64_t begin, std::int64_t end) { set(x, {begin, end, 0, blocks_}); });
}

std::int64_t QuantizedRows::block_step() const {
  for (const Prepared& p : prepared_) {
    if (p.current && p.group && kMaxGroup % p.group != 0) return blocks_;
  }
  return kMaxGroup / kBlock;
}

void QuantizedRows::set(const RowsView& x, const Piece& piece) {
  static thread_local std::vector<float> buffer;
  const auto kernel = qgemm_kernels().quantize_row;
  const std::int64_t skipped = piece.block0 * kBlock;
  for (std::int64_t row = piece.row0; row < piece.row1; ++row) {
    const std::int64_t first = row / kTile * kTile, height = std::min(kTile, rows_ - first);
    const std::int64_t at = first * blocks_ + piece.block0 * height + (row - first);
    kernel(row_as_floats(x, row, &buffer) + skipped, cols_ - skipped, piece.block1 - piece.block0,
           codes_.data() + at * kBlock, height * kBlock, scales_.data() + at, sums_.data() + at, height);
  }
  for (Prepared& p : prepared_) {
    if (p.current) fill(&p, piece);
  }
  if (tables_current_) fill_tables(piece);
}

// What is derived from the codes of a piece.
void QuantizedRows::fill(Prepared* slot, const Piece& piece) const {
  const std::int64_t per_group = slot->group / kBlock, groups = slot->group ? ceil_div(cols_, slot->group) : 0;
  for (std::int64_t row = piece.row0; row < piece.row1; ++row) {
    const std::int64_t first = row / kTile * kTile, height = std::min(kTile, rows_ - first), r = row - first;
    const std::int64_t at = first * blocks_ + r;
    std::int32_t* const init = slot->init.data() + at;
    const std::int32_t* const sums = sums_.data() + at;
    for (std::int64_t b = piece.block0; b < piece.block1; ++b) init[b * height] = -slot->zero * sums[b * height];
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

QuantizedRows::Prepared* QuantizedRows::slot(const PackSpec& w) {
  const std::int64_t group = w.has_min ? w.group : 0;
  Prepared* found = nullptr;
  for (Prepared& p : prepared_) {
    if (p.zero == w.zero && p.group == group) found = &p;
  }
  if (!found) found = &prepared_.emplace_back();
  if (found->current) return nullptr;
  found->zero = w.zero;
  found->group = group;
  found->current = true;
  scratch(&found->init, rows_ * blocks_);
  if (group) scratch(&found->gsum, rows_ * ceil_div(cols_, group));
  return found;
}

void QuantizedRows::expect(const PackSpec& w) {
  slot(w);
  if (w.bits == 1 && rows_ <= qgemm_kernels().table_rows) {
    scratch(&tables_, rows_ * blocks_ * 256);
    tables_current_ = true;
  }
}

void QuantizedRows::prepare(const PackSpec& w) {
  if (w.bits == 1 && !tables_current_ && rows_ <= qgemm_kernels().table_rows) {
    scratch(&tables_, rows_ * blocks_ * 256);
    fill_tables(everything());
    tables_current_ = true;
  }
  if (Prepared* fresh = slot(w)) fill(fresh, everything());
}

const QuantizedRows::Prepared& QuantizedRows::prepared(const PackSpec& w) const {
  for (const Prepared& p : prepared_) {
    if (p.current && p.zero == w.zero && p.group == (w.has_min ? w.group : 0)) return p;
  }
  throw InvalidArgument("x must be prepared for this weight; call QuantizedRows::prepare first");
}

void linear_columns(const PackedLinear& w, const QuantizedRows& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y, const PackedLinear* second) {
  static thread_local LineVector<std::uint8_t> expanded;
  static thread_local LineVector<float> results;
  static thread_local std::vector<float> more;
  const PackSpec& s = w.spec;
  GC_DCHECK(n0 % kPanelRows == 0 && n0 >= 0 && n1 <= s.n && x.cols_ == s.k);
  const QuantizedRows::Prepared& prepared = x.prepared(s);
  const QgemmKernels& kernels = qgemm_kernels();
  PanelArgs a{};
  a.groups = s.groups();
  a.blocks_per_group = static_cast<int>(s.group / kBlock);
  a.scale_f32 = s.scale == ScaleType::f32;
  a.has_min = s.has_min;
  a.zero = s.zero;
  a.x_blocks = x.blocks_;
  a.tile_rows = kTile;
  const std::int64_t outputs = std::min(x.rows_, kRowsAtOnce) * kPanelRows;
  const std::int64_t panels = std::max<std::int64_t>(1, kOutputsAtOnce / std::max<std::int64_t>(1, outputs));
  a.panel_bytes = s.panel_bytes();
  a.second_bytes = second ? second->spec.panel_bytes() : 0;
  a.out = scratch(&results, panels * outputs);
  a.scratch = scratch(&expanded, 10240 + kRowsAtOnce / kTile * 2048);
  // The level may have been lowered since x was prepared.
  a.tables = s.bits == 1 && x.tables_current_ && kernels.pair1 ? x.tables_.data() : nullptr;
  for (std::int64_t row = 0; row < x.rows_; row += kRowsAtOnce) {
    a.rows = std::min(kRowsAtOnce, x.rows_ - row);
    a.xq = x.codes_.data() + row * x.blocks_ * kBlock;
    a.xs = x.scales_.data() + row * x.blocks_;
    a.init = prepared.init.data() + row * x.blocks_;
    a.gsum = prepared.gsum.data() + (s.has_min ? row * a.groups : 0);
    for (std::int64_t n = n0; n < n1; n += panels * kPanelRows) {
      a.panels = std::min(panels, ceil_div(n1 - n, kPanelRows));
      a.panel = panel_of(w, n);
      a.second = second ? panel_of(*second, n) : nullptr;
      if (second && a.tables) {
        kernels.pair1(a);
      } else {
        kernels.panel[s.bits](a);
        if (second) {
          PanelArgs other = a;
          other.panel_bytes = a.second_bytes;
          add_panels(kernels.panel[s.bits], other, a.second, a.panels, &more);
        }
      }
      store_rows(a.out, a.rows, row, n, w.bias, y, a.panels);
    }
  }
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

void linear_columns(const PackedLinear& w, const FloatRows& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y, const PackedLinear* second) {
  static thread_local std::vector<float> expanded, results, more;
  const PackSpec& s = w.spec;
  GC_DCHECK(n0 % kPanelRows == 0 && n0 >= 0 && n1 <= s.n && x.cols_ == s.k);
  const auto kernel = fgemm_kernels().panel[s.bits];
  FloatPanelArgs a{};
  a.groups = s.groups();
  a.blocks_per_group = static_cast<int>(s.group / kBlock);
  a.scale_f32 = s.scale == ScaleType::f32;
  a.has_min = s.has_min;
  a.zero = s.zero;
  a.x_stride = x.stride_;
  a.out = scratch(&results, std::min(x.rows_, kRowsAtOnce) * kPanelRows);
  a.scratch = scratch(&expanded, 4096 + 64 * kRowsAtOnce);
  for (std::int64_t row = 0; row < x.rows_; row += kRowsAtOnce) {
    a.rows = std::min(kRowsAtOnce, x.rows_ - row);
    a.x = x.values_.data() + row * x.stride_;
    for (std::int64_t n = n0; n < n1; n += kPanelRows) {
      a.panel = panel_of(w, n);
      kernel(a);
      if (second) add_panels(kernel, a, panel_of(*second, n), 1, &more);
      store_rows(a.out, a.rows, row, n, w.bias, y);
    }
  }
}

namespace {

template <class Rows>
void all_columns(const PackedLinear& w, const Rows& x, const MutableRowsView& y) {
  const PackSpec& s = w.spec;
  // Pieces of at least 64 KB of weights, and enough of them to share out evenly.
  const std::int64_t wanted = std::max<std::int64_t>(1, (std::int64_t{1} << 16) / s.panel_bytes());
  const std::int64_t even = std::max<std::int64_t>(1, s.panels() / (std::int64_t{num_threads()} * 8));
  const std::int64_t panels_each = std::min(std::max(wanted, even), s.panels());
  parallel_chunks(ceil_div(s.panels(), panels_each), [&](std::int64_t piece) {
    const std::int64_t n0 = piece * panels_each * kPanelRows;
    linear_columns(w, x, n0, std::min(s.n, n0 + panels_each * kPanelRows), y);
  });
}

void check_shapes(const PackedLinear& w, std::int64_t rows, std::int64_t cols, const MutableRowsView& y) {
  w.validate();
  check_dtype(y.dtype, "y");
  GC_CHECK(cols == w.spec.k, "x must have ", w.spec.k, " columns, got ", cols);
  GC_CHECK(y.rows == rows && y.cols == w.spec.n, "y must have shape (", rows, ", ", w.spec.n, "), got (", y.rows, ", ",
           y.cols, ")");
}

}  // namespace

void linear(const PackedLinear& w, QuantizedRows* x, const MutableRowsView& y) {
  check_shapes(w, x->rows(), x->cols(), y);
  if (x->rows() == 0) return;
  x->prepare(w.spec);
  all_columns(w, *x, y);
}

void linear(const PackedLinear& w, const FloatRows& x, const MutableRowsView& y) {
  check_shapes(w, x.rows(), x.cols(), y);
  if (x.rows() > 0) all_columns(w, x, y);
}

void linear(const PackedLinear& w, const RowsView& x, const MutableRowsView& y, Activations activations) {
  static thread_local QuantizedRows quantized;
  static thread_local FloatRows floats;
  if (activations == Activations::f32) {
    floats.set(x);
    linear(w, floats, y);
  } else {
    quantized.quantize(x);
    linear(w, &quantized, y);
  }
}

}  // namespace gramcore::quant
