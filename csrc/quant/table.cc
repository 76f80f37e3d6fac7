#include "quant/table.h"

#include <algorithm>
#include <vector>

#include "core/half.h"
#include "core/thread_pool.h"

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

void linear(const TableLinear& w, const RowsView& x, const MutableRowsView& y) {
  static thread_local FloatRows rows;
  w.validate();
  rows.set(x);
  const PackSpec& s = w.spec;
  GC_CHECK(x.cols == s.k && y.rows == x.rows && y.cols == s.n, "x and y must have shapes (M, ", s.k, ") and (M, ", s.n,
           "), got (", x.rows, ", ", x.cols, ") and (", y.rows, ", ", y.cols, ")");
  if (x.rows == 0) return;
  const auto kernel = tgemm_kernels().panel[s.bits];
  constexpr std::int64_t kRowsAtOnce = 128;  // whose sums stay in L1
  const FloatRows& all = rows;               // not the workers' own
  const std::int64_t each = std::max<std::int64_t>(1, s.panels() / (std::int64_t{num_threads()} * 8));
  parallel_chunks((s.panels() + each - 1) / each, [&](std::int64_t piece) {
    static thread_local std::vector<float> memory;
    const std::int64_t most = std::min(x.rows, kRowsAtOnce);
    const std::size_t needed = static_cast<std::size_t>(4096 + (80 + kPanelRows) * most);
    if (memory.size() < needed) memory.resize(needed);
    TablePanelArgs a{};
    a.groups = s.groups();
    a.blocks_per_group = static_cast<int>(s.group / kBlock);
    a.scale_f32 = s.scale == ScaleType::f32;
    a.halves = s.has_min;
    a.table = w.table;
    a.x_stride = all.stride();
    a.scratch = memory.data();
    a.out = memory.data() + 4096 + 80 * most;
    for (std::int64_t row = 0; row < x.rows; row += kRowsAtOnce) {
      a.rows = std::min(kRowsAtOnce, x.rows - row);
      a.x = all.row(row);
      for (std::int64_t p = piece * each; p < std::min(s.panels(), (piece + 1) * each); ++p) {
        a.panel = w.packed.data() + p * s.panel_bytes();
        kernel(a);
        store_rows(a.out, a.rows, row, p * kPanelRows, w.bias, y);
      }
    }
  });
}

void dequantize(const TableLinear& w, Span<float> out) {
  w.validate();
  const PackSpec& s = w.spec;
  const std::size_t groups = static_cast<std::size_t>(s.n * s.groups());
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(s.n * s.k));
  std::vector<float> first(groups), last(s.has_min ? groups : 0);
  unpack(s, w.packed, codes, first, last);
  GC_CHECK(out.size() == codes.size(), "out must have ", codes.size(), " elements, got ", out.size());
  parallel_for(s.n, 64, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin * s.k; i < end * s.k; ++i) {
      const std::int64_t column = i % s.k, group = i / s.k * s.groups() + column / s.group;
      const std::vector<float>& scales = s.has_min && column % s.group >= kBlock / 2 ? last : first;
      out.data()[i] = scales[static_cast<std::size_t>(group)] * w.table->values[codes[static_cast<std::size_t>(i)]];
    }
  });
}

}  // namespace gramcore::quant
