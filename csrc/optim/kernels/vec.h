// What the optimizer kernels add to core/vec.h: loads and stores of the three parameter types, square root and the Adam
// quotient.  Included by kernel sources only.
#pragma once

#include "core/isa.h"
#include "core/vec.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

using vec::GC_ISA_NS::kLanes;
using vec::GC_ISA_NS::load;
using vec::GC_ISA_NS::splat;
using vec::GC_ISA_NS::store;
typedef vec::GC_ISA_NS::Vf vf;
typedef vec::GC_ISA_NS::Vu vu;
typedef vec::GC_ISA_NS::Vi vi;
typedef vec::GC_ISA_NS::Vh vh;
typedef std::uint8_t vb __attribute__((vector_size(kLanes)));

GC_INLINE vu splat_u(std::uint32_t x) {
  return vu{} + x;
}
GC_INLINE vu bits_of(vf x) {
  return reinterpret_cast<vu>(x);
}
GC_INLINE vf float_of(vu x) {
  return reinterpret_cast<vf>(x);
}
// Of an array that is read once, long before it is needed: into the second-level cache, so that more lines may be on
// their way than the first level can wait for.
GC_INLINE void prefetch_stream(const float* p) {
  __builtin_prefetch(p + 1024, 0, 2);
}
// Lanes of `a` where `mask` is all ones, else of `b`.
GC_INLINE vf select(vi mask, vf a, vf b) {
  return mask ? a : b;
}
GC_INLINE vu select(vi mask, vu a, vu b) {
  return mask ? a : b;
}
// The larger and the smaller; b where either is NaN.  The generic form compiles to a comparison and a blend.
#if defined(__AVX512F__)
GC_INLINE vf vmax(vf a, vf b) {
  return reinterpret_cast<vf>(_mm512_max_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
}
GC_INLINE vf vmin(vf a, vf b) {
  return reinterpret_cast<vf>(_mm512_min_ps(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(b)));
}
#elif defined(__AVX2__)
GC_INLINE vf vmax(vf a, vf b) {
  return reinterpret_cast<vf>(_mm256_max_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}
GC_INLINE vf vmin(vf a, vf b) {
  return reinterpret_cast<vf>(_mm256_min_ps(reinterpret_cast<__m256>(a), reinterpret_cast<__m256>(b)));
}
#else
GC_INLINE vf vmax(vf a, vf b) {
  return a > b ? a : b;
}
GC_INLINE vf vmin(vf a, vf b) {
  return a < b ? a : b;
}
#endif
GC_INLINE vf vabs(vf x) {
  return float_of(bits_of(x) & 0x7fffffffu);
}
GC_INLINE vf vcopysign(vf magnitude, vf sign) {
  return float_of((bits_of(magnitude) & 0x7fffffffu) | (bits_of(sign) & 0x80000000u));
}
GC_INLINE vf vsign(vf x) {  // -1, 0, 1; NaN stays NaN
  const vf one = vcopysign(splat(1.0f), x);
  return select(x == 0.0f, x, select(x == x, one, x));
}

GC_INLINE vf vsqrt(vf x) {
#if defined(__AVX512F__)
  return reinterpret_cast<vf>(_mm512_sqrt_ps(reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_sqrt_ps(reinterpret_cast<__m256>(x)));
#elif defined(__x86_64__)
  return reinterpret_cast<vf>(_mm_sqrt_ps(reinterpret_cast<__m128>(x)));
#elif defined(__aarch64__)
  return reinterpret_cast<vf>(vsqrtq_f32(reinterpret_cast<float32x4_t>(x)));
#else
  vf y;
  for (int i = 0; i < kLanes; ++i) y[i] = __builtin_sqrtf(x[i]);
  return y;
#endif
}

// a / b, and sqrt(x) for x >= 0, at 2 ulp: the divider of AVX-512 machines would cost more than the memory traffic.
GC_INLINE vf fast_div(vf a, vf b) {
#if defined(__AVX512F__)
  const vf r = reinterpret_cast<vf>(_mm512_rcp14_ps(reinterpret_cast<__m512>(b)));
  const vf q = a * r;
  return q + r * (a - q * b);
#else
  return a / b;
#endif
}
GC_INLINE vf fast_sqrt(vf x) {
#if defined(__AVX512F__)
  // Zero lanes of the estimate are zeroed so that 0 * inf does not arise; the clamp keeps sqrt(inf) finite.
  const vf y = vmin(splat(3.4028234e38f), x);
  const __mmask16 nonzero = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(y), _mm512_setzero_ps(), _CMP_NEQ_UQ);
  const vf r = reinterpret_cast<vf>(_mm512_maskz_rsqrt14_ps(nonzero, reinterpret_cast<__m512>(y)));
  const vf root = y * r;
  return root + (r * 0.5f) * (y - root * root);
#else
  return vsqrt(x);
#endif
}

GC_INLINE vf load_part(const float* p, int count) {
  float buffer[kLanes] = {};
  for (int i = 0; i < count; ++i) buffer[i] = p[i];
  return load(buffer);
}
GC_INLINE void store_part(float* p, vf x, int count) {
  float buffer[kLanes];
  store(buffer, x);
  for (int i = 0; i < count; ++i) p[i] = buffer[i];
}

// The generic conversion compiles to two halves that are joined again.
GC_INLINE vf widen_bf16(vh h) {
#if defined(__AVX512F__)
  return float_of(reinterpret_cast<vu>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(h))) << 16);
#elif defined(__AVX2__)
  return float_of(reinterpret_cast<vu>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(h))) << 16);
