// One AdamW step over a list of tensors, on a CUDA device.
#pragma once

#include <cstdint>

namespace gramcore::optim {

// Device pointers to `numel` contiguous elements each; none may overlap another of the list.
struct AdamwTensor {
  void* param;
  const void* grad;
  void* exp_avg;
  void* exp_avg_sq;
  std::int64_t numel;
};

struct AdamwArgs {
  const AdamwTensor* tensors;  // in host memory
  std::int64_t num_tensors;
  double lr, beta1, beta2, eps, weight_decay;
  std::int64_t step;   // >= 1: number of this step
  std::uint64_t seed;  // of the stochastic rounding
  // gramcore::DType, f32 or bf16 each.
  std::int32_t param_dtype, grad_dtype, state_dtype;
  std::int32_t maximize;             // ascend instead of descend
  std::int32_t stochastic_rounding;  // of everything stored as bf16; 0: to nearest even
};

}  // namespace gramcore::optim

// stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_adamw(const gramcore::optim::AdamwArgs* args, void* stream);
