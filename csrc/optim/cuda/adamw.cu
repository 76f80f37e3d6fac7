#include <cmath>

#include "core/cuda/status.h"
#include "core/dtype.h"
#include "optim/cuda/adamw.cuh"

namespace gramcore::optim {
namespace {

using cuda::invalid;

int check_scalars(const AdamwArgs& a) {
  if (!(a.lr >= 0.0) || !std::isfinite(a.lr)) return invalid("lr must be finite and >= 0, got ", a.lr);
  if (!(a.beta1 >= 0.0 && a.beta1 < 1.0)) return invalid("beta1 must be in [0, 1), got ", a.beta1);
  if (!(a.beta2 >= 0.0 && a.beta2 < 1.0)) return invalid("beta2 must be in [0, 1), got ", a.beta2);
  if (!(a.eps >= 0.0) || !std::isfinite(a.eps)) return invalid("eps must be finite and >= 0, got ", a.eps);
  if (!(a.weight_decay >= 0.0) || !std::isfinite(a.weight_decay)) {
    return invalid("weight_decay must be finite and >= 0, got ", a.weight_decay);
  }
  if (a.step < 1 || a.step > 0xffffffffLL) return invalid("step must be in [1, 2^32), got ", a.step);
  return cuda::kOk;
}

bool aligned(const void* p, int bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % static_cast<unsigned>(bytes) == 0;
}

int check_tensors(const AdamwArgs& a, int param_bytes, int grad_bytes, int state_bytes) {
  if (a.num_tensors < 0 || a.num_tensors > 0xffffffffLL) {
    return invalid("num_tensors must be in [0, 2^32), got ", a.num_tensors);
  }
  if (a.num_tensors > 0 && a.tensors == nullptr) return invalid("tensors must not be null");
  for (std::int64_t i = 0; i < a.num_tensors; ++i) {
    const AdamwTensor& t = a.tensors[i];
    if (t.numel < 0 || t.numel > std::int64_t{1} << 40) {
      return invalid("numel must be in [0, 2^40], got ", t.numel, " (tensor ", i, ")");
    }
    if (t.numel == 0) continue;
    if (t.param == nullptr || t.grad == nullptr || t.exp_avg == nullptr || t.exp_avg_sq == nullptr) {
      return invalid("param, grad, exp_avg and exp_avg_sq must not be null (tensor ", i, ")");
    }
    if (!aligned(t.param, param_bytes) || !aligned(t.grad, grad_bytes) || !aligned(t.exp_avg, state_bytes) ||
        !aligned(t.exp_avg_sq, state_bytes)) {
      return invalid("pointers must be aligned to their element size (tensor ", i, ")");
    }
  }
  return cuda::kOk;
}

AdamwScalars scalars_of(const AdamwArgs& a) {
  const double t = static_cast<double>(a.step);
  AdamwScalars s{};
  s.decay = static_cast<float>(1.0 - a.lr * a.weight_decay);
  s.one_minus_beta1 = static_cast<float>(1.0 - a.beta1);
  s.beta2 = static_cast<float>(a.beta2);
  s.one_minus_beta2 = static_cast<float>(1.0 - a.beta2);
  s.step_size = static_cast<float>(a.lr / (1.0 - std::pow(a.beta1, t)));
  s.denom_scale = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(a.beta2, t)));
  s.eps = static_cast<float>(a.eps);
  s.grad_sign = a.maximize != 0 ? -1.0f : 1.0f;
  s.step = static_cast<std::uint32_t>(a.step);
  s.stochastic = a.stochastic_rounding != 0 ? 1u : 0u;
  s.seed = a.seed;
  return s;
}

// One launch per kMaxTensors tensors.
template <class Param, class Grad, class State>
int step(const AdamwArgs& a, cudaStream_t stream) {
  if (const int status = check_scalars(a); status != cuda::kOk) return status;
  if (const int status = check_tensors(a, sizeof(Param), sizeof(Grad), sizeof(State)); status != cuda::kOk)
    return status;
  for (std::int64_t first = 0; first < a.num_tensors; first += AdamwPolicy::kMaxTensors) {
    AdamwLaunch launch{};
    launch.scalars = scalars_of(a);
    launch.first_tensor = static_cast<std::uint32_t>(first);
    std::int64_t chunks = 0;
    for (std::int64_t i = first; i < a.num_tensors && i - first < AdamwPolicy::kMaxTensors; ++i) {
      launch.first_chunk[launch.num_tensors] = static_cast<std::uint32_t>(chunks);
      launch.tensor[launch.num_tensors++] = a.tensors[i];
      chunks += (a.tensors[i].numel + AdamwPolicy::kChunk - 1) / AdamwPolicy::kChunk;
    }
    if (chunks == 0) continue;
    if (chunks > 0x7fffffff) return invalid("tensors must hold fewer than 2^44 elements per launch");
    GC_CUDA_LAUNCH((adamw_kernel<Param, Grad, State>), static_cast<unsigned>(chunks), AdamwPolicy::kThreads, 0, stream,
                   launch);
    if (const int status = cuda::launch_status("adamw"); status != cuda::kOk) return status;
  }
  return cuda::set_status(cuda::kOk, "");
}

template <class Param, class Grad>
int dispatch_state(const AdamwArgs& a, cudaStream_t stream) {
  switch (static_cast<DType>(a.state_dtype)) {
    case DType::f32: return step<Param, Grad, float>(a, stream);
    case DType::bf16: return step<Param, Grad, bf16>(a, stream);
    default: return invalid("state_dtype must be float32 or bfloat16, got dtype code ", a.state_dtype);
  }
}

template <class Param>
int dispatch_grad(const AdamwArgs& a, cudaStream_t stream) {
  switch (static_cast<DType>(a.grad_dtype)) {
    case DType::f32: return dispatch_state<Param, float>(a, stream);
    case DType::bf16: return dispatch_state<Param, bf16>(a, stream);
    default: return invalid("grad_dtype must be float32 or bfloat16, got dtype code ", a.grad_dtype);
  }
}

}  // namespace
}  // namespace gramcore::optim

int gc_cuda_adamw(const gramcore::optim::AdamwArgs* args, void* stream) {
  using namespace gramcore;
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  switch (static_cast<DType>(args->param_dtype)) {
    case DType::f32: return optim::dispatch_grad<float>(*args, s);
    case DType::bf16: return optim::dispatch_grad<bf16>(*args, s);
    default: return cuda::invalid("param_dtype must be float32 or bfloat16, got dtype code ", args->param_dtype);
  }
}
