// Rules on moments that stay in block-wise codes: decoded, updated and encoded block by block in registers and a few
// kilobytes, beside parameters and gradients of one type.
#pragma once

#include "optim/kernels/blocks.h"
#include "optim/kernels/rules.h"

namespace gramcore::optim {

// p and g as RuleBlock, n elements from the first of a block; slot k has codes[k] and scales[k].
struct CodedBlock {
  void* p;
  const void* g;
  std::uint8_t* codes[2];
  float* scales[2];
  std::int64_t n;
  NoiseKey key;
  float c[kMaxCoefs];
};

using CodedFn = void (*)(const CodedBlock& block);

// Storage of parameter and gradient.
enum CodedForm : int { kCodedF32, kCodedBf16, kCodedBf16Stochastic, kNumCodedForms };

struct CodedKernels {
  // [0] 8-bit codes, [1] 4-bit; null for rules without moments or whose moments have no map.
  CodedFn step[2][kNumCodedForms][kNumRules];
};
const CodedKernels& coded_kernels();

}  // namespace gramcore::optim
