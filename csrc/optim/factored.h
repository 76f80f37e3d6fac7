// Row and column statistics of a stack of matrices in one pass, with an update of a first moment in the same pass.
#pragma once

#include <cstdint>

#include "core/span.h"
#include "optim/engine.h"

namespace gramcore::optim {

// Matrices (count, rows, cols), contiguous.  u = scale * x * row * column, see kernels/rows.h for the rest.
struct FactoredPass {
  const void* x = nullptr;
  Storage x_storage = Storage::f32;
  float* m = nullptr;             // (count, rows, cols) or null
  const float* row = nullptr;     // (count, rows), or null for ones
  const float* column = nullptr;  // (count, cols), or null for ones
  std::int64_t count = 1, rows = 0, cols = 0;
  float scale = 1, weight = 0, eps = 0;
  bool residual = false;
};

// Means of the statistic over columns and over rows: row_means (count, rows), column_means (count, cols).  The result
// does not depend on the number of threads.
void factored_pass(const FactoredPass& pass, Span<float> row_means, Span<float> column_means);

// Sum of (scale x row column)^2; other fields are not looked at.  Does not depend on the number of threads.
double scaled_squares(const FactoredPass& pass);

// A whole step of a stack of matrices with factored second moments (Adafactor, CAME).  R and C are running means of
// (scale x)^2 + eps over columns and over rows, u = scale x / root(R C / mean R), divided by max(1, RMS(u) / clip).
// Without a momentum p moves by -lr times u; with one, by m / root of the factored running mean of (u - m)^2 + eps2.
// Decay comes first: p += -lr weight_decay p.  lr is multiplied by max(least_rms, RMS(p)) unless least_rms < 0.
struct FactoredStep {
  StepTensor tensor;  // parameter and gradient; row-major
  std::int64_t count = 1, rows = 0, cols = 0;
  float *row = nullptr, *column = nullptr;                                  // R (count, rows) and C (count, cols)
  float *m = nullptr, *unstable_row = nullptr, *unstable_column = nullptr;  // m (count, rows, cols) or null
  double scale = 1, lr = 0, weight_decay = 0, clip = 1, least_rms = -1;
  double weight1 = 0, weight2 = 0, weight3 = 0, eps = 0, eps2 = 0;  // weights of what is new: m, R and C, instability
  bool stochastic = false;
  std::uint64_t seed = 0;
};
void factored_step(const FactoredStep& step);

// Rank 1: result[i] = sum over j of x[i, j] weights[j], or with `along_rows` false result[j] = sum over i of x[i, j]
// weights[i], for one matrix.  Returns the sum of squares of x; neither depends on the number of threads.
struct LineProjection {
  const void* x = nullptr;
  Storage x_storage = Storage::f32;
  const float* weights = nullptr;
  std::int64_t rows = 0, cols = 0;
  bool along_rows = true;
};
double project_line(const LineProjection& p, float* result);

}  // namespace gramcore::optim
