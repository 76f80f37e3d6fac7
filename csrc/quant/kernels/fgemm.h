// Products of fp32 activations with one packed panel of 16 weight rows.
#pragma once

#include "quant/kernels/panels.h"

namespace gramcore::quant {

struct FgemmKernels {
  void (*panel[9])(const FloatPanelArgs&);  // by bits of a code
};

const FgemmKernels& fgemm_kernels();

}  // namespace gramcore::quant
