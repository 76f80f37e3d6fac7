// The maps of low-bit moments on vectors, and how codes are laid in bytes.  Included by kernel sources.
// 8-bit codes: the dynamic-exponent map (Dettmers et al. 2022, arXiv:2110.02861) without a table.  A magnitude's code
// is an integer mag; with i its binary exponent the value is 10^(i-6) (0.9 (mag + 1/2) / 2^i - 0.8), so decoding is
// one multiply-add with coefficients looked up by exponent, and encoding finds the decade by seven comparisons.
//   signed:   code - 127 = +-mag, mag 128 means 1.0 (there is no -1.0)
//   unsigned: code + 1 = mag, shifted by one exponent; code 0 means 0, code 255 means 1.0
// 4-bit codes (Li et al. 2023, arXiv:2309.01507): signed values by the same map at 4 bits, code - 7 = +-index into
// kSteps4; values >= 0 linearly as (code + 1) / 16, which has no zero.
// Nearest value always.  A block of zeros has scale 0.
#pragma once

#include "optim/kernels/blocks.h"
#include "optim/kernels/vec.h"
#include "optim/maps.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

GC_INLINE vf lookup8(const float* table, vi index) {
#if defined(__AVX512F__)
  const __m512 t = _mm512_castps256_ps512(_mm256_loadu_ps(table));
  return reinterpret_cast<vf>(_mm512_permutexvar_ps(reinterpret_cast<__m512i>(index & 7), t));
#elif defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_permutevar8x32_ps(_mm256_loadu_ps(table), reinterpret_cast<__m256i>(index)));
#else
  vf x;
  for (int i = 0; i < kLanes; ++i) x[i] = table[index[i] & 7];
  return x;
#endif
}

GC_INLINE vi int_of(vf x) {  // to nearest; |x| < 2^22
  return reinterpret_cast<vi>(bits_of(x + 12582912.0f)) - 0x4b400000;
}

// The generic conversions between bytes and vectors compile to one scalar move per element.
GC_INLINE vi load_codes(const std::uint8_t* p) {
#if defined(__AVX512F__)
  return reinterpret_cast<vi>(_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__AVX2__)
  return reinterpret_cast<vi>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  vb b;
  __builtin_memcpy(&b, p, sizeof b);
  return reinterpret_cast<vi>(__builtin_convertvector(b, vu));
#endif
}
GC_INLINE void store_codes(std::uint8_t* p, vi code) {
#if defined(__AVX512F__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(reinterpret_cast<__m512i>(code)));
#elif defined(__AVX2__)
  const __m256i words = _mm256_packus_epi32(reinterpret_cast<__m256i>(code), _mm256_setzero_si256());
  const __m256i bytes = _mm256_packus_epi16(words, _mm256_setzero_si256());
  const __m256i joined = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 1, 1, 1, 1, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(joined));
#else
  const vb b = __builtin_convertvector(reinterpret_cast<vu>(code), vb);
  __builtin_memcpy(p, &b, sizeof b);
#endif
}

// A block of 4-bit codes, one per byte, from and to pairs with the first code in the low nibble.
__attribute__((noinline, unused)) static void unpack4(const std::uint8_t* packed, std::uint8_t* wide, unsigned count) {
  const unsigned bytes = (count + 1) / 2;
  unsigned k = 0;
#if defined(__x86_64__)
  const __m128i low = _mm_set1_epi8(15);
  for (; k + 16 <= bytes; k += 16) {
    const __m128i pairs = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + k));
    const __m128i first = _mm_and_si128(pairs, low), second = _mm_and_si128(_mm_srli_epi16(pairs, 4), low);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(wide + 2 * k), _mm_unpacklo_epi8(first, second));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(wide + 2 * k + 16), _mm_unpackhi_epi8(first, second));
  }
