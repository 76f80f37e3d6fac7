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
