#include "quant/binary.h"

#include <algorithm>
#include <vector>

#include "core/half.h"
#include "core/thread_pool.h"

namespace gramcore::quant {
namespace {

PackSpec plane(std::int64_t n, std::int64_t k, std::int64_t group, bool has_min, ScaleType scale) {
  PackSpec s;
  s.n = n;
  s.k = k;
  s.bits = 1;
  s.group = group;
  s.zero = 1;
  s.has_min = has_min;
  s.scale = scale;
  return s;
}

PackSpec without_minima(PackSpec s) {
  s.has_min = false;
  return s;
}

// Columns `order` of x as fp32.
void gather_columns(const RowsView& x, Span<const std::int32_t> order, std::vector<float>* out) {
  if (out->size() < static_cast<std::size_t>(x.rows) * order.size())
    out->resize(static_cast<std::size_t>(x.rows) * order.size());
  const std::int64_t width = static_cast<std::int64_t>(order.size());
  const auto gather = [&](const auto* from) {
    float* const to = out->data();
    parallel_for(x.rows, std::max<std::int64_t>(1, (1 << 15) / width), [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t r = first; r < last; ++r) {
        for (std::int64_t c = 0; c < width; ++c) {
          const std::int32_t column = order.data()[c];
          to[r * width + c] = column < 0 ? 0.0f : to_f32(from[r * x.stride + column]);
        }
      }
    });
  };
  if (x.dtype == DType::f32) return gather(static_cast<const float*>(x.data));
  gather(static_cast<const bf16*>(x.data));
}

// One part of the columns: its two planes and the rows of x they multiply.
template <class Rows>
struct PartOf {
  PackedLinear first, second;
  Rows* rows;
};

// Rows [n0, n0 + rows) of w as a weight of their own; n0 a multiple of 16.
PackedLinear rows_of(const PackedLinear& w, std::int64_t n0, std::int64_t rows) {
  PackedLinear piece = w;
  piece.spec.n = rows;
  const std::size_t from = static_cast<std::size_t>(n0 / kPanelRows * w.spec.panel_bytes());
  piece.packed = {w.packed.data() + from, static_cast<std::size_t>(piece.spec.packed_bytes())};
  return piece;
}

// Both parts' products, added up in fp32, for the panels of columns [n0, n1).
template <class Rows>
void columns(const PartOf<Rows> (&parts)[2], const float* bias, std::int64_t n0, std::int64_t n1,
             const MutableRowsView& y) {
  static thread_local std::vector<float> sums[2];
  const std::int64_t width = n1 - n0;
  for (int i = 0; i < 2; ++i) {
    sums[i].resize(static_cast<std::size_t>(y.rows * width));
    const PackedLinear second = rows_of(parts[i].second, n0, width);
    linear_columns(rows_of(parts[i].first, n0, width), *parts[i].rows, 0, width,
                   {sums[i].data(), DType::f32, y.rows, width, width}, &second);
  }
  for (std::int64_t r = 0; r < y.rows; ++r) {
    for (std::int64_t c = 0; c < width; ++c) {
      const std::size_t at = static_cast<std::size_t>(r * width + c);
      const float total = sums[0][at] + sums[1][at] + (bias ? bias[n0 + c] : 0.0f);
      const std::int64_t to = r * y.stride + n0 + c;
      if (y.dtype == DType::f32) {
        static_cast<float*>(y.data)[to] = total;
      } else {
        static_cast<bf16*>(y.data)[to] = to_bf16(total);
      }
    }
  }
}

void set(QuantizedRows* rows, const RowsView& x, const PackSpec& first, const PackSpec& second) {
  rows->quantize(x);
  rows->prepare(first);
  rows->prepare(second);
}
void set(FloatRows* rows, const RowsView& x, const PackSpec&, const PackSpec&) {
  rows->set(x);
}

template <class Rows>
void run(const BinaryLinear& w, const RowsView& x, const MutableRowsView& y) {
  static thread_local Rows rows[2];
  static thread_local std::vector<float> gathered;
  PartOf<Rows> parts[2];
  const std::uint8_t* planes = w.planes.data();
  std::size_t column = 0;
  for (int i = 0; i < 2; ++i) {
    const PackSpec first = i == 0 ? w.salient : w.plain, second = without_minima(first);
    parts[i].first = {first, {planes, static_cast<std::size_t>(first.packed_bytes())}, nullptr};
    planes += first.packed_bytes();
    parts[i].second = {second, {planes, static_cast<std::size_t>(second.packed_bytes())}, nullptr};
    planes += second.packed_bytes();
    gather_columns(x, {w.order.data() + column, static_cast<std::size_t>(first.k)}, &gathered);
    column += static_cast<std::size_t>(first.k);
    set(&rows[i], RowsView{gathered.data(), DType::f32, x.rows, first.k, first.k}, first, second);
    parts[i].rows = &rows[i];
  }
  const std::int64_t panels = w.plain.panels();
  const std::int64_t each = std::max<std::int64_t>(1, panels / (std::int64_t{num_threads()} * 8));
  parallel_chunks((panels + each - 1) / each, [&](std::int64_t piece) {
    const std::int64_t n0 = piece * each * kPanelRows;
    columns(parts, w.bias, n0, std::min(w.n, n0 + each * kPanelRows), y);
  });
}

}  // namespace

