// What the kernels of all products are told of a packed weight (quant/packed.h) and of their result.
#pragma once

#include <cstdint>

namespace gramcore::quant {

struct PanelsBase {
  const std::uint8_t* panel;
  std::int64_t groups;
  int blocks_per_group;
  int scale_f32;  // scales are fp32, not fp16
  int has_min;    // of table codes: two scales per block, of its first and its last 16 columns
  int zero;
  std::int64_t rows;  // of x
  float* out;         // (rows, 16)
};

// Products of rows that are not rounded, panel by panel.
struct FloatPanelArgs : PanelsBase {
  const float* x;         // rows of at least groups * blocks_per_group * 32 floats, zero past the weight's columns
  std::int64_t x_stride;  // floats between rows
  float* scratch;         // 4096 + 80 * rows floats
};

}  // namespace gramcore::quant
