// Update rules on blocks of fp32 values.  A rule sees one block of each array and knows neither how they are stored
// nor what surrounds them; optim/engine.h brings blocks in and out.
#pragma once

#include <cstdint>

namespace gramcore::optim {

inline constexpr int kMaxSlots = 3;
inline constexpr int kMaxCoefs = 12;

// Names the random bits of one block of one tensor; `element`, the first of the block, is a multiple of 128.
struct NoiseKey {
  std::uint64_t seed;
  std::uint32_t step, tensor;
  std::int64_t element;
};

// p: parameter, updated.  g: gradient, read.  s: moments, updated.  n: elements.  c: see rules.inl.h.  prefetch:
// whether asking for them ahead of time pays.
struct RuleBlock {
  void* p;
  const void* g;
  void* s[kMaxSlots];
  std::int64_t n;
  NoiseKey key;
  float c[kMaxCoefs];
  bool prefetch;
};

using RuleFn = void (*)(const RuleBlock& block);

enum RuleId : int { kAdam, kGrams, kLion, kSgd, kSgdMomentum, kSophia, kSign, kNumRules };

// Storage a rule works on without staging: (parameter and gradient, moments), rounded to nearest or stochastically.
enum RuleForm : int { kF32, kBf16, kBf16F32, kBf16Stochastic, kBf16F32Stochastic, kNumForms };

struct RulesKernels {
  RuleFn rule[kNumForms][kNumRules];
  // Sum of squares of n values; infinite or NaN when one of them is.
  double (*sum_squares)(const float* x, std::int64_t n);
};
const RulesKernels& rules_kernels();

}  // namespace gramcore::optim
