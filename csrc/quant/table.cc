#include "quant/table.h"

#include <algorithm>
#include <vector>

#include "core/half.h"
#include "core/thread_pool.h"
#include "quant/columns.h"

namespace gramcore::quant {

ValueTable value_table(int bits, Span<const float> values) {
  GC_CHECK(bits >= 2 && bits <= 8, "bits of table codes must be in [2, 8], got ", bits);
  const std::size_t count = std::size_t{1} << bits;
  GC_CHECK(values.size() == count, "table must have ", count, " values, got ", values.size());
  ValueTable t{};
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t u = bits::of(values.data()[i]);
    GC_CHECK((u & 0xffffu) == 0, "values of the table must be bfloat16 numbers, got ", values.data()[i], " at ", i);
    GC_CHECK(bits < 8 || i < 128 || u == (bits::of(values.data()[i - 128]) ^ 0x80000000u),
             "values 128 to 255 of the table must be the first 128 negated, got ", values.data()[i], " at ", i);
    t.values[i] = values.data()[i];
    t.planes[0][i] = static_cast<std::uint8_t>(u >> 16);
    t.planes[1][i] = static_cast<std::uint8_t>(u >> 24);
  }
  return t;
}

void TableLinear::validate() const {
  PackedLinear{spec, packed, bias}.validate();
  GC_CHECK(spec.bits >= 2, "bits of table codes must be in [2, 8], got ", spec.bits);
  GC_CHECK(!spec.has_min || spec.group == kBlock, "groups with two scales must have 32 columns, got ", spec.group);
}

void linear_columns(const TableLinear& w, const RowsView& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y) {
  auto a = panels_of<TablePanelArgs>(w.spec);
  a.table = w.table;
  float_columns(tgemm_kernels().panel[w.spec.bits], a, {w.spec, w.packed, w.bias}, x, n0, n1, y);
}

void linear(const TableLinear& w, const RowsView& x, const MutableRowsView& y) {
  static thread_local FloatRows rows;
  w.validate();
  rows.set(x);
  const PackSpec& s = w.spec;
  GC_CHECK(x.cols == s.k && y.rows == x.rows && y.cols == s.n, "x and y must have shapes (M, ", s.k, ") and (M, ", s.n,
           "), got (", x.rows, ", ", x.cols, ") and (", y.rows, ", ", y.cols, ")");
  if (x.rows == 0) return;
  const RowsView padded = rows.view();  // not the workers' own
  const std::int64_t each = std::max<std::int64_t>(1, s.panels() / (std::int64_t{num_threads()} * 8)) * kPanelRows;
  parallel_chunks((s.n + each - 1) / each, [&](std::int64_t piece) {
    linear_columns(w, padded, piece * each, std::min(s.n, (piece + 1) * each), y);
  });
}

void dequantize_row(const TableLinear& w, std::int64_t row, float* out) {
  static thread_local std::vector<std::uint8_t> codes;
  static thread_local std::vector<float> scales;
  const PackSpec& s = w.spec;
  const auto groups = static_cast<std::size_t>(s.groups());
  codes.resize(static_cast<std::size_t>(s.k));
  scales.resize(2 * groups);
  unpack_row(s, w.packed, row, codes.data(), scales.data(), scales.data() + groups);
  for (std::int64_t k = 0; k < s.k; ++k) {
    const bool last = s.has_min && k % s.group >= kBlock / 2;
    const float scale = scales[static_cast<std::size_t>(k / s.group) + (last ? groups : 0)];
    out[k] = scale * w.table->values[codes[static_cast<std::size_t>(k)]];
  }
}

void dequantize(const TableLinear& w, Span<float> out) {
  w.validate();
  const PackSpec& s = w.spec;
  GC_CHECK(out.size() == static_cast<std::size_t>(s.n * s.k), "out must have ", s.n * s.k, " elements, got ",
           out.size());
  parallel_for(s.n, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) dequantize_row(w, row, out.data() + row * s.k);
  });
}

void gather_rows(const TableLinear& w, Span<const std::int64_t> ids, Span<float> out) {
  w.validate();
  const std::int64_t k = w.spec.k, rows = static_cast<std::int64_t>(ids.size());
  GC_CHECK(out.size() == static_cast<std::size_t>(rows * k), "out must have ", rows * k, " elements, got ", out.size());
  for (const std::int64_t id : ids) {
    GC_CHECK_AS(OutOfRange, id >= 0 && id < w.spec.n, "ids must be in [0, ", w.spec.n, "), got ", id);
  }
  parallel_for(rows, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) dequantize_row(w, ids.data()[i], out.data() + i * k);
  });
}

}  // namespace gramcore::quant
