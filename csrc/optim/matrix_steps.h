// Steps of whole matrices that treat parts of a row differently: FRUGAL's columns and entries, GWT's runs.  Rows are
// shared out over the pool in bands, and each is brought through the first-level cache once per pass.
#pragma once

#include <cstdint>

#include "core/span.h"
#include "optim/engine.h"

namespace gramcore::optim {

// Param and grad (rows, cols); moments (rows, width), both stored alike.
struct MatrixStep {
  void* param = nullptr;
  void* param_low = nullptr;  // bf16 remainder of a compensated parameter, or null
  const void* grad = nullptr;
  Storage param_storage = Storage::f32, grad_storage = Storage::f32;
  Slot moment[2];
  std::int64_t rows = 0, cols = 0, width = 0;
  bool stochastic = false;  // rounds bf16 by bits named by `noise`, whose tensor names the matrix
  NoiseKey noise = {};
};

// Adam with coefficients `inside` (see rule_coefs) on the columns of `index`, which are distinct; the rule sign with
// `outside` on the others.
void step_columns(const MatrixStep& step, Span<const std::int64_t> index, const float* inside, const float* outside);

// As step_columns, with columns of its own for each row: bit j % 8 of byte j / 8 of the row's (cols + 7) / 8 says
// whether column j is one of them.  Every row has `width`.
void step_entries(const MatrixStep& step, const std::uint8_t* mask, const float* inside, const float* outside);
// Whether every row of such a mask has `width` bits, all of columns.
bool entries_fit(const MatrixStep& step, Span<const std::uint8_t> mask);

// Folds the rows r of c[0] times the gradient into the moments by the Adam coefficients c, whose c[7..9] make
// N = m / (sqrt(v) + eps); the norms of r (unscaled) and of N by row.  s.width is s.cols.
void rule_norms(const MatrixStep& s, const float* c, float* inputs, float* steps);

// GWT in two passes, runs of 2^level columns.  The first folds the coefficients r of c[0] times the gradient into the
// moments by the Adam coefficients c, whose c[7..9] make N = m / (sqrt(v) + eps), and returns the sum of N squared.
double haar_moments(const MatrixStep& step, int level, const float* c);

struct HaarLift {
  float grad_scale = 1, factor = 1, eps = 0;  // u = factor (grad_scale g - up(r) + up(m)) / (sqrt(v) + eps), by run
  float lr = 0, decay[2] = {};                // p += decay[0] p;  p -= lr u;  p += decay[1] p
};
void haar_step(const MatrixStep& step, int level, const HaarLift& lift);

// Adam with one second moment per block of s.cols elements (s.rows blocks; v one number each, the first moment as
// param).  A block is folded into its moments and stepped while it is in the second-level cache.
struct BlockAdam {
  float grad_scale = 1, weight1 = 0, weight2 = 0;    // 1 - beta1, 1 - beta2
  float lr = 0, scale2 = 1, eps = 0, decay[2] = {};  // p -= lr m / (sqrt(v) scale2 + eps), between the decays
};
void step_blocks(const MatrixStep& s, float* v, const BlockAdam& numbers);

}  // namespace gramcore::optim