#endif
  for (; k < bytes; ++k) {
    wide[2 * k] = packed[k] & 15u;
    wide[2 * k + 1] = static_cast<std::uint8_t>(packed[k] >> 4);
  }
}
__attribute__((noinline)) static void pack4(const std::uint8_t* wide, std::uint8_t* packed, unsigned count) {
  const unsigned bytes = (count + 1) / 2;
  unsigned k = 0;
#if defined(__x86_64__)
  const __m128i low = _mm_set1_epi16(15), high = _mm_set1_epi16(0xf0);
  for (; k + 16 <= count / 2u; k += 16) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(wide + 2 * k));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(wide + 2 * k + 16));
    const __m128i pa = _mm_or_si128(_mm_and_si128(a, low), _mm_and_si128(_mm_srli_epi16(a, 4), high));
    const __m128i pb = _mm_or_si128(_mm_and_si128(b, low), _mm_and_si128(_mm_srli_epi16(b, 4), high));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(packed + k), _mm_packus_epi16(pa, pb));
  }
#endif
  for (; k < bytes; ++k) packed[k] = static_cast<std::uint8_t>(wide[2 * k] | (wide[2 * k + 1] << 4));
}

// n + 1 in the lanes where a >= threshold.
GC_INLINE vi count_ge(vi n, vf a, float threshold) {
#if defined(__AVX512F__)
  const __mmask16 m = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), _mm512_set1_ps(threshold), _CMP_GE_OQ);
  const __m512i old = reinterpret_cast<__m512i>(n);
  return reinterpret_cast<vi>(_mm512_mask_add_epi32(old, m, old, _mm512_set1_epi32(1)));
#else
  return n - (a >= threshold);
#endif
}

// A map decodes codes as integers to values, and encodes values times `inverse` to codes less kBias; what is then below
// -kBias means code 0.
struct Signed8 {
  static constexpr int kBias = 0;
  float scale;
  GC_INLINE Signed8 scaled(float scale) { return {scale}; }
  __attribute__((always_inline)) vf decode(vi code) const {
    const vi signed_mag = code - 127;
    const vf mag = vabs(__builtin_convertvector(signed_mag, vf));
    const vi exponent = reinterpret_cast<vi>(bits_of(mag) >> 23) - 127;
    const vf value = lookup8(kSigned8.slope, exponent) * mag + lookup8(kSigned8.offset, exponent);
    const vf signed_value = vcopysign(value, reinterpret_cast<vf>(signed_mag));
    return select(signed_mag == 0, vf{}, signed_value) * scale;
  }
  GC_INLINE vi encode(vf value, vf inverse) {
    const vf x = value * inverse, a = vabs(x);
    vi decade = {};
    for (int i = 0; i < 6; ++i) decade = count_ge(decade, a, kSigned8.up[i]);
    const vf lowest = float_of(reinterpret_cast<vu>((decade + 127) << 23));
    vf mag = a * lookup8(kSigned8.inverse, decade) + lookup8(kSigned8.shift, decade);
    mag = vmin(vmax(mag, lowest), lowest * 2.0f - 1.0f);
    mag = select(a < kSigned8.zero, vf{}, mag);
    mag = select(x >= kSigned8.one, splat(128.0f), mag);
    return int_of(vcopysign(mag, x)) + 127;
  }
};

struct Unsigned8 {
  static constexpr int kBias = 0;
  float scale;
  GC_INLINE Unsigned8 scaled(float scale) { return {scale}; }
  __attribute__((always_inline)) vf decode(vi code) const {
    const vf mag = __builtin_convertvector(code + 1, vf);
    const vi exponent = reinterpret_cast<vi>(bits_of(mag) >> 23) - 128;
    const vf value = lookup8(kUnsigned8.slope, exponent) * mag + lookup8(kUnsigned8.offset, exponent);
    return select(code == 0, vf{}, value) * scale;
  }
  GC_INLINE vi encode(vf value, vf inverse) {
    const vf a = value * inverse;
    vi decade = {};
    for (int i = 0; i < 6; ++i) decade = count_ge(decade, a, kUnsigned8.up[i]);
    const vf lowest = float_of(reinterpret_cast<vu>((decade + 128) << 23));
    vf mag = a * lookup8(kUnsigned8.inverse, decade) + lookup8(kUnsigned8.shift, decade);
    mag = vmin(vmax(mag, lowest), lowest * 2.0f - 1.0f);
    mag = select(a >= kUnsigned8.zero, mag, splat(1.0f));
    mag = select(a >= kUnsigned8.one, splat(256.0f), mag);
    return int_of(mag) - 1;
  }
};

