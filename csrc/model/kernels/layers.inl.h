// Row-wise operators and out[m][r] = sum_k x[m][k] w[k][r] for a panel of 16 weight rows.
// Dense products keep four partial sums, over k = 0, 1, 2, 3 modulo 4, added as (0 + 1) + (2 + 3): one order for any
// number of rows, so a row's bits do not depend on the rows computed with it.  No alignment is needed.
#include "core/vec.h"
#include "model/kernels/layers.h"

namespace gramcore::model {
namespace GC_ISA_NS {

using namespace vec::GC_ISA_NS;

static float rms_factor(const float* x, float eps, std::int64_t n) {
  Vf squares[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
#pragma GCC unroll 4
    for (int u = 0; u < 4; ++u) {
      const Vf v = load(x + i + u * kLanes);
      squares[u] += v * v;
    }
  }
  float total = sum((squares[0] + squares[1]) + (squares[2] + squares[3]));
  for (; i < n; ++i) total += x[i] * x[i];
  return 1.0f / __builtin_sqrtf(total / static_cast<float>(n) + eps);
}

static void normalise(const float* x, float factor, const float* w, std::int64_t n, float* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = x[i] * factor * w[i];
}

static float weigh(const float* x, const float* w, std::int64_t n, float* y) {
  Vf squares[2] = {};
  std::int64_t i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
#pragma GCC unroll 2
    for (int u = 0; u < 2; ++u) {
      const Vf v = load(x + i + u * kLanes);
      squares[u] += v * v;
      store(y + i + u * kLanes, v * load(w + i + u * kLanes));
    }
  }
  float total = sum(squares[0] + squares[1]);
  for (; i < n; ++i) {
    total += x[i] * x[i];
    y[i] = x[i] * w[i];
  }
  return total;
}

static void affine(float* x, float factor, const float* bias, std::int64_t n) {
  if (bias) {
    for (std::int64_t i = 0; i < n; ++i) x[i] = x[i] * factor + bias[i];
  } else {
    for (std::int64_t i = 0; i < n; ++i) x[i] *= factor;
  }
}

static void to_halves(const float* x, std::int64_t n, f16* y) {
  std::int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= n; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(y + i), halves);
  }
#endif
  for (; i < n; ++i) y[i] = to_f16(x[i]);
}

static void rotate(float* x, const float* GC_RESTRICT cos, const float* GC_RESTRICT sin, std::int64_t half) {
  for (std::int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[half + i];
    x[i] = a * cos[i] - b * sin[i];
    x[half + i] = b * cos[i] + a * sin[i];
  }
}

GC_INLINE Vf swiglu_lanes(Vf gate, Vf up, float factor) {
  const Vf g = gate * factor;
  return g / (1.0f + exp(-g)) * (up * factor);
}

static void swiglu(const float* gate, const float* up, float factor, std::int64_t n, float* y) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(y + i, swiglu_lanes(load(gate + i), load(up + i), factor));
  if (i < n) {
    const int left = static_cast<int>(n - i);
    float out[kLanes];
    store(out, swiglu_lanes(load_partial(gate + i, left), load_partial(up + i, left), factor));
    for (int j = 0; j < left; ++j) y[i + j] = out[j];
  }
}

template <class T, int kRows>
static void dense_rows(const DensePanel& p, const float* x, float* out) {
  const T* weights = static_cast<const T*>(p.weights);
  for (int lane = 0; lane < 16; lane += kLanes) {
    Vf acc[kRows][4] = {};
    std::int64_t k = 0;
    for (; k + 4 <= p.k; k += 4) {
#pragma GCC unroll 4
      for (int u = 0; u < 4; ++u) {
        const Vf w = load_f32(weights + (k + u) * 16 + lane);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) acc[r][u] += w * splat(x[r * p.x_stride + k + u]);
      }
    }
    for (; k < p.k; ++k) {
      const Vf w = load_f32(weights + k * 16 + lane);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) acc[r][k & 3] += w * splat(x[r * p.x_stride + k]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) store(out + r * 16 + lane, (acc[r][0] + acc[r][1]) + (acc[r][2] + acc[r][3]));
  }
}

template <class T>
static void dense(const DensePanel& p) {
  std::int64_t r = 0;
  if constexpr (kLanes == 16) {
    for (; r + 4 <= p.rows; r += 4) dense_rows<T, 4>(p, p.x + r * p.x_stride, p.out + r * 16);
  }
  for (; r + 2 <= p.rows; r += 2) dense_rows<T, 2>(p, p.x + r * p.x_stride, p.out + r * 16);
  for (; r < p.rows; ++r) dense_rows<T, 1>(p, p.x + r * p.x_stride, p.out + r * 16);
}

extern const LayersKernels kLayers;
const LayersKernels kLayers = {rms_factor, normalise, rotate,       weigh,      affine,
                               swiglu,     to_halves, dense<float>, dense<bf16>};

}  // namespace GC_ISA_NS
}  // namespace gramcore::model
