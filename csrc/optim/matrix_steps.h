// Steps of whole fp32 matrices that treat parts of a row differently: FRUGAL's columns, GWT's runs.  Rows are shared
// out over the pool, and each is brought through the first-level cache once per pass.
#pragma once

#include <cstdint>

#include "core/span.h"
#include "optim/engine.h"

namespace gramcore::optim {

// Param and grad (rows, cols); m and v (rows, width).
struct MatrixStep {
  float* param = nullptr;
  const float* grad = nullptr;
  float* m = nullptr;
  float* v = nullptr;
  std::int64_t rows = 0, cols = 0, width = 0;
};

// Adam with coefficients `inside` (see rule_coefs) on the columns of `index`, which are distinct; the rule sign with
// `outside` on the others.
void step_columns(const MatrixStep& step, Span<const std::int64_t> index, const float* inside, const float* outside);

// GWT in two passes, runs of 2^level columns.  The first folds the coefficients r of c[0] times the gradient into the
// moments by the Adam coefficients c, whose c[7..9] make N = m / (sqrt(v) + eps), and returns the sum of N squared.
double haar_moments(const MatrixStep& step, int level, const float* c);

struct HaarLift {
  float grad_scale = 1, factor = 1, eps = 0;  // u = factor (grad_scale g - up(r) + up(m)) / (sqrt(v) + eps), by run
  float lr = 0, decay[2] = {};                // p += decay[0] p;  p -= lr u;  p += decay[1] p
};
void haar_step(const MatrixStep& step, int level, const HaarLift& lift);

// Adam with one second moment per block of s.width elements (s.rows blocks; s.v one number each, s.m as param).  A
// block is folded into its moments and stepped while it is in the second-level cache.
struct BlockAdam {
  float grad_scale = 1, weight1 = 0, weight2 = 0;    // 1 - beta1, 1 - beta2
  float lr = 0, scale2 = 1, eps = 0, decay[2] = {};  // p -= lr m / (sqrt(v) scale2 + eps), between the decays
};
void step_blocks(const MatrixStep& s, const BlockAdam& numbers);

}  // namespace gramcore::optim
