// One 16-bit float type of the device built on gramcore's conversions (core/half.h): arithmetic in float, each
// result rounded once to nearest even, as one device instruction would.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/half.h"
#include "qualifiers.h"

namespace gramcore::cuda_host {

inline void round_to(float x, bf16& out) {
  out = to_bf16(x);
}
inline void round_to(float x, f16& out) {
  out = to_f16(x);
}

// Storage is gramcore::bf16 or gramcore::f16.
template <class Storage>
struct SmallFloat {
  Storage storage;

  SmallFloat() = default;
  SmallFloat(float x) { round_to(x, storage); }  // NOLINT(google-explicit-constructor): implicit on the device too
  explicit SmallFloat(double x) : SmallFloat(static_cast<float>(x)) {}
  explicit SmallFloat(int x) : SmallFloat(static_cast<float>(x)) {}
  operator float() const { return to_f32(storage); }  // NOLINT(google-explicit-constructor)
};

template <class Scalar>
struct alignas(4) SmallFloat2 {
  Scalar x, y;
};

// a*b+c rounded to odd at float precision: a float has at least two bits more than either 16-bit type, so the
// following rounding to nearest is that of the exact value.
inline float fma_round_to_odd(float a, float b, float c) {
  const double product = static_cast<double>(a) * b;  // exact: at most 22 significant bits
  const double sum = product + c;
  const double part = sum - product;
  const double error = (product - (sum - part)) + (c - part);  // sum + error is exact
  const float nearest = static_cast<float>(sum);
  const double rest = (sum - nearest) + error;
  std::uint32_t bits;
  std::memcpy(&bits, &nearest, 4);
  if (!std::isfinite(nearest) || rest == 0.0 || (bits & 1u) != 0) return nearest;
  return std::nextafter(nearest, rest > 0.0 ? INFINITY : -INFINITY);
}

}  // namespace gramcore::cuda_host

// Defines the functions <cuda_bf16.h> and <cuda_fp16.h> name alike but for their infix.
#define GC_HOST_SMALL_FLOAT(Scalar, Pair, infix)                                          \
  inline Scalar __float2##infix(float x) {                                                \
    return Scalar(x);                                                                     \
  }                                                                                       \
  inline Scalar __float2##infix##_rn(float x) {                                           \
    return Scalar(x);                                                                     \
  }                                                                                       \
  inline float __##infix##2float(Scalar x) {                                              \
    return static_cast<float>(x);                                                         \
  }                                                                                       \
  inline Pair __floats2##infix##2_rn(float x, float y) {                                  \
    return {Scalar(x), Scalar(y)};                                                        \
  }                                                                                       \
  inline Pair __float2##infix##2_rn(float x) {                                            \
    return {Scalar(x), Scalar(x)};                                                        \
  }                                                                                       \
  inline Pair __##infix##2##infix##2(Scalar x) {                                          \
    return {x, x};                                                                        \
  }                                                                                       \
  inline float __low2float(Pair v) {                                                      \
    return static_cast<float>(v.x);                                                       \
  }                                                                                       \
  inline float __high2float(Pair v) {                                                     \
    return static_cast<float>(v.y);                                                       \
  }                                                                                       \
  inline unsigned short __##infix##_as_ushort(Scalar x) {                                 \
    return x.storage.bits;                                                                \
  }                                                                                       \
  inline Scalar __ushort_as_##infix(unsigned short u) {                                   \
    Scalar x;                                                                             \
    x.storage.bits = u;                                                                   \
    return x;                                                                             \
  }                                                                                       \
  inline Scalar __hadd(Scalar a, Scalar b) {                                              \
    return Scalar(float(a) + float(b));                                                   \
  }                                                                                       \
  inline Scalar __hsub(Scalar a, Scalar b) {                                              \
    return Scalar(float(a) - float(b));                                                   \
  }                                                                                       \
  inline Scalar __hmul(Scalar a, Scalar b) {                                              \
    return Scalar(float(a) * float(b));                                                   \
  }                                                                                       \
  inline Scalar __hfma(Scalar a, Scalar b, Scalar c) {                                    \
    return Scalar(::gramcore::cuda_host::fma_round_to_odd(float(a), float(b), float(c))); \
  }                                                                                       \
  inline Pair __hadd2(Pair a, Pair b) {                                                   \
    return {__hadd(a.x, b.x), __hadd(a.y, b.y)};                                          \
  }                                                                                       \
  inline Pair __hsub2(Pair a, Pair b) {                                                   \
    return {__hsub(a.x, b.x), __hsub(a.y, b.y)};                                          \
  }                                                                                       \
  inline Pair __hmul2(Pair a, Pair b) {                                                   \
    return {__hmul(a.x, b.x), __hmul(a.y, b.y)};                                          \
  }                                                                                       \
  inline Pair __hfma2(Pair a, Pair b, Pair c) {                                           \
    return {__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};                                \
  }
