// Runs shorter than a vector are summed by exchanging lanes, and spread by a permutation; longer ones are whole
// vectors. Each element is read once; coefficients stay in the first-level cache.
#pragma once

#include "optim/kernels/haar.h"
#include "optim/kernels/vec.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

GC_INLINE vi lane_numbers() {
  vi lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane;
}
GC_INLINE vf permute(vf x, vi lanes) {
#if defined(__AVX512F__)
  return reinterpret_cast<vf>(_mm512_permutexvar_ps(reinterpret_cast<__m512i>(lanes), reinterpret_cast<__m512>(x)));
#elif defined(__AVX2__)
  return reinterpret_cast<vf>(_mm256_permutevar8x32_ps(reinterpret_cast<__m256>(x), reinterpret_cast<__m256i>(lanes)));
#else
  vf y;
  for (int i = 0; i < kLanes; ++i) y[i] = x[lanes[i]];
  return y;
#endif
}

constexpr int log2_of(int n) {
  return n == 1 ? 0 : 1 + log2_of(n / 2);
}
constexpr int kLaneBits = log2_of(kLanes);

// Runs within a vector: kLanes >> level of them.
static void down_short(const float* g, int level, float spread, float* r, std::int64_t n) {
  const vi lane = lane_numbers();
  vi partner[kLaneBits] = {};
  for (int k = 0; k < level; ++k) partner[k] = lane ^ (1 << k);
  const vi first = (lane << level) & (kLanes - 1);
  const std::int64_t step = kLanes >> level;
  for (std::int64_t i = 0; i < n; i += kLanes, r += step) {
    __builtin_prefetch(g + i + 512, 0);
    vf x = i + kLanes <= n ? load(g + i) : load_part(g + i, static_cast<int>(n - i));
    for (int k = 0; k < level; ++k) x += permute(x, partner[k]);
    store(r, permute(x, first) * spread);  // what follows the runs is overwritten by the next ones
  }
}

static void down(const float* g, int level, float spread, float* r, std::int64_t n) {
  if (level < kLaneBits) return down_short(g, level, spread, r, n);
  const std::int64_t width = std::int64_t{1} << level;
  for (std::int64_t begin = 0; begin < n; begin += width, ++r) {
    const std::int64_t end = begin + width < n ? begin + width : n;
    vf sum[2] = {};
    std::int64_t i = begin;
    for (; i + 2 * kLanes <= end; i += 2 * kLanes) {
      sum[0] += load(g + i);
      sum[1] += load(g + i + kLanes);
    }
    double total = reduce_add(sum[0] + sum[1]);
    for (; i < end; ++i) total += static_cast<double>(g[i]);
    *r = static_cast<float>(total) * spread;
  }
}

static void weigh(const float* m, const float* v, float* r, float* weight, const HaarScale& scale, std::int64_t runs) {
  std::int64_t i = 0;
  for (; i + kLanes <= runs; i += kLanes) {
    const vf w = fast_div(splat(scale.factor), fast_sqrt(load(v + i)) + scale.eps);
    store(weight + i, w);
    store(r + i, (load(m + i) - load(r + i)) * w * scale.spread);
  }
  if (i == runs) return;
  const int rest = static_cast<int>(runs - i);
  const vf w = fast_div(splat(scale.factor), fast_sqrt(load_part(v + i, rest)) + scale.eps);
  store(weight + i, w);
  store(r + i, (load_part(m + i, rest) - load(r + i)) * w * scale.spread);
}

GC_INLINE vf stepped(vf p, vf g, vf weight, vf offset, const float* decay, float lr) {
  p += decay[0] * p;
  p -= lr * (weight * g + offset);
  return p + decay[1] * p;
}

static void lift(float* p, const float* g, const float* weight, const float* offset, int level, const float* decay,
                 float lr, std::int64_t n) {
  const bool narrow = level < kLaneBits;
  const vi own = narrow ? lane_numbers() >> level : vi{};
  for (std::int64_t i = 0; i < n; i += kLanes) {
    const std::int64_t run = i >> level;
    const vf w = narrow ? permute(load(weight + run), own) : splat(weight[run]);
    const vf o = narrow ? permute(load(offset + run), own) : splat(offset[run]);
    __builtin_prefetch(p + i + 512, 1);
    if (i + kLanes <= n) {
      store(p + i, stepped(load(p + i), load(g + i), w, o, decay, lr));
    } else {
      const int rest = static_cast<int>(n - i);
      store_part(p + i, stepped(load_part(p + i, rest), load_part(g + i, rest), w, o, decay, lr), rest);
    }
  }
}

}  // namespace

extern const HaarKernels kHaar;
const HaarKernels kHaar = {down, weigh, lift};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
