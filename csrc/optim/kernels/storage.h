// Vectors in and out of the storage types.  Included by kernel sources.
#pragma once

#include "optim/kernels/noise.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

GC_INLINE vh load_half(const std::uint16_t* p) {
  vh h;
  __builtin_memcpy(&h, p, sizeof h);
  return h;
}
GC_INLINE void store_half(std::uint16_t* p, vh h) {
  __builtin_memcpy(p, &h, sizeof h);
}
GC_INLINE vh load_half_part(const std::uint16_t* p, int count) {
  std::uint16_t buffer[kLanes] = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  return load_half(buffer);
}
GC_INLINE void store_half_part(std::uint16_t* p, vh h, int count) {
  std::uint16_t buffer[kLanes];
  store_half(buffer, h);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}

// `noise`: null for nearest, else the element's word; `field` 0 is the parameter, 1 and 2 the moments.
struct F32 {
  using T = float;
  GC_INLINE vf load(const T* p) { return optim::GC_ISA_NS::load(p); }
  GC_INLINE vf load_part(const T* p, int count) { return optim::GC_ISA_NS::load_part(p, count); }
  GC_INLINE void store(T* p, vf x, const vu*, int) { optim::GC_ISA_NS::store(p, x); }
  GC_INLINE void store_part(T* p, vf x, int count, const vu*, int) { optim::GC_ISA_NS::store_part(p, x, count); }
};

struct Bf16 {
  using T = std::uint16_t;
  GC_INLINE vf load(const T* p) { return widen_bf16(load_half(p)); }
  GC_INLINE vf load_part(const T* p, int count) { return widen_bf16(load_half_part(p, count)); }
  GC_INLINE vh round(vf x, const vu* noise, int field) {
    if (!noise) return round_bf16(x);
    // As rounding_bits() of optim/rounding.h.
    const vu word = field == 0 ? *noise : field == 1 ? (*noise * kMomentMix) >> 16 : *noise >> 16;
    return round_bf16_stochastic(x, word);
  }
  GC_INLINE void store(T* p, vf x, const vu* noise, int field) { store_half(p, round(x, noise, field)); }
  GC_INLINE void store_part(T* p, vf x, int count, const vu* noise, int field) {
    store_half_part(p, round(x, noise, field), count);
  }
};

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
