// One pass over a stretch of a row: load, scale, fold into the moment, add up squares.  Row sums in four fp32
// accumulators over at most a block, then fp64; column sums in fp32 over the rows of one task.
#pragma once

#include "optim/kernels/rows.h"
#include "optim/kernels/vec.h"

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
  __builtin_prefetch(r.x + i + kAhead, 0);
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

static void scale(const float* x, const float* column, float factor, float* to, std::int64_t n) {
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    __builtin_prefetch(x + i + 384, 0);
    const vf u = factor * load(x + i);
    store(to + i, column ? u * load(column + i) : u);
  }
  for (; i < n; ++i) to[i] = factor * x[i] * (column ? column[i] : 1.0f);
}

}  // namespace

extern const RowsKernels kRows;
const RowsKernels kRows = {fold, scale};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
