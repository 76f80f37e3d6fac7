// Steps along a matrix that was lifted from a subspace, without forming the whole of it.
#pragma once

#include "optim/matrix_steps.h"
#include "optim/product.h"

namespace gramcore::optim {

// p += decay[0] p;  p -= lr (lifted + phi grad);  p += decay[1] p.  Param, its remainder and grad are parts of larger
// matrices; moments are not looked at.
struct LiftedStep {
  const float* phi = nullptr;  // a number per row, or per column; null for zeros
  bool by_row = true;
  float lr = 0, decay[2] = {};
  std::int64_t stride = 0, grad_stride = 0;      // elements from a row to the next: param and remainder, grad
  std::int64_t first_row = 0, first_column = 0;  // in the larger matrix, names random bits; the column is 128 k
};
// lifted: (rows, cols), contiguous.
void step_lifted(const MatrixStep& s, const LiftedStep& step, const void* lifted, Storage lifted_storage);
// lifted is the product, whose blocks are stepped along while they are in the caches.
void step_lifted(const MatrixStep& s, const LiftedStep& step, const Product& lifted);

}  // namespace gramcore::optim
