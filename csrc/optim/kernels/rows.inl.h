// One pass over a stretch of a row: load, scale, fold into the moment, add up squares.  Row sums in four fp32
// accumulators over at most a block, then fp64; column sums in fp32 over the rows of one task.
#pragma once

#include "optim/kernels/noise.h"
#include "optim/kernels/rows.h"
#include "optim/kernels/storage.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

template <bool kColumn, bool kMoment>
GC_INLINE vf fold_vector(const RowSpan& r, vf x, vf column, vf* m) {
  vf u = r.factor * x;
  if (kColumn) u = u * column;
  vf d = u;
  if (kMoment) {
    *m += r.weight * (u - *m);
    if (r.residual) d = u - *m;
  }
  return d * d + r.eps;
}

template <bool kColumn, bool kMoment>
GC_INLINE vf fold_at(const RowSpan& r, std::int64_t i) {
  constexpr std::int64_t kAhead = 384;  // rows follow each other in memory
  prefetch_stream(r.x + i);
  if (kMoment) __builtin_prefetch(r.m + i + kAhead, 1);
  vf m = kMoment ? load(r.m + i) : vf{};
  const vf s = fold_vector<kColumn, kMoment>(r, load(r.x + i), kColumn ? load(r.column + i) : vf{}, &m);
  if (kMoment) store(r.m + i, m);
  store(r.sums + i, load(r.sums + i) + s);
  return s;
}

template <bool kColumn, bool kMoment>
static double fold_row(const RowSpan& r) {
  vf total[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= r.n; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) total[k] += fold_at<kColumn, kMoment>(r, i + k * kLanes);
  }
  for (; i + kLanes <= r.n; i += kLanes) total[0] += fold_at<kColumn, kMoment>(r, i);
  double sum = reduce_add((total[0] + total[1]) + (total[2] + total[3]));
  if (i < r.n) {
    const int rest = static_cast<int>(r.n - i);
    vf m = kMoment ? load_part(r.m + i, rest) : vf{};
    const vf column = kColumn ? load_part(r.column + i, rest) : vf{};
    const vf s = fold_vector<kColumn, kMoment>(r, load_part(r.x + i, rest), column, &m);
    if (kMoment) store_part(r.m + i, m, rest);
    store_part(r.sums + i, load_part(r.sums + i, rest) + s, rest);
    for (int k = 0; k < rest; ++k) sum += static_cast<double>(s[k]);
  }
  return sum;
}

static double fold(const RowSpan& r) {
  if (r.column) return r.m ? fold_row<true, true>(r) : fold_row<true, false>(r);
  return r.m ? fold_row<false, true>(r) : fold_row<false, false>(r);
}

template <class P>
GC_INLINE void scale_stored(const typename P::T* x, const float* column, float factor, float* to, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    __builtin_prefetch(x + i + 384, 0);
    const vf u = factor * P::load(x + i);
    store(to + i, column ? u * load(column + i) : u);
  }
  if (i == n) return;
  const int rest = static_cast<int>(n - i);
  const vf u = factor * P::load_part(x + i, rest);
  store_part(to + i, column ? u * load_part(column + i, rest) : u, rest);
}
static void scale(const float* x, const float* column, float factor, float* to, std::int64_t n) {
  scale_stored<F32>(x, column, factor, to, n);
}
static void scale_bf16(const std::uint16_t* x, const float* column, float factor, float* to, std::int64_t n) {
  scale_stored<Bf16>(x, column, factor, to, n);
}

// Calls fn(place among the set bits, j) for set bits from j on.
template <class F>
GC_INLINE void over_bits(const std::uint8_t* bits, std::int64_t j, std::int64_t n, std::int64_t place, const F& fn) {
  for (; j < n; ++j) {
    if (bits[j / 8] >> (j % 8) & 1) fn(place++, j);
  }
}
#if defined(__AVX512F__)
GC_INLINE __mmask16 sixteen_bits(const std::uint8_t* bits, std::int64_t j) {
  std::uint16_t word;
  __builtin_memcpy(&word, bits + j / 8, sizeof word);
  return word;
}
#endif

static void gather(const float* x, const std::uint8_t* bits, float* chosen, std::int64_t n) {
  std::int64_t j = 0, place = 0;
#if defined(__AVX512F__)
  for (; j + kLanes <= n; j += kLanes) {
    prefetch_stream(x + j);  // the first to read the row
    const __mmask16 mask = sixteen_bits(bits, j);
    _mm512_storeu_ps(chosen + place, _mm512_maskz_compress_ps(mask, _mm512_loadu_ps(x + j)));
    place += __builtin_popcount(mask);
  }
#endif
  over_bits(bits, j, n, place, [&](std::int64_t k, std::int64_t at) { chosen[k] = x[at]; });
}

static void scatter(const float* chosen, const std::uint8_t* bits, float* x, std::int64_t n) {
  std::int64_t j = 0, place = 0;
#if defined(__AVX512F__)
  for (; j + kLanes <= n; j += kLanes) {
    const __mmask16 mask = sixteen_bits(bits, j);
    const __m512 values = _mm512_loadu_ps(chosen + place);
    _mm512_storeu_ps(x + j, _mm512_mask_expand_ps(_mm512_loadu_ps(x + j), mask, values));
    place += __builtin_popcount(mask);
  }
#endif
  over_bits(bits, j, n, place, [&](std::int64_t k, std::int64_t at) { x[at] = chosen[k]; });
}

