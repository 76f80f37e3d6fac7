// Products of fp32 activations with one packed panel of 16 weight rows whose codes are places in a table of values.
#pragma once

#include "quant/kernels/panels.h"

namespace gramcore::quant {

// The values of codes of up to 8 bits.  Values are bf16 numbers; of 256, the second half is the first one negated.
struct ValueTable {
  float values[256];
  std::uint8_t planes[2][256];  // bits 16 .. 23 and 24 .. 31 of every value
};

struct TablePanelArgs : FloatPanelArgs {
  const ValueTable* table;
};

struct TgemmKernels {
  void (*panel[9])(const TablePanelArgs&);  // by bits of a code, 2 to 8
};

const TgemmKernels& tgemm_kernels();

}  // namespace gramcore::quant
