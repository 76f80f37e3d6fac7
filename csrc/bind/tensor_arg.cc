#include "bind/tensor_arg.h"

#include <pybind11/numpy.h>

#include <string>

#include "bind/dlpack.h"

namespace py = pybind11;

namespace gramcore {
namespace {

DType dtype_from_dlpack(const dlpack::DataType& t) {
  if (t.lanes == 1) {
    switch (t.code) {
      case 0:
        if (t.bits == 8) return DType::i8;
        if (t.bits == 16) return DType::i16;
        if (t.bits == 32) return DType::i32;
        if (t.bits == 64) return DType::i64;
        break;
      case 1:
        if (t.bits == 8) return DType::u8;
        if (t.bits == 16) return DType::u16;
        if (t.bits == 32) return DType::u32;
        if (t.bits == 64) return DType::u64;
        break;
      case 2:
        if (t.bits == 16) return DType::f16;
        if (t.bits == 32) return DType::f32;
        if (t.bits == 64) return DType::f64;
        break;
      case 4:
        if (t.bits == 16) return DType::bf16;
        break;
      case 6:
        if (t.bits == 8) return DType::boolean;
        break;
      default: break;
    }
  }
  throw TypeMismatch(cat("tensor dtype must be a float, integer, bfloat16 or bool type of 1-8 bytes, got DLPack code ",
                         int{t.code}, " with ", int{t.bits}, " bits"));
}

DType dtype_from_buffer(const py::buffer_info& info) {
  const char kind = info.format.empty() ? 'B' : info.format.back();
  const auto size = info.itemsize;
  switch (kind) {
    case 'f':
    case 'd': return size == 4 ? DType::f32 : DType::f64;
    case 'e': return DType::f16;
    case '?': return DType::boolean;
    case 'b':
    case 'h':
    case 'i':
    case 'l':
    case 'q': return size == 1 ? DType::i8 : size == 2 ? DType::i16 : size == 4 ? DType::i32 : DType::i64;
    case 'B':
    case 'c':
    case 'H':
    case 'I':
    case 'L':
    case 'Q': return size == 1 ? DType::u8 : size == 2 ? DType::u16 : size == 4 ? DType::u32 : DType::u64;
    default: break;
  }
  throw TypeMismatch(cat("array dtype must be a float, integer or bool type, got buffer format '", info.format, "'"));
}

const dlpack::ExchangeApi* exchange_api(PyTypeObject* type) {
  // Types are few and live as long as their framework: remember the last answer.
  static PyTypeObject* last_type = nullptr;
  static const dlpack::ExchangeApi* last_api = nullptr;
  if (type == last_type) return last_api;
  const auto capsule = py::getattr(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__", py::none());
  const dlpack::ExchangeApi* api = nullptr;
  if (PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) {
    api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
    if (api->header.version.major != 1 || !api->tensor_from_object) api = nullptr;
  }
  Py_INCREF(type);  // keeps the address from being reused by another type
  last_type = type;
  last_api = api;
  return api;
}

}  // namespace

void TensorArg::set(const void* raw) {
  const auto& t = *static_cast<const dlpack::Tensor*>(raw);
  GC_CHECK(t.ndim <= TensorView::kMaxRank, "tensor must have at most ", TensorView::kMaxRank, " dimensions, got ",
           t.ndim);
  view_.data = static_cast<char*>(t.data) + t.byte_offset;
  view_.dtype = dtype_from_dlpack(t.dtype);
  view_.rank = t.ndim;
  std::int64_t dense = 1;
  for (int i = t.ndim - 1; i >= 0; --i) {
    view_.shape[i] = t.shape[i];
    view_.stride[i] = t.strides ? t.strides[i] : dense;
    dense *= t.shape[i];
  }
  GC_CHECK_AS(TypeMismatch, t.device.type == 1 || t.device.type == 2 || t.device.type == 3 || t.device.type == 13,
              "tensor must be on the CPU or a CUDA device, got DLPack device type ", t.device.type);
  view_.device = t.device.type == 2 || t.device.type == 13 ? t.device.id : -1;
}

bool TensorArg::from_exchange_api(py::handle object) {
  const auto* api = exchange_api(Py_TYPE(object.ptr()));
  if (!api) return false;
  dlpack::Tensor tensor{};
  if (api->tensor_from_object(object.ptr(), &tensor) != 0) throw py::error_already_set();
  set(&tensor);
  return true;
}

bool TensorArg::from_buffer(py::handle object) {
  if (!PyObject_CheckBuffer(object.ptr())) return false;
  auto* raw = new Py_buffer();
  if (PyObject_GetBuffer(object.ptr(), raw, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    delete raw;
    throw py::error_already_set();
  }
  const py::buffer_info info(raw);  // owns raw
  GC_CHECK(info.ndim <= TensorView::kMaxRank, "array must have at most ", TensorView::kMaxRank, " dimensions, got ",
           info.ndim);
  view_.data = info.ptr;
  view_.dtype = dtype_from_buffer(info);
  view_.rank = static_cast<int>(info.ndim);
  for (int i = 0; i < view_.rank; ++i) {
    const auto axis = static_cast<std::size_t>(i);
    view_.shape[i] = info.shape[axis];
    GC_CHECK(info.strides[axis] % info.itemsize == 0, "array strides must be multiples of the item size ",
             info.itemsize, ", got ", info.strides[axis]);
    view_.stride[i] = info.strides[axis] / info.itemsize;
  }
  writable_ = !info.readonly;
  keep_ = py::reinterpret_borrow<py::object>(object);
  return true;
}

bool TensorArg::from_dlpack_method(py::handle object) {
  if (!py::hasattr(object, "__dlpack__")) return false;
  keep_ = object.attr("__dlpack__")();
  if (!PyCapsule_IsValid(keep_.ptr(), "dltensor")) return false;
  set(PyCapsule_GetPointer(keep_.ptr(), "dltensor"));
  return true;
}

TensorArg::TensorArg(py::handle object) {
  if (from_exchange_api(object) || from_buffer(object) || from_dlpack_method(object)) return;
  throw TypeMismatch(
      cat("argument must be a torch tensor, a NumPy array or support DLPack, got ", Py_TYPE(object.ptr())->tp_name));
}

void TensorArg::check(const char* name, DType dtype, int rank, bool write) const {
  check_tensor(view_, name, dtype, rank);
  check_cpu(view_, name);
  check_contiguous(view_, name);
  GC_CHECK(!write || writable_, name, " must be writable, got a read-only array; pass a copy");
}

std::vector<TensorArg> tensor_list(py::handle objects, const char* name) {
  GC_CHECK_AS(TypeMismatch, py::isinstance<py::sequence>(objects), name, " must be a list of tensors, got ",
              Py_TYPE(objects.ptr())->tp_name);
  const auto sequence = py::reinterpret_borrow<py::sequence>(objects);
  std::vector<TensorArg> views;
  views.reserve(sequence.size());
  for (const auto& item : sequence) views.emplace_back(item);
  return views;
}

}  // namespace gramcore
