// LibTorch's stable C interface, declared by us and resolved at run time from the libtorch_cpu that `import
// torch` has loaded.  Nothing links against torch, so one binary serves every torch >= 2.10 and the package
// imports without it.  tests/core/test_torch_abi.py compares these declarations with the installed headers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gramcore::torch {

using IValue = std::uint64_t;  // StableIValue: scalars by value, tensors and lists as owned handles
using BoxedFn = void (*)(IValue* stack, std::uint64_t num_inputs, std::uint64_t num_outputs);
struct TensorOpaque;
struct LibraryOpaque;
struct ListOpaque;
struct CudaGuardOpaque;
using TensorHandle = TensorOpaque*;
using LibraryHandle = LibraryOpaque*;
using ListHandle = ListOpaque*;
using CudaGuardHandle = CudaGuardOpaque*;
using Error = std::int32_t;  // 0 is success

// X(return type, name, parameters)
#define GC_TORCH_SYMBOLS(X)                                                                                            \
  X(Error, aoti_torch_library_init_def, (const char*, const char*, std::uint32_t, LibraryHandle*))                     \
  X(Error, aoti_torch_library_init_impl, (const char*, const char*, const char*, std::uint32_t, LibraryHandle*))       \
  X(Error, aoti_torch_library_def, (LibraryHandle, const char*))                                                       \
  X(Error, aoti_torch_library_impl, (LibraryHandle, const char*, BoxedFn))                                             \
  X(Error, aoti_torch_delete_tensor_object, (TensorHandle))                                                            \
  X(Error, aoti_torch_get_data_ptr, (TensorHandle, void**))                                                            \
  X(Error, aoti_torch_get_dim, (TensorHandle, std::int64_t*))                                                          \
  X(Error, aoti_torch_get_sizes, (TensorHandle, std::int64_t**))                                                       \
  X(Error, aoti_torch_get_strides, (TensorHandle, std::int64_t**))                                                     \
  X(Error, aoti_torch_get_dtype, (TensorHandle, std::int32_t*))                                                        \
  X(Error, aoti_torch_get_device_type, (TensorHandle, std::int32_t*))                                                  \
  X(Error, aoti_torch_get_device_index, (TensorHandle, std::int32_t*))                                                 \
  X(Error, aoti_torch_empty_strided,                                                                                   \
    (std::int64_t, const std::int64_t*, const std::int64_t*, std::int32_t, std::int32_t, std::int32_t, TensorHandle*)) \
  X(Error, aoti_torch_get_current_cuda_stream, (std::int32_t, void**))                                                 \
  X(Error, aoti_torch_create_cuda_guard, (std::int32_t, CudaGuardHandle*))                                             \
  X(Error, aoti_torch_delete_cuda_guard, (CudaGuardHandle))                                                            \
  X(Error, torch_list_size, (ListHandle, std::size_t*))                                                                \
  X(Error, torch_list_get_item, (ListHandle, std::size_t, IValue*))                                                    \
  X(Error, torch_delete_list, (ListHandle))                                                                            \
  X(Error, torch_get_num_threads, (std::uint32_t*))                                                                    \
  X(Error, torch_delete_stable_ivalue, (IValue*))                                                                      \
  X(std::int32_t, aoti_torch_device_type_cpu, ())                                                                      \
  X(std::int32_t, aoti_torch_device_type_cuda, ())                                                                     \
  X(std::int32_t, aoti_torch_dtype_float32, ())                                                                        \
  X(std::int32_t, aoti_torch_dtype_float64, ())                                                                        \
  X(std::int32_t, aoti_torch_dtype_bfloat16, ())                                                                       \
  X(std::int32_t, aoti_torch_dtype_float16, ())                                                                        \
  X(std::int32_t, aoti_torch_dtype_int8, ())                                                                           \
  X(std::int32_t, aoti_torch_dtype_uint8, ())                                                                          \
  X(std::int32_t, aoti_torch_dtype_int16, ())                                                                          \
  X(std::int32_t, aoti_torch_dtype_uint16, ())                                                                         \
  X(std::int32_t, aoti_torch_dtype_int32, ())                                                                          \
  X(std::int32_t, aoti_torch_dtype_uint32, ())                                                                         \
  X(std::int32_t, aoti_torch_dtype_int64, ())                                                                          \
  X(std::int32_t, aoti_torch_dtype_uint64, ())                                                                         \
  X(std::int32_t, aoti_torch_dtype_bool, ())

struct Api {
#define GC_DECLARE(result, name, parameters) result(*name) parameters = nullptr;
  GC_TORCH_SYMBOLS(GC_DECLARE)
#undef GC_DECLARE
};

// The resolved functions; throws when torch is not loaded or older than 2.10.
const Api& api();

}  // namespace gramcore::torch
