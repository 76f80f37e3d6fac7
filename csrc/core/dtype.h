// Element types that cross the boundary, and a description of a strided array of one of them.
#pragma once

#include <cstdint>
#include <string>

#include "core/check.h"
#include "core/half.h"

namespace gramcore {

enum class DType : std::uint8_t { f32, f64, bf16, f16, i8, u8, i16, u16, i32, u32, i64, u64, boolean };

constexpr int dtype_bytes(DType t) {
  switch (t) {
    case DType::f64:
    case DType::i64:
    case DType::u64: return 8;
    case DType::f32:
    case DType::i32:
    case DType::u32: return 4;
    case DType::bf16:
    case DType::f16:
    case DType::i16:
    case DType::u16: return 2;
    default: return 1;
  }
}

constexpr const char* dtype_name(DType t) {
  constexpr const char* names[] = {"float32", "float64", "bfloat16", "float16", "int8",   "uint8", "int16",
                                   "uint16",  "int32",   "uint32",   "int64",   "uint64", "bool"};
  return names[static_cast<int>(t)];
}

template <class T>
struct DTypeOf;
template <>
struct DTypeOf<float> {
  static constexpr DType value = DType::f32;
};
template <>
struct DTypeOf<double> {
  static constexpr DType value = DType::f64;
};
template <>
struct DTypeOf<bf16> {
  static constexpr DType value = DType::bf16;
};
template <>
struct DTypeOf<f16> {
  static constexpr DType value = DType::f16;
};
template <>
struct DTypeOf<std::int8_t> {
  static constexpr DType value = DType::i8;
};
template <>
struct DTypeOf<std::uint8_t> {
  static constexpr DType value = DType::u8;
};
template <>
struct DTypeOf<std::int16_t> {
  static constexpr DType value = DType::i16;
};
template <>
struct DTypeOf<std::uint16_t> {
  static constexpr DType value = DType::u16;
};
template <>
struct DTypeOf<std::int32_t> {
  static constexpr DType value = DType::i32;
};
template <>
struct DTypeOf<std::uint32_t> {
  static constexpr DType value = DType::u32;
};
template <>
struct DTypeOf<std::int64_t> {
  static constexpr DType value = DType::i64;
};
template <>
struct DTypeOf<std::uint64_t> {
  static constexpr DType value = DType::u64;
};
template <>
struct DTypeOf<bool> {
  static constexpr DType value = DType::boolean;
};

// A borrowed strided array on the CPU or a CUDA device.  Strides count elements.
struct TensorView {
  static constexpr int kMaxRank = 8;

  void* data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t stride[kMaxRank] = {};
  int device = -1;  // -1: CPU, else the CUDA device index

  std::int64_t numel() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }
  bool is_contiguous() const {
    std::int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (shape[i] != 1 && stride[i] != expected) return false;
      expected *= shape[i];
    }
    return true;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

std::string shape_string(const TensorView& t);  // "(2, 3)"

// Throws TypeMismatch / InvalidArgument naming the argument.  `rank` -1 accepts any.
void check_tensor(const TensorView& t, const char* name, DType dtype, int rank);
void check_contiguous(const TensorView& t, const char* name);
void check_cpu(const TensorView& t, const char* name);

}  // namespace gramcore