template <class P, class X>
struct Descent {
  const RowStep& r;
  typename P::T* const p;
  const typename X::T* const x;
  __attribute__((always_inline)) vf of(vf value, vf step, vf column) const {
    value += r.before * value;
    value -= r.column ? r.factor * step * column : r.factor * step;
    return value + r.after * value;
  }
  __attribute__((always_inline)) void full(std::int64_t i, const vu* words) const {
    __builtin_prefetch(p + i + 384, 1);
    __builtin_prefetch(x + i + 384, 0);
    const vf column = r.column ? load(r.column + i) : vf{};
    P::store(p + i, of(P::load(p + i), X::load(x + i), column), words, 0);
  }
  __attribute__((always_inline)) void part(std::int64_t i, const vu* words) const {
    const int rest = static_cast<int>(r.n - i);
    const vf column = r.column ? load_part(r.column + i, rest) : vf{};
    P::store_part(p + i, of(P::load_part(p + i, rest), X::load_part(x + i, rest), column), rest, words, 0);
  }
};

template <class P, class X, bool kNoise>
static void descend(const RowStep& r) {
  const Descent<P, X> step{r, static_cast<typename P::T*>(r.p), static_cast<const typename X::T*>(r.x)};
  const RoundingVectors noise = kNoise ? RoundingVectors::of(r.key) : RoundingVectors{};
  std::int64_t i = 0;
  for (; i + kLanes <= r.n; i += kLanes) {
    const vu words = kNoise ? noise.words(i) : vu{};
    step.full(i, kNoise ? &words : nullptr);
  }
  if (i == r.n) return;
  const vu words = kNoise ? noise.words(i) : vu{};
  step.part(i, kNoise ? &words : nullptr);
}

static void add_scaled(const float* x, const float* column, float factor, float* to, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const vf u = factor * load(x + i);
    store(to + i, load(to + i) + (column ? u * load(column + i) : u));
  }
  if (i == n) return;
  const int rest = static_cast<int>(n - i);
  const vf u = factor * load_part(x + i, rest);
  store_part(to + i, load_part(to + i, rest) + (column ? u * load_part(column + i, rest) : u), rest);
}

// What `body` returns for whole vectors and then for the rest, added up in four accumulators.
template <class Body>
GC_INLINE double sum_over(std::int64_t n, const Body& body) {
  vf total[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) total[k] += body.full(i + k * kLanes);
  }
  for (; i + kLanes <= n; i += kLanes) total[0] += body.full(i);
  if (i < n) total[1] += body.part(i, static_cast<int>(n - i));
  return reduce_add((total[0] + total[1]) + (total[2] + total[3]));
}

struct Dot {
  const float *x, *column;
  vf* squares;
  __attribute__((always_inline)) vf of(vf v, vf c) const {
    *squares += v * v;
    return v * c;
  }
  __attribute__((always_inline)) vf full(std::int64_t i) const {
    prefetch_stream(x + i);
    return of(load(x + i), load(column + i));
  }
  __attribute__((always_inline)) vf part(std::int64_t i, int count) const {
    return of(load_part(x + i, count), load_part(column + i, count));
  }
};
static double dot(const float* x, const float* column, std::int64_t n, double* squares) {
  vf own = {};
  const double sum = sum_over(n, Dot{x, column, &own});
  *squares += reduce_add(own);
  return sum;
}

struct Squares {
  const float *x, *column;
  __attribute__((always_inline)) vf of(vf v) const { return v * v; }
  __attribute__((always_inline)) vf full(std::int64_t i) const {
    prefetch_stream(x + i);
    return of(load(x + i) * load(column + i));
  }
  __attribute__((always_inline)) vf part(std::int64_t i, int count) const {
    return of(load_part(x + i, count) * load_part(column + i, count));
  }
};
static double squares(const float* x, const float* column, std::int64_t n) {
  return sum_over(n, Squares{x, column});
}

struct Accumulate {
  const float* x;
  float factor;
  float* sums;
  __attribute__((always_inline)) vf full(std::int64_t i) const {
    prefetch_stream(x + i);
    const vf v = load(x + i);
    store(sums + i, load(sums + i) + factor * v);
    return v * v;
  }
  __attribute__((always_inline)) vf part(std::int64_t i, int count) const {
    const vf v = load_part(x + i, count);
    store_part(sums + i, load_part(sums + i, count) + factor * v, count);
    return v * v;
  }
};
static double accumulate(const float* x, float factor, float* sums, std::int64_t n) {
  return sum_over(n, Accumulate{x, factor, sums});
}

struct Moment {
  const float* x;
  float factor, weight;
  float* m;
  __attribute__((always_inline)) vf full(std::int64_t i) const {
    prefetch_stream(x + i);
    __builtin_prefetch(m + i + 512, 1);
    const vf u = factor * load(x + i), old = load(m + i);
    store(m + i, old + weight * (u - old));
    return u * u;
  }
  __attribute__((always_inline)) vf part(std::int64_t i, int count) const {
    const vf u = factor * load_part(x + i, count), old = load_part(m + i, count);
    store_part(m + i, old + weight * (u - old), count);
    return u * u;
  }
};
static double moment(const float* x, float factor, float weight, float* m, std::int64_t n) {
  return sum_over(n, Moment{x, factor, weight, m});
}

}  // namespace

extern const RowsKernels kRows;
const RowsKernels kRows = {fold,
                           scale,
                           scale_bf16,
                           gather,
                           scatter,
                           {descend<F32, F32, false>, descend<Bf16, Bf16, false>, descend<Bf16, F32, false>,
                            descend<Bf16, Bf16, true>, descend<Bf16, F32, true>},
                           add_scaled,
                           dot,
                           accumulate,
                           squares,
                           moment};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
