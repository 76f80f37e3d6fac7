// What the panel kernels need from an instruction set: vectors of kLanes int32 / float and 4 * kLanes bytes, a
// four-way byte dot product, and the unpacking of low-bit codes.  kSigned8: eight-bit codes are turned into signed
// bytes first (their sums start at 0), because u8 x s8 products would overflow the 16-bit steps of that instruction.
#pragma once

namespace gramcore::quant {
namespace GC_ISA_NS {

#if defined(__AVX512VNNI__)

constexpr int kLanes = 16;
constexpr __mmask16 kAll = 0xffff;  // the unmasked forms of two conversions warn about their own undefined operand
constexpr bool kSigned8 = false;
typedef __m512i Bytes;
typedef __m512i Ints;
typedef __m512 Floats;
GC_INLINE Bytes load_bytes(const std::uint8_t* p) {
  return _mm512_loadu_si512(p);
}
GC_INLINE Bytes fill_bytes(int x) {
  return _mm512_set1_epi8(static_cast<char>(x));
}
GC_INLINE Bytes both(Bytes a, Bytes b) {
  return _mm512_and_si512(a, b);
}
GC_INLINE Bytes either(Bytes a, Bytes b) {
  return _mm512_or_si512(a, b);
}
GC_INLINE Bytes flip(Bytes a, Bytes b) {
  return _mm512_xor_si512(a, b);
}
GC_INLINE Bytes minus(Bytes a, Bytes b) {
  return _mm512_sub_epi8(a, b);
}
template <int kBits>
GC_INLINE Bytes right(Bytes a) {
  return _mm512_srli_epi16(a, kBits);
}
template <int kBits>
GC_INLINE Bytes left(Bytes a) {
  return _mm512_slli_epi16(a, kBits);
}
GC_INLINE Ints fill_int(std::int32_t x) {
  return _mm512_set1_epi32(x);
}
GC_INLINE Ints dot(Ints acc, Bytes w, Ints x) {
  return _mm512_dpbusd_epi32(acc, w, x);
}
GC_INLINE Ints dot8(Ints acc, Bytes w, Ints x) {
  return _mm512_dpbusd_epi32(acc, w, x);
}
GC_INLINE Floats to_floats(Ints x) {
  return _mm512_maskz_cvtepi32_ps(kAll, x);
}
GC_INLINE Floats zero_floats() {
  return _mm512_setzero_ps();
}
GC_INLINE Floats fill_float(float x) {
  return _mm512_set1_ps(x);
}
GC_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return _mm512_fmadd_ps(a, b, c);
}
GC_INLINE Floats times(Floats a, Floats b) {
  return _mm512_mul_ps(a, b);
}
GC_INLINE Floats load_f32(const std::uint8_t* p) {
  return _mm512_loadu_ps(p);
}
GC_INLINE Floats load_f16(const std::uint8_t* p) {
  return _mm512_maskz_cvtph_ps(kAll, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
GC_INLINE void store(float* p, Floats x) {
  _mm512_storeu_ps(p, x);
}
constexpr bool kInPlace = true;
GC_INLINE Ints plus(Ints a, Ints b) {
  return _mm512_add_epi32(a, b);
}
GC_INLINE Ints less(Ints a, Ints b) {
  return _mm512_sub_epi32(a, b);
}
template <int kBits>
GC_INLINE Ints divided(Ints a) {
  return _mm512_srai_epi32(a, kBits);
}

#elif defined(GC_ISA_IS_avx2) || defined(GC_ISA_IS_avx2_vnni)

constexpr int kLanes = 8;
typedef __m256i Bytes;
typedef __m256i Ints;
typedef __m256 Floats;
GC_INLINE Bytes load_bytes(const std::uint8_t* p) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
}
GC_INLINE Bytes fill_bytes(int x) {
  return _mm256_set1_epi8(static_cast<char>(x));
}
GC_INLINE Bytes both(Bytes a, Bytes b) {
  return _mm256_and_si256(a, b);
}
GC_INLINE Bytes either(Bytes a, Bytes b) {
  return _mm256_or_si256(a, b);
}
GC_INLINE Bytes flip(Bytes a, Bytes b) {
  return _mm256_xor_si256(a, b);
}
GC_INLINE Bytes minus(Bytes a, Bytes b) {
  return _mm256_sub_epi8(a, b);
}
template <int kBits>
GC_INLINE Bytes right(Bytes a) {
  return _mm256_srli_epi16(a, kBits);
}
template <int kBits>
GC_INLINE Bytes left(Bytes a) {
  return _mm256_slli_epi16(a, kBits);
}
GC_INLINE Ints fill_int(std::int32_t x) {
  return _mm256_set1_epi32(x);
}
#if defined(GC_ISA_IS_avx2_vnni)
constexpr bool kSigned8 = false;
GC_INLINE Ints dot(Ints acc, Bytes w, Ints x) {
  return _mm256_dpbusd_avx_epi32(acc, w, x);
}
GC_INLINE Ints dot8(Ints acc, Bytes w, Ints x) {
  return _mm256_dpbusd_avx_epi32(acc, w, x);
}
#else
constexpr bool kSigned8 = true;
// Codes of up to seven bits keep the pair sums within 2 * 127 * 127, which int16 holds.
GC_INLINE Ints dot(Ints acc, Bytes w, Ints x) {
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
// |w| <= 128 and |x| <= 127 keep them within 2 * 128 * 127.
GC_INLINE Ints dot8(Ints acc, Bytes w, Ints x) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif
GC_INLINE Floats to_floats(Ints x) {
  return _mm256_cvtepi32_ps(x);
}
GC_INLINE Floats zero_floats() {
  return _mm256_setzero_ps();
}
GC_INLINE Floats fill_float(float x) {
  return _mm256_set1_ps(x);
}
GC_INLINE Floats fma(Floats a, Floats b, Floats c) {
  return _mm256_fmadd_ps(a, b, c);
}
GC_INLINE Floats times(Floats a, Floats b) {
  return _mm256_mul_ps(a, b);
}
GC_INLINE Floats load_f32(const std::uint8_t* p) {
  return _mm256_loadu_ps(reinterpret_cast<const float*>(p));
}
GC_INLINE Floats load_f16(const std::uint8_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
GC_INLINE void store(float* p, Floats x) {
  _mm256_storeu_ps(p, x);
}
#if defined(GC_ISA_IS_avx2_vnni)
constexpr bool kInPlace = true;
#else
constexpr bool kInPlace = false;
#endif
GC_INLINE Ints plus(Ints a, Ints b) {
  return _mm256_add_epi32(a, b);
}
GC_INLINE Ints less(Ints a, Ints b) {
  return _mm256_sub_epi32(a, b);
}
template <int kBits>
GC_INLINE Ints divided(Ints a) {
  return _mm256_srai_epi32(a, kBits);
}

#else  // 128-bit vectors of the compiler; NEON adds its dot product

constexpr int kLanes = 4;
constexpr bool kSigned8 = true;
typedef std::uint8_t Bytes __attribute__((vector_size(16)));
typedef std::int32_t Ints __attribute__((vector_size(16)));
typedef float Floats __attribute__((vector_size(16)));
typedef std::uint16_t Words __attribute__((vector_size(16)));
GC_INLINE Bytes load_bytes(const std::uint8_t* p) {
  Bytes v;
  __builtin_memcpy(&v, p, 16);
  return v;
}
GC_INLINE Bytes fill_bytes(int x) {
  return Bytes{} + static_cast<std::uint8_t>(x);
}
GC_INLINE Bytes both(Bytes a, Bytes b) {
  return a & b;
}
GC_INLINE Bytes either(Bytes a, Bytes b) {
  return a | b;
}
GC_INLINE Bytes flip(Bytes a, Bytes b) {
  return a ^ b;
}
template <int kBits>
GC_INLINE Bytes right(Bytes a) {
  return (Bytes)((Words)a >> kBits);
}
template <int kBits>
GC_INLINE Bytes left(Bytes a) {
  return (Bytes)((Words)a << kBits);
}
GC_INLINE Ints fill_int(std::int32_t x) {
  return Ints{} + x;
}
#if defined(GC_ISA_IS_dotprod)
GC_INLINE Ints dot(Ints acc, Bytes w, Ints x) {
  return (Ints)vdotq_s32((int32x4_t)acc, (int8x16_t)w, (int8x16_t)x);
}
#else
GC_INLINE Ints dot(Ints acc, Bytes w, Ints x) {
  typedef std::int8_t Chars __attribute__((vector_size(16)));
  const Chars a = (Chars)w, b = (Chars)x;
  for (int lane = 0; lane < 4; ++lane) {
    std::int32_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += a[4 * lane + i] * b[4 * lane + i];
    acc[lane] += sum;
  }
  return acc;
}
#endif
GC_INLINE Ints dot8(Ints acc, Bytes w, Ints x) {
  return dot(acc, w, x);
}
GC_INLINE Floats to_floats(Ints x) {
  return __builtin_convertvector(x, Floats);
}
GC_INLINE Floats zero_floats() {
  return Floats{};
}
GC_INLINE Floats fill_float(float x) {
  return Floats{} + x;
}
GC_INLINE Floats fma(Floats a, Floats b, Floats c) {
#if defined(__aarch64__)
  return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
  return a * b + c;
#endif
}
GC_INLINE Floats times(Floats a, Floats b) {
  return a * b;
}
GC_INLINE Floats load_f32(const std::uint8_t* p) {
  Floats v;
  __builtin_memcpy(&v, p, 16);
  return v;
}
GC_INLINE Floats load_f16(const std::uint8_t* p) {
  Floats v;
  for (int i = 0; i < 4; ++i) {
    f16 half;
    __builtin_memcpy(&half, p + 2 * i, 2);
    v[i] = to_f32(half);
  }
  return v;
}
GC_INLINE void store(float* p, Floats x) {
  __builtin_memcpy(p, &x, 16);
}
constexpr bool kInPlace = false;
GC_INLINE Ints plus(Ints a, Ints b) {
  return a + b;
}
GC_INLINE Ints less(Ints a, Ints b) {
  return a - b;
}
template <int kBits>
GC_INLINE Ints divided(Ints a) {
  return a >> kBits;
}

#endif

// f(Index<0>), f(Index<1>), ...: unlike a loop's, such indices let an array of vectors live in registers from the
// start.
template <int kIndex>
struct Index {
  static constexpr int value = kIndex;
};
template <int kCount, int kFirst = 0, class F>
GC_INLINE void unrolled(F f) {
  if constexpr (kFirst < kCount) {
    f(Index<kFirst>{});
    unrolled<kCount, kFirst + 1>(f);
  }
}

GC_INLINE Floats load_floats(const float* p) {
  return load_f32(reinterpret_cast<const std::uint8_t*>(p));
}

GC_INLINE std::int32_t load_i32(const void* p) {
  std::int32_t x;
  __builtin_memcpy(&x, p, 4);
  return x;
}

}  // namespace GC_ISA_NS
}  // namespace gramcore::quant
