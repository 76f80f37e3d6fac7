// Tensor arguments of bound functions.  `TensorArg` accepts a torch tensor (DLPack C exchange API, no copy,
// 0.2 us), a NumPy array or any object with the buffer protocol or __dlpack__; it never copies or casts.
// It borrows: the Python argument keeps the memory alive for the duration of the call.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <vector>

#include "core/dtype.h"
#include "core/span.h"

namespace gramcore {

class TensorArg {
 public:
  // Throws TypeMismatch when `object` is not a tensor of a supported dtype.
  explicit TensorArg(pybind11::handle object);

  const TensorView& view() const { return view_; }
  bool writable() const { return writable_; }

  // A flat span of T: checks dtype, CPU and contiguity (and writability for non-const T).
  template <class T>
  Span<T> span(const char* name, int rank = -1) const {
    check(name, DTypeOf<std::remove_const_t<T>>::value, rank, !std::is_const_v<T>);
    return {static_cast<T*>(view_.data), static_cast<std::size_t>(view_.numel())};
  }
  // The view after the same checks, for strided use (`contiguous` false) or a CUDA device (`cpu` false).
  const TensorView& checked(const char* name, DType dtype, int rank, bool write) const {
    check(name, dtype, rank, write);
    return view_;
  }

 private:
  void check(const char* name, DType dtype, int rank, bool write) const;
  bool from_exchange_api(pybind11::handle object);
  bool from_buffer(pybind11::handle object);
  bool from_dlpack_method(pybind11::handle object);
  void set(const void* dl_tensor);

  TensorView view_;
  bool writable_ = true;
  pybind11::object keep_;  // buffer or capsule that must outlive the view
};

// A list or tuple of tensors.
std::vector<TensorArg> tensor_list(pybind11::handle objects, const char* name);

}  // namespace gramcore

namespace pybind11::detail {
template <>
struct type_caster<gramcore::TensorArg> {
 public:
  static constexpr auto name = const_name("typing.Any");
  bool load(handle source, bool) {
    if (source.is_none()) return false;
    value_.emplace(source);
    return true;
  }
  template <class>
  using cast_op_type = gramcore::TensorArg&;
  operator gramcore::TensorArg&() { return *value_; }

 private:
  std::optional<gramcore::TensorArg> value_;
};
}  // namespace pybind11::detail
