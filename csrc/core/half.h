// bfloat16 and IEEE binary16 as storage types: conversions round to nearest even and keep NaN a NaN.
// Plain functions on bit patterns, usable in ISA files (no standard library code is pulled in) and in CUDA kernels.
#pragma once

#include <cstdint>

#include "core/hd.h"

namespace gramcore {

struct bf16 {
  std::uint16_t bits;
};
struct f16 {
  std::uint16_t bits;
};

namespace bits {
GC_HD static inline std::uint32_t of(float x) {
  std::uint32_t u;
  __builtin_memcpy(&u, &x, 4);
  return u;
}
GC_HD static inline float to_float(std::uint32_t u) {
  float x;
  __builtin_memcpy(&x, &u, 4);
  return x;
}
}  // namespace bits

GC_HD static inline float to_f32(float x) {
  return x;
}
GC_HD static inline float to_f32(std::int8_t x) {
  return static_cast<float>(x);
}
GC_HD static inline float to_f32(bf16 x) {
  return bits::to_float(static_cast<std::uint32_t>(x.bits) << 16);
}

GC_HD static inline float to_f32(f16 h) {
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (h.bits >> 10) & 0x1fu;
  const std::uint32_t fraction = h.bits & 0x3ffu;
  if (exponent == 0x1fu) return bits::to_float(sign | 0x7f800000u | (fraction << 13));
  if (exponent != 0) return bits::to_float(sign | ((exponent + 112u) << 23) | (fraction << 13));
  const float magnitude = static_cast<float>(fraction) * 5.9604644775390625e-8f;  // 2^-24
  return bits::to_float(sign | bits::of(magnitude));
}

GC_HD static inline bf16 to_bf16(float x) {
  const std::uint32_t u = bits::of(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return bf16{static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

GC_HD static inline f16 to_f16(float x) {
  const std::uint32_t u = bits::of(x);
  const std::uint16_t sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    return f16{static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu))};
  }
  if (magnitude >= 0x477ff000u) return f16{static_cast<std::uint16_t>(sign | 0x7c00u)};  // >= 65520
  if (magnitude < 0x38800000u) {  // below 2^-14: subnormal, the addition rounds at 2^-24
    const float shifted = bits::to_float(magnitude) + 0.5f;
    return f16{static_cast<std::uint16_t>(sign | (bits::of(shifted) - 0x3f000000u))};
  }
  const std::uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
  return f16{static_cast<std::uint16_t>(sign | (rounded >> 13))};
}

// Stochastic rounding to bf16: up with probability (low 16 bits)/2^16; `noise` holds 16 uniform bits.
// Infinities and NaN are rounded to nearest; a finite value never rounds up past the largest finite bf16.
GC_HD static inline bf16 to_bf16_stochastic(float x, std::uint32_t noise) {
  const std::uint32_t u = bits::of(x);
  if ((u & 0x7fffffffu) >= 0x7f7f0000u) return to_bf16(x);
  return bf16{static_cast<std::uint16_t>((u + (noise & 0xffffu)) >> 16)};
}

}  // namespace gramcore
