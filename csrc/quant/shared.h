// Small things that the files of this folder share.
#pragma once

#include <cstdint>

#include "core/check.h"
#include "core/dtype.h"

namespace gramcore::quant {

inline constexpr std::int64_t kTile = 16;  // rows of an activation tile

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

inline void check_dtype(DType dtype, const char* name) {
  GC_CHECK_AS(TypeMismatch, dtype == DType::f32 || dtype == DType::bf16, name, " must be float32 or bfloat16, got ",
              dtype_name(dtype));
}

// Memory reused by the calls of one thread.
template <class Vector>
typename Vector::value_type* scratch(Vector* buffer, std::int64_t size) {
  if (buffer->size() < static_cast<std::size_t>(size)) buffer->resize(static_cast<std::size_t>(size));
  return buffer->data();
}

}  // namespace gramcore::quant
