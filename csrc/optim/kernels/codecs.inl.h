// Conversions of whole blocks.  Every loop reads and writes each element once; tails go through a padded vector.
#pragma once

#include "optim/kernels/codecs.h"
#include "optim/kernels/storage.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

#define GC_HALF_LOAD(name, convert)                                                   \
  static void name(const std::uint16_t* from, float* to, std::int64_t n) {            \
    std::int64_t i = 0;                                                               \
    for (; i + kLanes <= n; i += kLanes) store(to + i, convert(load_half(from + i))); \
    const int rest = static_cast<int>(n - i);                                         \
    if (rest > 0) store_part(to + i, convert(load_half_part(from + i, rest)), rest);  \
  }
#define GC_HALF_STORE(name, convert)                                                  \
  static void name(const float* from, std::uint16_t* to, std::int64_t n) {            \
    std::int64_t i = 0;                                                               \
    for (; i + kLanes <= n; i += kLanes) store_half(to + i, convert(load(from + i))); \
    const int rest = static_cast<int>(n - i);                                         \
    if (rest > 0) store_half_part(to + i, convert(load_part(from + i, rest)), rest);  \
  }
GC_HALF_LOAD(load_bf16, widen_bf16)
GC_HALF_LOAD(load_f16, widen_f16)
GC_HALF_STORE(store_bf16, round_bf16)
GC_HALF_STORE(store_f16, round_f16)
#undef GC_HALF_LOAD
#undef GC_HALF_STORE

static void store_bf16_stochastic(const float* from, std::uint16_t* to, std::int64_t n, const NoiseKey& key,
                                  int field) {
  const RoundingVectors noise = RoundingVectors::of(key);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const vu words = noise.words(i);
    Bf16::store(to + i, load(from + i), &words, field);
  }
  if (i < n) {
    const vu words = noise.words(i);
    const int rest = static_cast<int>(n - i);
    Bf16::store_part(to + i, load_part(from + i, rest), rest, &words, field);
  }
}

static void load_bf16_pair(const std::uint16_t* high, const std::uint16_t* low, float* to, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    store(to + i, widen_bf16(load_half(high + i)) + widen_bf16(load_half(low + i)));
  }
  for (; i < n; ++i) to[i] = to_f32(bf16{high[i]}) + to_f32(bf16{low[i]});
}

static void store_bf16_pair(const float* from, std::uint16_t* high, std::uint16_t* low, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const vf x = load(from + i);
    const vh top = round_bf16(x);
    store_half(high + i, top);
    store_half(low + i, round_bf16(x - widen_bf16(top)));
  }
  for (; i < n; ++i) {
    const bf16 top = to_bf16(from[i]);
    high[i] = top.bits;
    low[i] = to_bf16(from[i] - to_f32(top)).bits;
  }
}

}  // namespace

extern const CodecsKernels kCodecs;
const CodecsKernels kCodecs = {load_bf16, store_bf16, store_bf16_stochastic, load_bf16_pair, store_bf16_pair,
                               load_f16,  store_f16};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
