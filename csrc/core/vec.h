// Vectors of 32-bit lanes in the widest registers of the level being compiled, and the few functions on them that
// several families' kernels need.  GCC vector extensions, so the same source serves x86 and NEON.  Included by
// kernel sources only, after core/isa.h; everything has internal linkage.
#pragma once

#include "core/isa.h"

namespace gramcore {
namespace vec {
namespace GC_ISA_NS {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

typedef float Vf __attribute__((vector_size(kLanes * 4)));
typedef std::int32_t Vi __attribute__((vector_size(kLanes * 4)));
typedef std::uint32_t Vu __attribute__((vector_size(kLanes * 4)));
typedef std::uint16_t Vh __attribute__((vector_size(kLanes * 2)));
typedef std::int8_t Vb __attribute__((vector_size(kLanes)));

GC_INLINE Vf load(const float* p) {
  Vf v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
GC_INLINE void store(float* p, Vf v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
GC_INLINE Vf splat(float x) {
  return x - Vf{};
}
GC_INLINE Vi splat(std::int32_t x) {
  return x - Vi{};
}

// kLanes elements of a storage type as fp32.
GC_INLINE Vf load_f32(const float* p) {
  return load(p);
}
GC_INLINE Vf load_f32(const bf16* p) {
  Vh h;
  __builtin_memcpy(&h, p, sizeof(h));
  return reinterpret_cast<Vf>(__builtin_convertvector(h, Vu) << 16);
}
GC_INLINE Vf load_f32(const std::int8_t* p) {
#if defined(__AVX512F__)  // the general form becomes code for single elements
  return reinterpret_cast<Vf>(
      _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))));
#elif defined(__AVX2__)
  return reinterpret_cast<Vf>(
      _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#else
  Vb b;
  __builtin_memcpy(&b, p, sizeof(b));
  return __builtin_convertvector(__builtin_convertvector(b, Vi), Vf);
#endif
}
GC_INLINE Vf load_f32(const f16* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<Vf>(_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
  return reinterpret_cast<Vf>(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#else
  Vf v;
  for (int i = 0; i < kLanes; ++i) v[i] = to_f32(p[i]);
  return v;
#endif
}

// The first n < kLanes elements, zeros behind them.
template <class T>
GC_INLINE Vf load_partial(const T* p, int n) {
  float x[kLanes] = {};
  for (int i = 0; i < n; ++i) x[i] = to_f32(p[i]);
  return load(x);
}

GC_INLINE Vf max(Vf a, Vf b) {
  return a > b ? a : b;
}

// Lanes added pairwise, halving: the order depends on kLanes only.
GC_INLINE float sum(Vf v) {
  float x[kLanes];
  store(x, v);
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    for (int i = 0; i < half; ++i) x[i] += x[i + half];
  }
  return x[0];
}
GC_INLINE float max_lane(Vf v) {
  float m = v[0];
  for (int i = 1; i < kLanes; ++i) m = v[i] > m ? v[i] : m;
  return m;
}

// p * 2^n for integer n in [-126, 128], in two factors so that 128 does not overflow the exponent field early.
GC_INLINE Vf scale_by_power(Vf p, Vi n) {
  const Vi half = n >> 1;
  p = p * reinterpret_cast<Vf>((half + 127) << 23);
  return p * reinterpret_cast<Vf>((n - half + 127) << 23);
}

// 2^x, relative error < 2e-7; 0 below -126, +inf from 128, NaN stays NaN.
GC_INLINE Vf exp2(Vf in) {
  Vf x = in < -126.0f ? splat(-126.0f) : in;
  x = x > 127.5f ? splat(127.5f) : x;
  const Vf shifted = x + 12582912.0f;  // 1.5 * 2^23: the nearest integer lands in the low bits
  const Vi n = reinterpret_cast<Vi>(shifted) - 0x4b400000;
  const Vf f = x - (shifted - 12582912.0f);
  Vf p = splat(1.5252734e-5f);  // ln(2)^k / k!
  p = p * f + 1.5403530e-4f;
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  Vf y = scale_by_power(p, n);
  y = in < -126.0f ? splat(0.0f) : y;
  y = in >= 128.0f ? splat(__builtin_inff()) : y;
  return in != in ? in : y;
}

// e^x, relative error < 2e-7; 0 below -87.3, +inf above 88.7, NaN stays NaN.
GC_INLINE Vf exp(Vf in) {
  Vf x = in < -87.33f ? splat(-87.33f) : in;
  x = x > 88.72f ? splat(88.72f) : x;
  const Vf shifted = x * 1.44269504f + 12582912.0f;
  const Vi n = reinterpret_cast<Vi>(shifted) - 0x4b400000;
  const Vf whole = shifted - 12582912.0f;
  const Vf f = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;  // ln 2 in two parts, the first short
  Vf p = splat(1.0f / 5040);
  p = p * f + 1.0f / 720;
  p = p * f + 1.0f / 120;
  p = p * f + 1.0f / 24;
  p = p * f + 1.0f / 6;
  p = p * f + 0.5f;
  p = p * f + 1.0f;
  p = p * f + 1.0f;
  Vf y = scale_by_power(p, n);
  y = in < -87.33f ? splat(0.0f) : y;
  y = in > 88.72f ? splat(__builtin_inff()) : y;
  return in != in ? in : y;
}

// Exchanges the off-diagonal half blocks of rows i and i + kHalf: kHalf lanes of every 2 * kHalf.
template <int kHalf>
GC_INLINE void swap_blocks(Vi* rows) {
  Vi first, second;
  for (int lane = 0; lane < kLanes; ++lane) {
    first[lane] = (lane & kHalf) ? kLanes + lane - kHalf : lane;
    second[lane] = (lane & kHalf) ? kLanes + lane : lane + kHalf;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if (i & kHalf) continue;
    const Vi a = rows[i], b = rows[i + kHalf];
    rows[i] = __builtin_shuffle(a, b, first);
    rows[i + kHalf] = __builtin_shuffle(a, b, second);
  }
}

// Transposes a kLanes x kLanes block held in rows, in place: log2(kLanes) rounds of block exchanges.
GC_INLINE void transpose(Vi* rows) {
  if constexpr (kLanes == 16) swap_blocks<8>(rows);
  if constexpr (kLanes >= 8) swap_blocks<4>(rows);
  swap_blocks<2>(rows);
  swap_blocks<1>(rows);
}

}  // namespace GC_ISA_NS
}  // namespace vec
}  // namespace gramcore
