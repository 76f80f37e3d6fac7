// The elementwise rules.  One struct per rule: Coef positions, and `apply` on vectors.  Bytes moved are the caller's:
// a block is in the first-level cache unless everything is stored as fp32, when it is the tensors themselves.
#pragma once

#include "optim/kernels/rules.h"
#include "optim/kernels/storage.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

#define GC_RULE GC_INLINE
#include "optim/rule_bodies.inl.h"
#undef GC_RULE

// One vector of every array: load, update, store.  P and S say how parameters and moments are stored.
template <class Rule, class P, class S>
struct Vector {
  const RuleBlock& b;
  typename P::T* const p;
  const typename P::T* const g;
  typename S::T* const s0;
  typename S::T* const s1;

  GC_INLINE Vector of(const RuleBlock& b) {
    return {b, static_cast<typename P::T*>(b.p), static_cast<const typename P::T*>(b.g),
            static_cast<typename S::T*>(b.s[0]), static_cast<typename S::T*>(b.s[1])};
  }
  __attribute__((always_inline)) void prefetch(std::int64_t i) const {
    constexpr std::int64_t kAhead = 384;
    __builtin_prefetch(p + i + kAhead, 1);
    __builtin_prefetch(g + i + kAhead, 0);
    if (Rule::kSlots > 0) __builtin_prefetch(s0 + i + kAhead, 1);
    if (Rule::kSlots > 1) __builtin_prefetch(s1 + i + kAhead, 1);
  }
  // `noise` is null to round to nearest.
  __attribute__((always_inline)) void full(const float* c, std::int64_t i, const vu* noise) const {
    vf x = P::load(p + i), s[2] = {};
    if (Rule::kSlots > 0) s[0] = S::load(s0 + i);
    if (Rule::kSlots > 1) s[1] = S::load(s1 + i);
    update<Rule>(c, x, P::load(g + i), s);
    P::store(p + i, x, noise, 0);
    if (Rule::kSlots > 0) S::store(s0 + i, s[0], noise, 1);
    if (Rule::kSlots > 1) S::store(s1 + i, s[1], noise, 2);
  }
  __attribute__((always_inline)) void part(const float* c, std::int64_t i, const vu* noise) const {
    const int rest = static_cast<int>(b.n - i);
    vf x = P::load_part(p + i, rest), s[2] = {};
    if (Rule::kSlots > 0) s[0] = S::load_part(s0 + i, rest);
    if (Rule::kSlots > 1) s[1] = S::load_part(s1 + i, rest);
    update<Rule>(c, x, P::load_part(g + i, rest), s);
    P::store_part(p + i, x, rest, noise, 0);
    if (Rule::kSlots > 0) S::store_part(s0 + i, s[0], rest, noise, 1);
    if (Rule::kSlots > 1) S::store_part(s1 + i, s[1], rest, noise, 2);
  }
};

template <class Rule, class P, class S>
static void run(const RuleBlock& b) {
  float c[kMaxCoefs];
  for (int i = 0; i < kMaxCoefs; ++i) c[i] = b.c[i];
  const auto vector = Vector<Rule, P, S>::of(b);
  std::int64_t i = 0;
  for (; i + kLanes <= b.n; i += kLanes) {
    if (b.prefetch) vector.prefetch(i);
    vector.full(c, i, nullptr);
  }
  if (i < b.n) vector.part(c, i, nullptr);
}

template <class Rule, class P, class S>
static void run_stochastic(const RuleBlock& b) {
  float c[kMaxCoefs];
  for (int i = 0; i < kMaxCoefs; ++i) c[i] = b.c[i];
  const auto vector = Vector<Rule, P, S>::of(b);
  const RoundingVectors noise = RoundingVectors::of(b.key);
  std::int64_t i = 0;
  for (; i + kLanes <= b.n; i += kLanes) {
    const vu words = noise.words(i);
    if (b.prefetch) vector.prefetch(i);
    vector.full(c, i, &words);
  }
  if (i < b.n) {
    const vu words = noise.words(i);
    vector.part(c, i, &words);
  }
}

struct Squares {
  vf sum[4] = {};
  vu bits[4] = {};
  __attribute__((always_inline)) void add(const float* x, int vectors) {
    for (int k = 0; k < vectors; ++k) {
      prefetch_stream(x + k * kLanes);
      const vf v = load(x + k * kLanes);
      sum[k & 3] += v * v;
      bits[k & 3] |= bits_of(v);
    }
  }
};

static double sum_squares(const float* x, std::int64_t n) {
  // Four fp32 accumulators over runs of 256 values, summed in fp64: squares of large gradients may still overflow
  // fp32 one by one, so such a block is summed again in fp64.
  double total = 0;
  std::int64_t i = 0;
  while (i + kLanes <= n) {
    const std::int64_t left = (n - i) / kLanes;
    const int vectors = left < 16 ? static_cast<int>(left) : 16;
    Squares s;
    if (vectors == 16) {
      s.add(x + i, 16);
    } else {
      for (int k = 0; k < vectors; ++k) s.add(x + i + k * kLanes, 1);
    }
    const double part = reduce_add((s.sum[0] + s.sum[1]) + (s.sum[2] + s.sum[3]));
    if (part < 3e38 && part > 1e-30) {
      total += part;
    } else if (any_ge(((s.bits[0] | s.bits[1]) | (s.bits[2] | s.bits[3])) & 0x7fffffffu, 1)) {
      const int count = vectors * kLanes;
      for (int k = 0; k < count; ++k) total += static_cast<double>(x[i + k]) * static_cast<double>(x[i + k]);
    }
    i += vectors * kLanes;
  }
  for (; i < n; ++i) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return total;
}

}  // namespace

extern const RulesKernels kRules;
#define GC_FORM(run, P, S)                                                     \
  {run<Adam, P, S>,        run<Grams, P, S>,  run<Lion, P, S>, run<Sgd, P, S>, \
   run<SgdMomentum, P, S>, run<Sophia, P, S>, run<Sign, P, S>}
const RulesKernels kRules = {{GC_FORM(run, F32, F32), GC_FORM(run, Bf16, Bf16), GC_FORM(run, Bf16, F32),
                              GC_FORM(run_stochastic, Bf16, Bf16), GC_FORM(run_stochastic, Bf16, F32)},
                             sum_squares};
#undef GC_FORM

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
