// Products of fp32 activations with one packed panel of 16 weight rows.
#pragma once

#include <cstdint>

namespace gramcore::quant {

struct FloatPanelArgs {
  const std::uint8_t* panel;
  std::int64_t groups;
  int blocks_per_group;
  int scale_f32;  // scales are fp32, not fp16
  int has_min;
  int zero;
  const float* x;         // rows of at least groups * blocks_per_group * 32 floats, zero past the weight's columns
  std::int64_t x_stride;  // floats between rows
  std::int64_t rows;
  float* out;      // (rows, 16)
  float* scratch;  // 4096 + 64 * rows floats
};

struct FgemmKernels {
  void (*panel[9])(const FloatPanelArgs&);  // by bits of a code
};

const FgemmKernels& fgemm_kernels();

}  // namespace gramcore::quant