struct Signed4 {
  static constexpr int kBias = 0;
  float scale;
  GC_INLINE Signed4 scaled(float scale) { return {scale}; }
  __attribute__((always_inline)) vf decode(vi code) const {
    const vi index = code - 7;
    const vi mag = index < 0 ? -index : index;
    const vf value = select(mag == 8, splat(1.0f), lookup8(kSteps4, mag));
    return vcopysign(value, reinterpret_cast<vf>(index)) * scale;
  }
  GC_INLINE vi encode(vf value, vf inverse) {
    const vf x = value * inverse, a = vabs(x);
    vi mag = {};
    for (int i = 0; i < 7; ++i) mag = count_ge(mag, a, (kSteps4[i] + kSteps4[i + 1]) / 2);
    mag = count_ge(mag, x, (kSteps4[7] + 1.0f) / 2);
    return x < 0.0f ? 7 - mag : 7 + mag;
  }
};

struct Linear4 {
  static constexpr int kBias = 0;
  float scale;
  GC_INLINE Linear4 scaled(float scale) { return {scale}; }
  __attribute__((always_inline)) vf decode(vi code) const {
    return __builtin_convertvector(code + 1, vf) * (0.0625f * scale);
  }
  GC_INLINE vi encode(vf x, vf inverse) { return int_of(vmin(splat(15.0f), vmax(x * inverse * 16.0f - 1.0f, vf{}))); }
};

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim

#if defined(__AVX512F__)
#include "optim/kernels/block_maps_avx512.inl.h"
#define GC_MAP(name) Wide##name
#else
#define GC_MAP(name) name
#endif

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

using SignedMap8 = GC_MAP(Signed8);
using UnsignedMap8 = GC_MAP(Unsigned8);
using SignedMap4 = GC_MAP(Signed4);
using LinearMap4 = GC_MAP(Linear4);
#undef GC_MAP

// What `encode` gave as codes.
template <class Map>
GC_INLINE vi finish_codes(vi encoded) {
  if (Map::kBias == 0) return encoded;
  const vi code = encoded + Map::kBias;
  return code < 0 ? vi{} : code;
}

#if defined(__AVX512F__)
// 64 values to codes, kPerByte of them in a byte.
template <class Map, int kPerByte>
GC_INLINE void store64(const float* from, std::uint8_t* codes, vf factor) {
  const __m512i wide = encode64<Map>(from, factor);
  if (kPerByte == 1) return _mm512_storeu_si512(codes, wide);
  const __m512i pairs = _mm512_maddubs_epi16(wide, _mm512_set1_epi16(0x1001));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), _mm512_cvtepi16_epi8(pairs));
}
#endif

// n values to codes of a byte each.
template <class Map>
GC_INLINE void encode_bytes(const float* from, std::uint8_t* codes, std::int64_t n, float inverse) {
  const vf factor = splat(inverse);
  std::int64_t i = 0;
#if defined(__AVX512F__)
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) store64<Map, 1>(from + i, codes + i, factor);
#endif
  for (; i + kLanes <= n; i += kLanes) store_codes(codes + i, finish_codes<Map>(Map::encode(load(from + i), factor)));
  if (i < n) {
    const int count = static_cast<int>(n - i) & (kLanes - 1);
    std::uint8_t rest[kLanes];
    store_codes(rest, finish_codes<Map>(Map::encode(load_part(from + i, count), factor)));
    for (int k = 0; k < count; ++k) codes[i + k] = rest[k];
  }
}

// At most kBlock4 values to pairs of codes; an odd last one pairs with 0.
template <class Map>
GC_INLINE void encode_nibbles(const float* from, std::uint8_t* packed, std::int64_t n, float inverse) {
  std::int64_t i = 0;
#if defined(__AVX512F__)
  const vf factor = splat(inverse);
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) store64<Map, 2>(from + i, packed + i / 2, factor);
  if (i == n) return;
#endif
  std::uint8_t wide[kBlock4 + kLanes];
  wide[n - i] = 0;
  encode_bytes<Map>(from + i, wide, n - i, inverse);
  pack4(wide, packed + i / 2, static_cast<unsigned>(n - i));
}

GC_INLINE float inverse_of(float scale) {
  return scale >= 1.2e-38f ? 1.0f / scale : 0.0f;
}

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
