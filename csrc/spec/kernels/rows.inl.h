// Argmax and exponentials of one logits row.  Work is split over 64 fixed lanes whatever the instruction set, every
// multiply-add is written as a fused one, and lane sums are added in one order: results are the same bits at every
// level.  exp: x = k ln2 + r, |r| <= ln2/2, degree-6 polynomial in r (relative error < 3e-7), 2^k by the exponent bits.
#include "spec/kernels/rows.h"

namespace gramcore::spec {
namespace GC_ISA_NS {

constexpr std::int64_t kLanes = 64;

GC_INLINE float exp_lane(float y) {
  y = y > 88.0f ? 88.0f : y;
  const bool alive = y > -87.0f;  // false for NaN too
  const float safe = alive ? y : 0.0f;
  const float shifted = __builtin_fmaf(safe, 1.44269504f, 12582912.0f);  // rounds to an integer in the low bits
  const float k = shifted - 12582912.0f;
  float r = __builtin_fmaf(k, -0.693359375f, safe);
  r = __builtin_fmaf(k, 2.12194440e-4f, r);
  float p = 1.3981999507e-3f;
  p = __builtin_fmaf(p, r, 8.3334519073e-3f);
  p = __builtin_fmaf(p, r, 4.1665795894e-2f);
  p = __builtin_fmaf(p, r, 1.6666665459e-1f);
  p = __builtin_fmaf(p, r, 5.0000001201e-1f);
  p = __builtin_fmaf(p, r * r, r) + 1.0f;
  const std::uint32_t power = (bits::of(shifted) - 0x4b400000u + 127u) << 23;
  return alive ? p * bits::to_float(power) : 0.0f;
}

template <class T>
static std::int64_t argmax(const T* GC_RESTRICT x, std::int64_t n, float* value) {
  const float kLowest = -__builtin_inff();
  float best[kLanes];
  std::int32_t where[kLanes];
  for (std::int64_t l = 0; l < kLanes; ++l) {
    best[l] = kLowest;
    where[l] = -1;
  }
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const std::int32_t block = static_cast<std::int32_t>(i / kLanes);
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const float v = to_f32(x[i + l]);
      const bool take = v > best[l];
      best[l] = take ? v : best[l];
      where[l] = take ? block : where[l];
    }
  }
  float top = kLowest;
  std::int64_t index = -1;
  for (std::int64_t l = 0; l < kLanes; ++l) {
    if (where[l] < 0) continue;
    const std::int64_t at = std::int64_t{where[l]} * kLanes + l;
    if (best[l] > top || (best[l] == top && (index < 0 || at < index))) {
      top = best[l];
      index = at;
    }
  }
  for (; i < n; ++i) {
    const float v = to_f32(x[i]);
    if (v > top) {
      top = v;
      index = i;
    }
  }
  *value = top;
  return index;
}

// kStore: out receives the exponentials.
template <bool kStore, class T>
static double exponentials(const T* GC_RESTRICT x, std::int64_t n, float shift, float scale, float* GC_RESTRICT out) {
  double sums[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::int64_t l = 0; l < kLanes; ++l) {
      const float e = exp_lane((to_f32(x[i + l]) - shift) * scale);
      if (kStore) out[i + l] = e;
      sums[l] += static_cast<double>(e);
    }
  }
  for (std::int64_t l = 0; i < n; ++i, ++l) {
    const float e = exp_lane((to_f32(x[i]) - shift) * scale);
    if (kStore) out[i] = e;
    sums[l] += static_cast<double>(e);
  }
  double total = 0;
  for (std::int64_t l = 0; l < kLanes; ++l) total += sums[l];
  return total;
}

template <class T>
static double exp_sum(const T* x, std::int64_t n, float shift, float scale) {
  return exponentials<false>(x, n, shift, scale, nullptr);
}

extern const RowsKernels kRows;
const RowsKernels kRows = {argmax<float>,
                           argmax<bf16>,
                           argmax<f16>,
                           exponentials<true, float>,
                           exponentials<true, bf16>,
                           exponentials<true, f16>,
                           exp_sum<float>,
                           exp_sum<bf16>,
                           exp_sum<f16>};

}  // namespace GC_ISA_NS
}  // namespace gramcore::spec
