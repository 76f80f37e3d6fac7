#include "torch/registry.h"

#include <dlfcn.h>

#include <cstring>
#include <mutex>
#include <string>

#include "core/thread_pool.h"

namespace gramcore::torch {
namespace {

std::vector<OpRow>& all_rows() {
  static std::vector<OpRow> rows;
  return rows;
}

void check(Error error, const char* what) {
  if (error != 0) throw std::runtime_error(cat("torch reported error ", error, " from ", what));
}

// Element codes of this torch, read once: position = DType.
struct DtypeCodes {
  std::int32_t code[13];
  explicit DtypeCodes(const Api& a)
      : code{a.aoti_torch_dtype_float32(), a.aoti_torch_dtype_float64(), a.aoti_torch_dtype_bfloat16(),
             a.aoti_torch_dtype_float16(), a.aoti_torch_dtype_int8(),    a.aoti_torch_dtype_uint8(),
             a.aoti_torch_dtype_int16(),   a.aoti_torch_dtype_uint16(),  a.aoti_torch_dtype_int32(),
             a.aoti_torch_dtype_uint32(),  a.aoti_torch_dtype_int64(),   a.aoti_torch_dtype_uint64(),
             a.aoti_torch_dtype_bool()} {}
  DType find(std::int32_t wanted) const {
    for (int i = 0; i < 13; ++i) {
      if (code[i] == wanted) return static_cast<DType>(i);
    }
    throw TypeMismatch(
        cat("tensor dtype must be a float, integer, bfloat16 or bool type, got torch dtype code ", wanted));
  }
};

const DtypeCodes& dtype_codes() {
  static const DtypeCodes codes(api());
  return codes;
}

TensorView view_of(TensorHandle handle) {
  const Api& a = api();
  TensorView view;
  std::int64_t rank = 0, *sizes = nullptr, *strides = nullptr;
  std::int32_t dtype = 0, device_type = 0;
  check(a.aoti_torch_get_dim(handle, &rank), "get_dim");
  GC_CHECK(rank <= TensorView::kMaxRank, "tensor must have at most ", TensorView::kMaxRank, " dimensions, got ", rank);
  check(a.aoti_torch_get_data_ptr(handle, &view.data), "get_data_ptr");
  check(a.aoti_torch_get_sizes(handle, &sizes), "get_sizes");
  check(a.aoti_torch_get_strides(handle, &strides), "get_strides");
  check(a.aoti_torch_get_dtype(handle, &dtype), "get_dtype");
  check(a.aoti_torch_get_device_type(handle, &device_type), "get_device_type");
  view.rank = static_cast<int>(rank);
  std::memcpy(view.shape, sizes, sizeof(std::int64_t) * static_cast<std::size_t>(rank));
  std::memcpy(view.stride, strides, sizeof(std::int64_t) * static_cast<std::size_t>(rank));
  view.dtype = dtype_codes().find(dtype);
  if (device_type == a.aoti_torch_device_type_cuda()) {
    std::int32_t index = 0;
    check(a.aoti_torch_get_device_index(handle, &index), "get_device_index");
    view.device = index;
  }
  return view;
}

TensorHandle new_dense(DType dtype, const std::int64_t* shape, int rank, int device) {
  std::int64_t strides[TensorView::kMaxRank] = {};
  std::int64_t dense = 1;
  for (int d = rank - 1; d >= 0; --d) {
    strides[d] = dense;
    dense *= shape[d] > 0 ? shape[d] : 1;
  }
  const Api& a = api();
  const std::int32_t type = device < 0 ? a.aoti_torch_device_type_cpu() : a.aoti_torch_device_type_cuda();
  TensorHandle handle = nullptr;
  check(a.aoti_torch_empty_strided(rank, shape, strides, dtype_codes().code[static_cast<int>(dtype)], type,
                                   device < 0 ? 0 : device, &handle),
        "empty_strided");
  return handle;
}

Api resolve() {
  void* library = dlopen("libtorch_cpu.so", RTLD_NOLOAD | RTLD_LAZY);
  if (!library) throw std::runtime_error("torch must be imported before gramcore's operators are registered");
  void* cuda_library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);  // null in CPU builds of torch
  const auto find = [&](const char* name) {
    void* symbol = dlsym(library, name);
    return symbol || !cuda_library ? symbol : dlsym(cuda_library, name);
  };
  Api resolved;
#define GC_RESOLVE(result, name, parameters) resolved.name = reinterpret_cast<result(*) parameters>(find(#name));
  GC_TORCH_SYMBOLS(GC_RESOLVE)
#undef GC_RESOLVE
  if (!resolved.torch_list_size || !resolved.aoti_torch_library_init_def) {
    throw std::runtime_error("torch must be 2.10 or newer; pip install -U torch");
  }
  return resolved;
}

int torch_threads() {
  std::uint32_t n = 1;
  check(api().torch_get_num_threads(&n), "torch_get_num_threads");
  return static_cast<int>(n);
}

}  // namespace

const Api& api() {
  static const Api resolved = resolve();
  return resolved;
}

Ops::Ops(std::initializer_list<OpRow> rows) {
  all_rows().insert(all_rows().end(), rows);
}