BinaryLinear BinaryLinear::shaped(std::int64_t n, std::int64_t k, std::int64_t blocks, std::int64_t salient_group,
                                  std::int64_t plain_group, ScaleType scale) {
  GC_CHECK(n >= 1 && k >= 1 && k <= 0x7fffffff, "weight must have 1 to 2^31 - 1 columns and a row, got (", n, ", ", k,
           ")");
  GC_CHECK(blocks >= 1 && blocks <= k, "blocks must be in [1, ", k, "], got ", blocks);
  for (const std::int64_t group : {salient_group, plain_group}) {
    GC_CHECK(group >= kBlock && group <= kMaxGroup && group % kBlock == 0, "group must be 32, 64, 96 or 128, got ",
             group);
  }
  BinaryLinear w;
  w.n = n;
  w.k = k;
  w.salient = plane(n, blocks * salient_group, salient_group, true, scale);
  w.plain = plane(n, blocks * plain_group, plain_group, false, scale);
  w.salient.validate();
  w.plain.validate();
  return w;
}

std::int64_t BinaryLinear::planes_bytes() const {
  return salient.packed_bytes() + without_minima(salient).packed_bytes() + 2 * plain.packed_bytes();
}

void BinaryLinear::validate_sizes() const {
  GC_CHECK(planes.size() == static_cast<std::size_t>(planes_bytes()), "planes must have ", planes_bytes(),
           " bytes, got ", planes.size());
  GC_CHECK(order.size() == static_cast<std::size_t>(salient.k + plain.k), "order must have ", salient.k + plain.k,
           " elements, got ", order.size());
}

void BinaryLinear::validate() const {
  validate_sizes();
  for (const std::int32_t column : order) {
    GC_CHECK(column >= -1 && column < k, "order must hold columns below ", k, " or -1, got ", column);
  }
}

void linear(const BinaryLinear& w, const RowsView& x, const MutableRowsView& y, Activations activations) {
  w.validate();
  GC_CHECK(x.cols == w.k, "x must have ", w.k, " columns, got ", x.cols);
  GC_CHECK(y.rows == x.rows && y.cols == w.n, "y must have shape (", x.rows, ", ", w.n, "), got (", y.rows, ", ",
           y.cols, ")");
  for (const DType dtype : {x.dtype, y.dtype}) {
    GC_CHECK_AS(TypeMismatch, dtype == DType::f32 || dtype == DType::bf16, "x and y must be float32 or bfloat16, got ",
                dtype_name(dtype));
  }
  if (x.rows == 0) return;
  if (activations == Activations::f32) {
    run<FloatRows>(w, x, y);
  } else {
    run<QuantizedRows>(w, x, y);
  }
}

}  // namespace gramcore::quant
