#include "core/dtype.h"

#include <string>

namespace gramcore {

std::string shape_string(const TensorView& t) {
  std::string text = "(";
  for (int i = 0; i < t.rank; ++i) text += (i ? ", " : "") + std::to_string(t.shape[i]);
  return text + ")";
}

void check_tensor(const TensorView& t, const char* name, DType dtype, int rank) {
  GC_CHECK_AS(TypeMismatch, t.dtype == dtype, name, " must have dtype ", dtype_name(dtype), ", got ",
              dtype_name(t.dtype), " ", shape_string(t));
  GC_CHECK(rank < 0 || t.rank == rank, name, " must have ", rank, " dimension(s), got shape ", shape_string(t));
}

void check_contiguous(const TensorView& t, const char* name) {
  GC_CHECK(t.is_contiguous(), name, " must be contiguous, got strides that are not, shape ", shape_string(t),
           "; call .contiguous() first");
}

void check_cpu(const TensorView& t, const char* name) {
  GC_CHECK_AS(TypeMismatch, t.device < 0, name, " must be on the CPU, got cuda:", t.device, "; call .cpu() first");
}

}  // namespace gramcore
