// Token ids from Python: lists, tuples and integer arrays of any width and stride.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <vector>

#include "bind/tensor_arg.h"
#include "core/span.h"

namespace gramcore::ngram {

namespace py = pybind11;

template <class T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// Token ids from an int or a list/tuple/range of ints or a one-dimensional integer array, as T, each in [low, high].
template <class T>
class IdList {
 public:
  IdList(py::handle object, const char* name, std::int64_t low, std::int64_t high) {
    if (PyList_Check(object.ptr()) || PyTuple_Check(object.ptr())) {
      const py::ssize_t n = PySequence_Fast_GET_SIZE(object.ptr());
      PyObject** items = PySequence_Fast_ITEMS(object.ptr());
      values_.reserve(static_cast<std::size_t>(n));
      for (py::ssize_t i = 0; i < n; ++i) push(integer(items[i], name), name, low, high);
      span_ = values_;
      return;
    }
    const TensorArg arg(object);
    const TensorView& view = arg.view();
    GC_CHECK_AS(TypeMismatch, view.rank == 1, name, " must be one-dimensional, got shape ", shape_string(view));
    check_cpu(view, name);
    values_.reserve(static_cast<std::size_t>(view.shape[0]));
    switch (view.dtype) {
      case DType::u8: fill<std::uint8_t>(view, name, low, high); break;
      case DType::u16: fill<std::uint16_t>(view, name, low, high); break;
      case DType::u32: fill<std::uint32_t>(view, name, low, high); break;
      case DType::u64: fill<std::uint64_t>(view, name, low, high); break;
      case DType::i8: fill<std::int8_t>(view, name, low, high); break;
      case DType::i16: fill<std::int16_t>(view, name, low, high); break;
      case DType::i32: fill<std::int32_t>(view, name, low, high); break;
      case DType::i64: fill<std::int64_t>(view, name, low, high); break;
      default: throw TypeMismatch(cat(name, " must be integers, got ", dtype_name(view.dtype)));
    }
    span_ = values_;
  }
  Span<const T> span() const { return span_; }

 private:
  static std::int64_t integer(PyObject* item, const char* name) {
    if (PyFloat_Check(item) || PyBool_Check(item)) {
      throw TypeMismatch(cat(name, " must be integers, got ", Py_TYPE(item)->tp_name));
    }
    const long long value = PyLong_AsLongLong(item);  // also takes NumPy integers, through __index__
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
  }
  void push(std::int64_t value, const char* name, std::int64_t low, std::int64_t high) {
    GC_CHECK_AS(OutOfRange, value >= low && value <= high, name, " must be in [", low, ", ", high, "], got ", value,
                " (position ", values_.size(), ")");
    values_.push_back(static_cast<T>(value));
  }
  template <class In>
  void fill(const TensorView& view, const char* name, std::int64_t low, std::int64_t high) {
    const In* from = view.as<In>();
    for (std::int64_t i = 0; i < view.shape[0]; ++i) {
      const In value = from[i * view.stride[0]];
      GC_CHECK_AS(OutOfRange, sizeof(In) < 8 || static_cast<std::uint64_t>(value) >> 63 == 0 || std::is_signed_v<In>,
                  name, " must be < 2^63, got ", value);
      push(static_cast<std::int64_t>(value), name, low, high);
    }
  }
  std::vector<T> values_;
  Span<const T> span_;
};

inline constexpr std::int64_t kMaxId = 0x7fffffff;
inline constexpr std::int64_t kMaxQueryId = 0xffffffff;

using TokenIds = IdList<std::int32_t>;
using QueryIds = IdList<std::uint32_t>;

}  // namespace gramcore::ngram
