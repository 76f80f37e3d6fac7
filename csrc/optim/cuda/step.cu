#include <cmath>
#include <vector>

#include "core/cuda/status.h"
#include "core/dtype.h"
#include "optim/cuda/adamw.h"
#include "optim/cuda/rank1.cuh"
#include "optim/engine.h"

namespace gramcore::optim {
namespace {

using cuda::invalid;
using step_cuda::Codes;
using step_cuda::Float;
using step_cuda::Launch;

bool aligned(const void* p, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

// How moments are stored: bytes of an element to which they are aligned, and whether they have scales.
struct MomentFacts {
  std::size_t bytes;
  bool coded, rank1;
};
template <class State>
constexpr MomentFacts kFacts = {1, true, State::kMeasures};
template <class T>
constexpr MomentFacts kFacts<Float<T>> = {sizeof(T), false, false};

int check_tensor(const StepCudaTensor& t, std::int64_t i, int slots, const MomentFacts& facts, std::size_t param_bytes,
                 std::size_t grad_bytes) {
  if (t.numel < 0 || t.numel > std::int64_t{1} << 40) {
    return invalid("numel must be in [0, 2^40], got ", t.numel, " (tensor ", i, ")");
  }
  if (t.numel == 0) return cuda::kOk;
  bool present = t.param != nullptr && t.grad != nullptr;
  bool fits = aligned(t.param, param_bytes) && aligned(t.grad, grad_bytes);
  for (int k = 0; k < slots; ++k) {
    present = present && t.moment[k] != nullptr && (!facts.coded || t.scales[k] != nullptr);
    fits = fits && aligned(t.moment[k], facts.bytes);
  }
  if (!present) return invalid("param, grad, moments and their scales must not be null (tensor ", i, ")");
  if (!fits) return invalid("pointers must be aligned to their element size (tensor ", i, ")");
  if (!facts.rank1 || t.cols == 0) return cuda::kOk;
  if (t.cols < 0 || t.numel % t.cols != 0) {
    return invalid("cols must divide numel ", t.numel, ", got ", t.cols, " (tensor ", i, ")");
  }
  if (t.fresh == nullptr) return invalid("fresh must not be null beside cols (tensor ", i, ")");
  return cuda::kOk;
}

template <class Rule, class Param, class Grad, class State>
int check_step(const StepCudaArgs& a) {
  if (a.step < 1 || a.step > 0xffffffffLL) return invalid("step must be in [1, 2^32), got ", a.step);
  if (a.num_tensors < 0 || a.num_tensors > 0xffffffffLL) {
    return invalid("num_tensors must be in [0, 2^32), got ", a.num_tensors);
  }
  if (a.num_tensors > 0 && a.tensors == nullptr) return invalid("tensors must not be null");
  for (std::int64_t i = 0; i < a.num_tensors; ++i) {
    const int status = check_tensor(a.tensors[i], i, Rule::kSlots, kFacts<State>, sizeof(Param), sizeof(Grad));
    if (status != cuda::kOk) return status;
  }
  return cuda::kOk;
}

// Tensors from `first` on, as many as fit.
Launch make_launch(const StepCudaArgs& a, std::int64_t first) {
  Launch launch{};
  for (int i = 0; i < 12; ++i) launch.coefs[i] = a.coefs[i];
  launch.step = static_cast<std::uint32_t>(a.step);
  launch.stochastic = a.stochastic_rounding != 0 ? 1u : 0u;
  launch.seed = a.seed;
  launch.map8[0] = kSigned8;
  launch.map8[1] = kUnsigned8;
  launch.first_tensor = static_cast<std::uint32_t>(first);
  for (std::int64_t i = first; i < a.num_tensors && i - first < StepPolicy::kMaxTensors; ++i) {
    launch.tensor[launch.num_tensors++] = a.tensors[i];
  }
  return launch;
}

// Runs `kernel` with blocks_of(tensor) blocks for each tensor, or nothing if there are none.
template <class Kernel, class F>
int run(Launch& launch, const char* name, Kernel kernel, cudaStream_t stream, F&& blocks_of) {
  std::int64_t blocks = 0;
  for (std::uint32_t i = 0; i < launch.num_tensors; ++i) {
    launch.first_chunk[i] = static_cast<std::uint32_t>(blocks);
    blocks += blocks_of(launch.tensor[i]);
  }
  if (blocks == 0) return cuda::kOk;
  if (blocks > 0x7fffffff) return invalid("tensors must hold fewer than 2^44 elements per launch");
  GC_CUDA_LAUNCH(kernel, static_cast<unsigned>(blocks), StepPolicy::kThreads, 0, stream, launch);
  return cuda::launch_status(name);
}

int move_scales(const Launch& launch, bool keep, cudaStream_t stream) {
  GC_CUDA_LAUNCH(step_cuda::scales_kernel, launch.num_tensors, StepPolicy::kThreads, 0, stream, launch, keep);
  return cuda::launch_status("optim_scales");
}

template <class Rule, class Param, class Grad>
int measure(Launch& launch, cudaStream_t stream) {
  if (const int status = move_scales(launch, false, stream); status != cuda::kOk) return status;
  return run(launch, "optim_measure", step_cuda::measure_kernel<Rule, Param, Grad>, stream,
             [](const StepCudaTensor& t) -> std::int64_t {
               if (t.cols == 0) return 0;
               const std::int64_t rows = t.numel / t.cols;
               return ((t.cols + StepPolicy::kThreads - 1) / StepPolicy::kThreads) *
                      ((rows + StepPolicy::kTileRows - 1) / StepPolicy::kTileRows);
             });
}

template <class Rule, class Param, class Grad, class State>
int step(const StepCudaArgs& a, cudaStream_t stream) {
  if (const int status = check_step<Rule, Param, Grad, State>(a); status != cuda::kOk) return status;
  for (std::int64_t first = 0; first < a.num_tensors; first += StepPolicy::kMaxTensors) {
    Launch launch = make_launch(a, first);
    if constexpr (State::kMeasures) {
      if (const int status = measure<Rule, Param, Grad>(launch, stream); status != cuda::kOk) return status;
    }
    const int status =
        run(launch, "optim_step", step_cuda::step_kernel<Rule, Param, Grad, State>, stream,
            [](const StepCudaTensor& t) { return (t.numel + StepPolicy::kChunk - 1) / StepPolicy::kChunk; });
    if (status != cuda::kOk) return status;
    if constexpr (State::kMeasures) {
      if (const int kept = move_scales(launch, true, stream); kept != cuda::kOk) return kept;
    }
  }
  return cuda::set_status(cuda::kOk, "");
}

template <class Rule, class Param, class Grad>
int dispatch_state(const StepCudaArgs& a, cudaStream_t stream) {
  switch (static_cast<Storage>(a.state)) {
    case Storage::f32: return step<Rule, Param, Grad, Float<float>>(a, stream);
    case Storage::bf16: return step<Rule, Param, Grad, Float<bf16>>(a, stream);
    case Storage::q8: return step<Rule, Param, Grad, Codes<8>>(a, stream);
    case Storage::q4: return step<Rule, Param, Grad, Codes<4>>(a, stream);
    case Storage::rank1:
      if constexpr (Rule::kSlots == 2) return step<Rule, Param, Grad, step_cuda::Rank1>(a, stream);
      return invalid("rule must have two moments for rank1, got rule ", a.rule);
    default: return invalid("state must be f32, bf16, q8, q4 or rank1, got storage code ", a.state);
  }
}

template <class Rule, class Param>
int dispatch_grad(const StepCudaArgs& a, cudaStream_t stream) {
  if (a.grad_dtype == a.param_dtype) return dispatch_state<Rule, Param, Param>(a, stream);
  return invalid("grad_dtype must be param_dtype for this rule, got dtype codes ", a.grad_dtype, " and ",
                 a.param_dtype);
}

template <>
int dispatch_grad<step_cuda::Adam, float>(const StepCudaArgs& a, cudaStream_t stream) {
  switch (static_cast<DType>(a.grad_dtype)) {
    case DType::f32: return dispatch_state<step_cuda::Adam, float, float>(a, stream);
    case DType::bf16: return dispatch_state<step_cuda::Adam, float, bf16>(a, stream);
    default: return invalid("grad_dtype must be float32 or bfloat16, got dtype code ", a.grad_dtype);
  }
}
template <>
int dispatch_grad<step_cuda::Adam, bf16>(const StepCudaArgs& a, cudaStream_t stream) {
  switch (static_cast<DType>(a.grad_dtype)) {
    case DType::f32: return dispatch_state<step_cuda::Adam, bf16, float>(a, stream);
    case DType::bf16: return dispatch_state<step_cuda::Adam, bf16, bf16>(a, stream);
    default: return invalid("grad_dtype must be float32 or bfloat16, got dtype code ", a.grad_dtype);
  }
}

template <class Rule>
int dispatch_param(const StepCudaArgs& a, cudaStream_t stream) {
  switch (static_cast<DType>(a.param_dtype)) {
    case DType::f32: return dispatch_grad<Rule, float>(a, stream);
    case DType::bf16: return dispatch_grad<Rule, bf16>(a, stream);
    default: return invalid("param_dtype must be float32 or bfloat16, got dtype code ", a.param_dtype);
  }
}

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

// The coefficients of rule_coefs() for Adam.
void fill_coefs(const AdamwArgs& a, float* c) {
  const double t = static_cast<double>(a.step);
  c[0] = a.maximize != 0 ? -1.0f : 1.0f;
  c[1] = static_cast<float>(-a.lr * a.weight_decay);
  c[4] = static_cast<float>(1.0 - a.beta1);
  c[5] = static_cast<float>(a.beta2);
  c[6] = static_cast<float>(1.0 - a.beta2);
  c[7] = static_cast<float>(a.lr / (1.0 - std::pow(a.beta1, t)));
  c[8] = static_cast<float>(1.0 / std::sqrt(1.0 - std::pow(a.beta2, t)));
  c[9] = static_cast<float>(a.eps);
}

}  // namespace
}  // namespace gramcore::optim

int gc_cuda_optim_step(const gramcore::optim::StepCudaArgs* args, void* stream) {
  using namespace gramcore::optim;
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  switch (static_cast<RuleId>(args->rule)) {
    case kAdam: return dispatch_param<step_cuda::Adam>(*args, s);
    case kGrams: return dispatch_param<step_cuda::Grams>(*args, s);
    case kLion: return dispatch_param<step_cuda::Lion>(*args, s);
    case kSgd: return dispatch_param<step_cuda::Sgd>(*args, s);
    case kSgdMomentum: return dispatch_param<step_cuda::SgdMomentum>(*args, s);
    case kSophia: return dispatch_param<step_cuda::Sophia>(*args, s);
    case kSign: return dispatch_param<step_cuda::Sign>(*args, s);
    default: return gramcore::cuda::invalid("rule must be in [0, ", int{kNumRules}, "), got ", args->rule);
  }
}

int gc_cuda_adamw(const gramcore::optim::AdamwArgs* args, void* stream) {
  using namespace gramcore;
  using optim::Storage;
  const optim::AdamwArgs& a = *args;
  if (const int status = optim::check_scalars(a); status != cuda::kOk) return status;
  const auto state = static_cast<DType>(a.state_dtype);
  if (state != DType::f32 && state != DType::bf16) {
    return cuda::invalid("state_dtype must be float32 or bfloat16, got dtype code ", a.state_dtype);
  }
  if (a.num_tensors < 0 || a.num_tensors > 0xffffffffLL) {
    return cuda::invalid("num_tensors must be in [0, 2^32), got ", a.num_tensors);
  }
  if (a.num_tensors > 0 && a.tensors == nullptr) return cuda::invalid("tensors must not be null");
  std::vector<optim::StepCudaTensor> tensors(static_cast<std::size_t>(a.num_tensors));
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    const optim::AdamwTensor& t = a.tensors[i];
    tensors[i] = {t.param, t.grad, {t.exp_avg, t.exp_avg_sq}, {nullptr, nullptr}, t.numel, 0, nullptr};
  }
  optim::StepCudaArgs step{};
  step.tensors = tensors.data();
  step.num_tensors = a.num_tensors;
  optim::fill_coefs(a, step.coefs);
  step.step = a.step;
  step.seed = a.seed;
  step.rule = optim::kAdam;
  step.param_dtype = a.param_dtype;
  step.grad_dtype = a.grad_dtype;
  step.state = static_cast<std::int32_t>(state == DType::f32 ? Storage::f32 : Storage::bf16);
  step.stochastic_rounding = a.stochastic_rounding;
  return gc_cuda_optim_step(&step, stream);
}