TensorHandle OpCall::own(IValue value) {
  auto handle = reinterpret_cast<TensorHandle>(value);
  owned_.push_back(handle);
  return handle;
}

OpCall::~OpCall() {
  for (TensorHandle handle : owned_) api().aoti_torch_delete_tensor_object(handle);
  const bool failed = std::uncaught_exceptions() > exceptions_at_entry_;
  for (std::uint64_t i = 0; i < num_outputs_ && i < 4; ++i) {
    if (!outputs_[i]) continue;
    if (failed) {
      api().aoti_torch_delete_tensor_object(outputs_[i]);
    } else {
      stack_[i] = reinterpret_cast<IValue>(outputs_[i]);
    }
  }
}

TensorView OpCall::tensor(std::uint64_t i) {
  return view_of(own(stack_[i]));
}

bool OpCall::optional_tensor(std::uint64_t i, TensorView* out) {
  auto* boxed_value = reinterpret_cast<IValue*>(stack_[i]);
  if (!boxed_value) return false;
  TensorHandle handle = own(*boxed_value);
  if (api().torch_delete_stable_ivalue) {
    api().torch_delete_stable_ivalue(boxed_value);
  } else {
    delete boxed_value;  // torch < 2.13 allocates it with plain new
  }
  *out = view_of(handle);
  return true;
}

void OpCall::tensor_list(std::uint64_t i, std::vector<TensorView>* out) {
  auto list = reinterpret_cast<ListHandle>(stack_[i]);
  std::size_t size = 0;
  check(api().torch_list_size(list, &size), "torch_list_size");
  out->clear();
  out->reserve(size);
  for (std::size_t k = 0; k < size; ++k) {
    IValue item = 0;
    check(api().torch_list_get_item(list, k, &item), "torch_list_get_item");
    out->push_back(view_of(own(item)));
  }
  check(api().torch_delete_list(list), "torch_delete_list");
}

double OpCall::real(std::uint64_t i) const {
  double value;
  std::memcpy(&value, &stack_[i], sizeof(value));
  return value;
}

TensorView OpCall::new_output(std::uint64_t i, DType dtype, std::initializer_list<std::int64_t> shape, int device) {
  return new_output(i, dtype, shape.begin(), static_cast<int>(shape.size()), device);
}

TensorView OpCall::new_output(std::uint64_t i, DType dtype, const std::int64_t* shape, int rank, int device) {
  outputs_[i] = new_dense(dtype, shape, rank, device);
  return view_of(outputs_[i]);
}

TensorView OpCall::scratch(DType dtype, std::int64_t numel, int device) {
  return view_of(own(reinterpret_cast<IValue>(new_dense(dtype, &numel, 1, device))));
}

CudaStream::CudaStream(int device) {
  const Api& a = api();
  GC_CHECK_AS(CudaError, a.aoti_torch_create_cuda_guard && a.aoti_torch_get_current_cuda_stream,
              "tensor is on cuda:", device, ", but this torch was built without CUDA");
  check(a.aoti_torch_create_cuda_guard(device, &guard_), "create_cuda_guard");
  check(a.aoti_torch_get_current_cuda_stream(device, &stream_), "get_current_cuda_stream");
}

CudaStream::~CudaStream() {
  if (guard_) api().aoti_torch_delete_cuda_guard(guard_);
}

void check_device(const TensorView& t, const char* name, int device) {
  if (device < 0) return check_cpu(t, name);
  GC_CHECK_AS(TypeMismatch, t.device == device, name, " must be on cuda:", device, " like the first argument, got ",
              t.device < 0 ? "the CPU" : "another device");
}

std::vector<std::pair<std::string, bool>> register_ops() {
  static std::once_flag once;
  std::call_once(once, [] {
    const Api& a = api();
    LibraryHandle definitions = nullptr, cpu = nullptr, cuda = nullptr;
    check(a.aoti_torch_library_init_def("gramcore", __FILE__, __LINE__, &definitions), "library_init_def");
    check(a.aoti_torch_library_init_impl("gramcore", "CPU", __FILE__, __LINE__, &cpu), "library_init_impl");
    check(a.aoti_torch_library_init_impl("gramcore", "CUDA", __FILE__, __LINE__, &cuda), "library_init_impl");
    for (const OpRow& row : all_rows()) {
      const std::string schema = row.schema;
      const std::string name = schema.substr(0, schema.find('('));
      check(a.aoti_torch_library_def(definitions, row.schema), row.schema);
      check(a.aoti_torch_library_impl(cpu, name.c_str(), row.cpu), row.schema);
      if (row.cuda) check(a.aoti_torch_library_impl(cuda, name.c_str(), row.cuda), row.schema);
    }
    set_num_threads_hook(torch_threads);
  });
  std::vector<std::pair<std::string, bool>> names;
  for (const OpRow& row : all_rows()) {
    const std::string schema = row.schema;
    const bool returns = schema.substr(schema.rfind("->")).find("Tensor") != std::string::npos;
    names.emplace_back(schema.substr(0, schema.find('(')), returns);
  }
  return names;
}

}  // namespace gramcore::torch
