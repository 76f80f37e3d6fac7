// Random words on vectors: those of stochastic rounding, and Philox blocks kLanes at a time.  Included by kernel
// sources.
#pragma once

#include "optim/kernels/rules.h"
#include "optim/kernels/vec.h"
#include "optim/rounding.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

#if defined(__AVX512F__)
GC_INLINE vu mul_even(vu a, vu b) {
  return reinterpret_cast<vu>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
#define GC_UNPACK(half, width, a, b) \
  reinterpret_cast<vu>(_mm512_unpack##half##_epi##width(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)))
#elif defined(__AVX2__)
GC_INLINE vu mul_even(vu a, vu b) {
  return reinterpret_cast<vu>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
#define GC_UNPACK(half, width, a, b) \
  reinterpret_cast<vu>(_mm256_unpack##half##_epi##width(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)))
#elif defined(__x86_64__)
GC_INLINE vu mul_even(vu a, vu b) {
  return reinterpret_cast<vu>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)));
}
#define GC_UNPACK(half, width, a, b) \
  reinterpret_cast<vu>(_mm_unpack##half##_epi##width(reinterpret_cast<__m128i>(a), reinterpret_cast<__m128i>(b)))
#endif

#if defined(__x86_64__)

typedef std::uint64_t vq __attribute__((vector_size(kLanes * 4)));

GC_INLINE void mul_hi_lo(vu a, std::uint32_t factor, vu* hi, vu* lo) {
  const vu m = splat_u(factor);
  const vq even = reinterpret_cast<vq>(mul_even(a, m));
  const vq odd = reinterpret_cast<vq>(mul_even(reinterpret_cast<vu>(reinterpret_cast<vq>(a) >> 32), m));
  *lo = reinterpret_cast<vu>((even & 0xffffffffull) | (odd << 32));
  *hi = reinterpret_cast<vu>((even >> 32) | (odd & 0xffffffff00000000ull));
}

// Word j of kLanes Philox blocks in words[j]: those of elements key.element + i .. + 4 kLanes - 1; i is a multiple of
// 4 kLanes.  Lane 4k + j draws block (kLanes / 4) j + k, so that in_order() is a 4x4 transpose inside each 128 bits.
GC_INLINE void philox_vectors(const NoiseKey& key, std::int64_t i, vu* words) {
  vu lane;
  for (std::uint32_t i = 0; i < kLanes; ++i) lane[i] = (kLanes / 4) * (i & 3u) + (i >> 2);
  const std::uint64_t quad = static_cast<std::uint64_t>(key.element + i) / 4;
  vu c0 = static_cast<std::uint32_t>(quad) + lane;  // no carry: quad is a multiple of kLanes
  vu c1 = splat_u(static_cast<std::uint32_t>(quad >> 32)), c2 = splat_u(key.step), c3 = splat_u(key.tensor);
  std::uint32_t k0 = static_cast<std::uint32_t>(key.seed), k1 = static_cast<std::uint32_t>(key.seed >> 32);
  for (int round = 0; round < 10; ++round) {
    vu hi0, lo0, hi1, lo1;
    mul_hi_lo(c0, 0xD2511F53u, &hi0, &lo0);
    mul_hi_lo(c2, 0xCD9E8D57u, &hi1, &lo1);
    c0 = hi1 ^ c1 ^ k0;
    c1 = lo1;
    c2 = hi0 ^ c3 ^ k1;
    c3 = lo0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  words[0] = c0;
  words[1] = c1;
  words[2] = c2;
  words[3] = c3;
}

// From word j of every block in words[j] to element order: out[j][k] belongs to element j * kLanes + k.
GC_INLINE void in_order(const vu* words, vu* out) {
  const vu t0 = GC_UNPACK(lo, 32, words[0], words[1]), t1 = GC_UNPACK(hi, 32, words[0], words[1]);
  const vu t2 = GC_UNPACK(lo, 32, words[2], words[3]), t3 = GC_UNPACK(hi, 32, words[2], words[3]);
  out[0] = GC_UNPACK(lo, 64, t0, t2);
  out[1] = GC_UNPACK(hi, 64, t0, t2);
  out[2] = GC_UNPACK(lo, 64, t1, t3);
  out[3] = GC_UNPACK(hi, 64, t1, t3);
}
#undef GC_UNPACK

#else

GC_INLINE void philox_vectors(const NoiseKey& key, std::int64_t i, vu* words) {
  const std::uint64_t quad = static_cast<std::uint64_t>(key.element + i) / 4;
  for (int b = 0; b < kLanes; ++b) {
    const Philox4 drawn = philox4x32(key.seed, quad + static_cast<std::uint64_t>(b),
                                     static_cast<std::uint64_t>(key.tensor) << 32 | key.step);
    for (int k = 0; k < 4; ++k) words[k][b] = drawn.v[k];
  }
}
GC_INLINE void in_order(const vu* words, vu* out) {
  for (int e = 0; e < 4 * kLanes; ++e) out[e / kLanes][e % kLanes] = words[e % 4][e / 4];
}

#endif

// As rounding_word() of optim/rounding.h, for the elements of one block; a block lies in one run.
struct RoundingVectors {
  RoundingKey key;
  vu place;  // place mixed in for lane 0..kLanes-1 of element 0

  GC_INLINE RoundingVectors of(const NoiseKey& k) {
    const auto first = static_cast<std::uint64_t>(k.element);
    vu lane;
    for (std::uint32_t i = 0; i < kLanes; ++i) lane[i] = i;
    const RoundingKey key = rounding_key(k.seed, k.step, k.tensor, first);
    return {key, (lane + static_cast<std::uint32_t>(first % kRoundingRun)) * kPlaceMix + key.a};
  }
  __attribute__((always_inline)) vu words(std::int64_t i) const {
    vu x = place + static_cast<std::uint32_t>(i) * kPlaceMix;
    x = (x ^ (x >> 16)) * kMixA;
    x = (x ^ (x >> 13) ^ key.b) * kMixB;
    return x ^ (x >> 16);
  }
};

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
