// Normal values by Box and Muller: of 32 elements the words of element i < 16 and i + 16 give both their values,
//   z = sqrt(-2 ln((w + 1/2) / 2^24)) (cos, sin)(2 pi w' / 2^32),   w the upper 24 bits of one, w' the other, signed.
// Logarithm, sine and cosine are polynomials of relative error below 3e-7; levels differ in the last bits.
// Masks come from words of another seed: word < keep * 2^32 keeps the element.
#pragma once

#include "optim/kernels/gauss.h"
#include "optim/kernels/noise.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

constexpr std::uint64_t kGaussSeed = 0x9D39247E33776D41ull;  // apart from the keys of stochastic rounding
constexpr std::uint64_t kMaskSeed = 0x2AF7398005AAA5C7ull;

// Natural logarithm of x in (0, 1].
GC_INLINE vf log_unit(vf x) {
  // x = 2^e m with m in [sqrt(1/2), sqrt(2))
  const vu bits = bits_of(x) - 0x3f3504f3u;
  const vf e = __builtin_convertvector(reinterpret_cast<vi>(bits) >> 23, vf);
  const vf t = float_of((bits & 0x7fffffu) + 0x3f3504f3u) - 1.0f;
  vf p = splat(7.0376836e-2f);
  p = p * t - 1.1514610e-1f;
  p = p * t + 1.1676999e-1f;
  p = p * t - 1.2420141e-1f;
  p = p * t + 1.4249323e-1f;
  p = p * t - 1.6668058e-1f;
  p = p * t + 2.0000715e-1f;
  p = p * t - 2.4999994e-1f;
  p = p * t + 3.3333331e-1f;
  const vf square = t * t;
  return t + (t * square * p - 0.5f * square) + e * 0.69314718f;
}

// Cosine and sine of 2 pi w / 2^32.
GC_INLINE void cos_sin(vu w, vf* cosine, vf* sine) {
  const vu quadrant = (w + (1u << 29)) >> 30;
  const vf y = __builtin_convertvector(reinterpret_cast<vi>(w - (quadrant << 30)), vf) * 1.4629181e-9f;
  const vf z = y * y;
  const vf s = ((-1.9515296e-4f * z + 8.3321609e-3f) * z - 1.6666655e-1f) * z * y + y;
  const vf c = ((2.4433157e-5f * z - 1.3887316e-3f) * z + 4.1666646e-2f) * z * z - 0.5f * z + 1.0f;
  const vi swapped = reinterpret_cast<vi>(quadrant << 31) < 0;
  const vu minus_sine = (quadrant & 2u) << 30, minus_cosine = ((quadrant + 1u) & 2u) << 30;
  *cosine = float_of(bits_of(select(swapped, s, c)) ^ minus_cosine);
  *sine = float_of(bits_of(select(swapped, c, s)) ^ minus_sine);
}

GC_INLINE void box_muller(vu a, vu b, vf* first, vf* second) {
  const vf u = (__builtin_convertvector(reinterpret_cast<vi>(a >> 8), vf) + 0.5f) * 0x1p-24f;
  const vf radius = fast_sqrt(-2.0f * log_unit(u));
  vf cosine, sine;
  cos_sin(b, &cosine, &sine);
  *first = radius * cosine;
  *second = radius * sine;
}

static void add(const NoiseKey& key, float amount, float keep, float* to, std::int64_t n) {
  constexpr int kHalf = 16 / kLanes;  // vectors of the first sixteen elements
  NoiseKey drawn = key, masked = key;
  drawn.seed ^= kGaussSeed;
  masked.seed ^= kMaskSeed;
  const RoundingVectors words = RoundingVectors::of(drawn), masks = RoundingVectors::of(masked);
  const bool sparse = keep < 1.0f;
  const std::uint32_t limit = sparse ? static_cast<std::uint32_t>(static_cast<double>(keep) * 4294967296.0) : 0u;
  for (std::int64_t i = 0; i < n; i += 32) {
    vf z[2 * kHalf];
    for (int k = 0; k < kHalf; ++k) {
      const std::int64_t at = i + k * kLanes;
      box_muller(words.words(at), words.words(at + 16), &z[k], &z[k + kHalf]);
    }
    for (int k = 0; k < 2 * kHalf && i + k * kLanes < n; ++k) {
      const std::int64_t at = i + k * kLanes, rest = n - at;
      vf value = amount * z[k];
      if (sparse) value = select(masks.words(at) < limit, value, vf{});
      if (rest >= kLanes) {
        store(to + at, load(to + at) + value);
      } else {
        store_part(to + at, load_part(to + at, static_cast<int>(rest)) + value, static_cast<int>(rest));
      }
    }
  }
}

}  // namespace

extern const GaussKernels kGauss;
const GaussKernels kGauss = {add};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
