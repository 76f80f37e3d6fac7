// Walks over the columns of products with packed weights that CPU kernels of several kinds share.
#pragma once

#include <algorithm>
#include <vector>

#include "quant/kernels/panels.h"
#include "quant/linear.h"
#include "quant/shared.h"

namespace gramcore::quant {

inline constexpr std::int64_t kRowsAtOnce = 128;  // rows whose codes stay in L2 while panels stream by

inline const std::uint8_t* panel_of(const PackedLinear& w, std::int64_t n) {
  return w.packed.data() + n / kPanelRows * w.spec.panel_bytes();
}

// Arguments of a kernel as far as the weight decides them.
template <class Args>
Args panels_of(const PackSpec& s) {
  Args a{};
  a.groups = s.groups();
  a.blocks_per_group = static_cast<int>(s.group / kBlock);
  a.scale_f32 = s.scale == ScaleType::f32;
  a.has_min = s.has_min;
  a.zero = s.zero;
  return a;
}

// Adds the product of `panels` other panels, without minima, to a.out.
template <class Args>
void add_panels(void (*kernel)(const Args&), Args a, const std::uint8_t* panel, std::int64_t panels) {
  static thread_local std::vector<float> buffer;
  const std::int64_t outputs = panels * a.rows * kPanelRows;
  float* const total = a.out;
  a.panel = panel;
  a.has_min = 0;
  a.out = scratch(&buffer, outputs);
  kernel(a);
  for (std::int64_t i = 0; i < outputs; ++i) total[i] += a.out[i];
}

// Columns [n0, n1) of y from fp32 rows that are zero from their end to that of the weight's last group; `a` from
// panels_of, with what else the kernel reads.  With `second`, its product is added.
template <class Args>
void float_columns(void (*kernel)(const Args&), Args a, const PackedLinear& w, const RowsView& x, std::int64_t n0,
                   std::int64_t n1, const MutableRowsView& y, const PackedLinear* second = nullptr) {
  static thread_local std::vector<float> memory, results;
  const std::int64_t most = std::min(x.rows, kRowsAtOnce);
  a.scratch = scratch(&memory, 4096 + 80 * most);
  a.out = scratch(&results, kPanelRows * most);
  a.x_stride = x.stride;
  for (std::int64_t row = 0; row < x.rows; row += kRowsAtOnce) {
    a.rows = std::min(kRowsAtOnce, x.rows - row);
    a.x = static_cast<const float*>(x.data) + row * x.stride;
    for (std::int64_t n = n0; n < n1; n += kPanelRows) {
      a.panel = panel_of(w, n);
      kernel(a);
      if (second) add_panels(kernel, a, panel_of(*second, n), 1);
      store_rows(a.out, a.rows, row, n, w.bias, y);
    }
  }
}

}  // namespace gramcore::quant
