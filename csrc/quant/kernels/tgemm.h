// Products of fp32 activations with one packed panel of 16 weight rows whose codes are places in a table of values.
#pragma once

#include <cstdint>

namespace gramcore::quant {

// The values of codes of up to 8 bits.  Values are bf16 numbers; of 256, the second half is the first one negated.
struct ValueTable {
  float values[256];
  std::uint8_t planes[2][256];  // bits 16 .. 23 and 24 .. 31 of every value
};

struct TablePanelArgs {
  const std::uint8_t* panel;
  std::int64_t groups;
  int blocks_per_group;
  int scale_f32;  // scales are fp32, not fp16
  int halves;     // two scales per block: of its first and its last 16 columns; blocks_per_group is 1
  const ValueTable* table;
  const float* x;         // rows of at least groups * blocks_per_group * 32 floats, zero past the weight's columns
  std::int64_t x_stride;  // floats between rows
  std::int64_t rows;
  float* out;      // (rows, 16)
  float* scratch;  // 4096 + 80 * rows floats
};

struct TgemmKernels {
  void (*panel[9])(const TablePanelArgs&);  // by bits of a code, 2 to 8
};

const TgemmKernels& tgemm_kernels();

}  // namespace gramcore::quant
