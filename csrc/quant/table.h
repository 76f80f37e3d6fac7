// Weights whose codes are places in a table of values (fp8, power-exponent codes, GGUF's groups of 16):
//
//   W[n, k] = scale[n, g] * value[code[n, k]]
//
// in the layout of quant/packed.h.  Groups of 16 columns are blocks of 32 with two scales: those of the first halves
// are stored as scales, those of the last halves where other weights have minima.
#pragma once

#include "quant/kernels/tgemm.h"
#include "quant/linear.h"

namespace gramcore::quant {

// The table of 2^bits values in the form of the kernels.  Throws InvalidArgument unless they are bf16 numbers and 256
// of them repeat with the other sign.
ValueTable value_table(int bits, Span<const float> values);

struct TableLinear {
  PackSpec spec;  // 2 to 8 bits; has_min: groups of 16, spec.group is 32
  Span<const std::uint8_t> packed;
  const ValueTable* table = nullptr;
  const float* bias = nullptr;

  void validate() const;  // throws InvalidArgument
};

// y = x W^T + bias in fp32.  A row of y does not depend on the other rows or on the number of threads.
void linear(const TableLinear& w, const RowsView& x, const MutableRowsView& y);

// Columns [n0, n1) of y, n0 a multiple of 16, on the calling thread.  x is fp32, its rows zero from their end to that
// of the weight's last group; sizes are not checked.
void linear_columns(const TableLinear& w, const RowsView& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y);

// Row `row` as k fp32 values, or all (n, k); exactly what products use.
void dequantize_row(const TableLinear& w, std::int64_t row, float* out);
void dequantize(const TableLinear& w, Span<float> out);

// Rows ids[i] as fp32: out is (ids.size(), k).  Throws OutOfRange for an id outside [0, n).
void gather_rows(const TableLinear& w, Span<const std::int64_t> ids, Span<float> out);

}  // namespace gramcore::quant
