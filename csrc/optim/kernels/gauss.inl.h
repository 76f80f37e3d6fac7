// Normal values by Box and Muller from the four words of a Philox block: (w0, w1) and (w2, w3) give two values each,
//   z = sqrt(-2 ln((w + 1/2) / 2^24)) (cos, sin)(2 pi w' / 2^32),   w the upper 24 bits, w' signed.
// Logarithm, sine and cosine are polynomials of relative error below 3e-7; levels differ in the last bits.
// Masks come from blocks of another seed: word < keep * 2^32 keeps the element.
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

GC_INLINE void box_muller(vu a, vu b, vu* first, vu* second) {
  const vf u = (__builtin_convertvector(reinterpret_cast<vi>(a >> 8), vf) + 0.5f) * 0x1p-24f;
  const vf radius = fast_sqrt(-2.0f * log_unit(u));
  vf cosine, sine;
  cos_sin(b, &cosine, &sine);
  *first = bits_of(radius * cosine);
  *second = bits_of(radius * sine);
}

static void add(const NoiseKey& key, float amount, float keep, float* to, std::int64_t n) {
  NoiseKey drawn = key, masked = key;
  drawn.seed ^= kGaussSeed;
  masked.seed ^= kMaskSeed;
  const bool sparse = keep < 1.0f;
  const std::uint32_t limit = sparse ? static_cast<std::uint32_t>(static_cast<double>(keep) * 4294967296.0) : 0u;
  for (std::int64_t i = 0; i < n; i += 4 * kLanes) {
    vu words[4], pairs[4], z[4], mask[4];
    philox_vectors(drawn, i, words);
    box_muller(words[0], words[1], pairs, pairs + 1);
    box_muller(words[2], words[3], pairs + 2, pairs + 3);
    in_order(pairs, z);
    if (sparse) {
      philox_vectors(masked, i, words);
      in_order(words, mask);
    }
    for (int j = 0; j < 4 && i + j * kLanes < n; ++j) {
      vf value = amount * float_of(z[j]);
      if (sparse) value = select(mask[j] < limit, value, vf{});
      float* const at = to + i + j * kLanes;
      const std::int64_t rest = n - (i + j * kLanes);
      if (rest >= kLanes) {
        store(at, load(at) + value);
      } else {
        store_part(at, load_part(at, static_cast<int>(rest)) + value, static_cast<int>(rest));
      }
    }
  }
}

}  // namespace

extern const GaussKernels kGauss;
const GaussKernels kGauss = {add};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
