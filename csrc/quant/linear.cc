#include "quant/linear.h"

#include <algorithm>
#include <cstring>

#include "core/cpu.h"
#include "core/thread_pool.h"
#include "quant/columns.h"
#include "quant/kernels/fgemm.h"
#include "quant/kernels/qgemm.h"

namespace gramcore::quant {
namespace {

constexpr std::int64_t kOutputsAtOnce = 4096;  // of a kernel call: 16 KiB that are stored while in L1

// A number of panels from `least` on that kernels take in groups without a rest.
std::int64_t whole_groups(std::int64_t least) {
  return (std::max<std::int64_t>(1, least) + 1) / 2 * 2;
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

// Whether to ask for weights ahead of time.  Processors of AMD stream panel after panel at full speed where a product
// does little but read, and asking disturbs them: one row with 4 bits 409 us without, 475 with (4096 x 4096 from
// memory, 20th percentiles); from more rows on arithmetic lies between the reads: two rows 482 and 412, eight 1,369 and
// 848.
bool prefetch_pays(int bits, std::int64_t rows) {
  return !cpu_is_amd() || rows >= (bits > 4 ? 4 : 2);
}

}  // namespace

void PackedLinear::validate() const {
  spec.validate();
  GC_CHECK(packed.size() == static_cast<std::size_t>(spec.packed_bytes()), "packed must have ", spec.packed_bytes(),
           " bytes, got ", packed.size());
}

void linear_columns(const PackedLinear& w, const QuantizedRows& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y, const PackedLinear* second, const RowRange& range) {
  static thread_local LineVector<std::uint8_t> expanded;
  static thread_local LineVector<float> results;
  const PackSpec& s = w.spec;
  GC_DCHECK(n0 % kPanelRows == 0 && n0 >= 0 && n1 <= s.n && x.cols_ == s.k && range.begin % kTile == 0);
  const QuantizedRows::Prepared& prepared = x.prepared(s);
  const QgemmKernels& kernels = qgemm_kernels();
  PanelArgs a = panels_of<PanelArgs>(s);
  a.panel_bytes = s.panel_bytes();
  a.second_bytes = second ? second->spec.panel_bytes() : 0;
  a.prefetch = prefetch_pays(s.bits, x.rows_);
  a.x_blocks = x.blocks_;
  a.tile_rows = kTile;
  const std::int64_t outputs = std::min(x.rows_, kRowsAtOnce) * kPanelRows;
  const std::int64_t panels = whole_groups(kOutputsAtOnce / std::max<std::int64_t>(1, outputs) - 1);
  a.out = scratch(&results, panels * outputs);
  a.scratch = scratch(&expanded, 10240 + std::max<std::int64_t>(10240, kRowsAtOnce / kTile * 2048));
  // The level may have been lowered since x was prepared.
  const bool tables = s.bits == 1 && x.tables_current_ && kernels.pair1 && prepared.planes == 0;
  a.tables = tables ? x.tables_.data() : nullptr;
  a.plane_words = prepared.planes ? 2 * (x.bits_ + 1) : 0;
  const auto kernel = prepared.planes ? kernels.popcount[s.bits][x.bits_] : kernels.panel[s.bits];
  const std::int64_t end = std::min(x.rows_, range.end);
  for (std::int64_t row = range.begin; row < end; row += kRowsAtOnce) {
    a.rows = std::min(kRowsAtOnce, end - row);
    a.xq = x.codes_.data() + row * x.blocks_ * kBlock;
    a.xs = x.scales_.data() + row * x.blocks_;
    a.init = prepared.init.data() + row * x.blocks_;
    a.planes = x.planes_.data() + row * x.blocks_ * a.plane_words;
    a.gsum = prepared.gsum.data() + (s.has_min ? row * a.groups : 0);
    for (std::int64_t n = n0; n < n1; n += panels * kPanelRows) {
      a.panels = std::min(panels, ceil_div(n1 - n, kPanelRows));
      a.panel = panel_of(w, n);
      a.second = second ? panel_of(*second, n) : nullptr;
      if (second && a.tables) {
        kernels.pair1(a);
      } else {
        kernel(a);
        if (second) {
          PanelArgs other = a;
          other.panel_bytes = a.second_bytes;
          add_panels(kernel, other, a.second, a.panels);
        }
      }
      store_rows(a.out, a.rows, row, n, w.bias, y, a.panels);
    }
  }
}

void linear_columns(const PackedLinear& w, const FloatRows& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y, const PackedLinear* second) {
  GC_DCHECK(n0 % kPanelRows == 0 && n0 >= 0 && n1 <= w.spec.n && x.cols() == w.spec.k);
  float_columns(fgemm_kernels().panel[w.spec.bits], panels_of<FloatPanelArgs>(w.spec), w, x.view(), n0, n1, y, second);
}

namespace {

template <class Rows>
void all_columns(const PackedLinear& w, const Rows& x, const MutableRowsView& y) {
  const PackSpec& s = w.spec;
  // Pieces of at least 64 KB of weights, and enough of them to share out evenly.
  const std::int64_t wanted = (std::int64_t{1} << 16) / s.panel_bytes(), even = s.panels() / (num_threads() * 8);
  const std::int64_t panels_each = std::min(whole_groups(std::max(wanted, even)), s.panels());
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
  if (activations == Activations::int8) return linear_rounded(w, x, y, 8);
  static thread_local FloatRows floats;
  floats.set(x);
  linear(w, floats, y);
}

void linear_rounded(const PackedLinear& w, const RowsView& x, const MutableRowsView& y, int bits) {
  static thread_local QuantizedRows quantized;
  quantized.quantize(x, bits);
  linear(w, &quantized, y);
}

}  // namespace gramcore::quant