#else
  return float_of(__builtin_convertvector(h, vu) << 16);
#endif
}
// Words below 2^16 as halves.
GC_INLINE vh low_halves(vu x) {
#if defined(__AVX512F__)
  return reinterpret_cast<vh>(_mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(x)));
#else
  return __builtin_convertvector(x, vh);
#endif
}
// Whether any lane is at or above `limit`; both below 2^31.
GC_INLINE bool any_ge(vu x, std::uint32_t limit) {
#if defined(__AVX512F__)
  return _mm512_cmpge_epu32_mask(reinterpret_cast<__m512i>(x), _mm512_set1_epi32(static_cast<int>(limit))) != 0;
#elif defined(__AVX2__)
  const vi mask = reinterpret_cast<vi>(x) >= static_cast<std::int32_t>(limit);
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask)) != 0;
#else
  std::uint32_t over = 0;
  for (int i = 0; i < kLanes; ++i) over |= x[i] >= limit;
  return over != 0;
#endif
}
GC_INLINE vu nearest_bf16(vu u) {  // of values that are not NaN
  return (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
}
__attribute__((noinline)) static vu special_bf16(vu u, vu rounded) {  // huge or infinite: nearest; a NaN stays one
  const vu quiet = (u >> 16) | 0x40u, magnitude = u & 0x7fffffffu;
  return select(magnitude > 0x7f800000u, quiet, select(magnitude >= 0x7f7f0000u, nearest_bf16(u), rounded));
}
// What is rounded to infinity or NaN is rare: one comparison finds it.
GC_INLINE vh finish_bf16(vu u, vu rounded) {
  if (__builtin_expect(any_ge(u & 0x7fffffffu, 0x7f7f0000u), 0)) rounded = special_bf16(u, rounded);
  return low_halves(rounded);
}
GC_INLINE vh round_bf16(vf x) {  // to nearest even; a NaN stays one
  return finish_bf16(bits_of(x), nearest_bf16(bits_of(x)));
}
// Up with probability (low 16 bits)/2^16; what to_bf16_stochastic of core/half.h does.
GC_INLINE vh round_bf16_stochastic(vf x, vu noise) {
  return finish_bf16(bits_of(x), (bits_of(x) + (noise & 0xffffu)) >> 16);
}

GC_INLINE vf widen_f16(vh h) {
#if defined(__AVX512F__)
  return reinterpret_cast<vf>(_mm512_cvtph_ps(reinterpret_cast<__m256i>(h)));
#elif defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_cvtph_ps(reinterpret_cast<__m128i>(h)));
#else
  vf x;
  for (int i = 0; i < kLanes; ++i) x[i] = to_f32(f16{h[i]});
  return x;
#endif
}
GC_INLINE vh round_f16(vf x) {
#if defined(__AVX512F__)
  return reinterpret_cast<vh>(_mm512_cvtps_ph(reinterpret_cast<__m512>(x), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__AVX2__)
  return reinterpret_cast<vh>(_mm256_cvtps_ph(reinterpret_cast<__m256>(x), _MM_FROUND_TO_NEAREST_INT));
#else
  vh h;
  for (int i = 0; i < kLanes; ++i) h[i] = to_f16(x[i]).bits;
  return h;
#endif
}

GC_INLINE float reduce_max(vf x) {
#if defined(__AVX512F__)
  return _mm512_reduce_max_ps(reinterpret_cast<__m512>(x));
#else
  float best = x[0];
  for (int i = 1; i < kLanes; ++i) best = x[i] > best ? x[i] : best;
  return best;
#endif
}
GC_INLINE double reduce_add(vf x) {
#if defined(__AVX512F__)
  typedef float half __attribute__((vector_size(32)));
  typedef double wide __attribute__((vector_size(64)));
  half parts[2];
  __builtin_memcpy(parts, &x, sizeof parts);
  const wide d = __builtin_convertvector(parts[0], wide) + __builtin_convertvector(parts[1], wide);
  return ((d[0] + d[1]) + (d[2] + d[3])) + ((d[4] + d[5]) + (d[6] + d[7]));
#else
  double sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += static_cast<double>(x[i]);
  return sum;
#endif
}

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
