// One step of an elementwise rule over a list of tensors, on a CUDA device: the twin of engine.h.
#pragma once

#include <cstdint>

namespace gramcore::optim {

// Device pointers; none may overlap another of the list.  Moments the rule does not have are null.  Quantised moments
// are codes (one or half a byte per element) with one fp32 scale per 256 (8 bits) or 128 (4 bits) elements; with rank1
// the first moment is of 4 bits so, and the second of a matrix has a scale per row and then per column.
struct StepCudaTensor {
  void* param;
  const void* grad;
  void* moment[2];
  float* scales[2];
  std::int64_t numel;
  std::int64_t cols;  // rank1: columns of a matrix in memory order, or 0 for a tensor whose second moment has blocks
  float* fresh;       // rank1, of a matrix: room for as many numbers as scales[1] has; their values do not matter
};

struct StepCudaArgs {
  const StepCudaTensor* tensors;  // in host memory
  std::int64_t num_tensors;
  float coefs[12];     // as rule_coefs() of engine.h gives them
  std::int64_t step;   // >= 1: number of this step
  std::uint64_t seed;  // of the stochastic rounding
  std::int32_t rule;   // RuleId of kernels/rules.h
  // gramcore::DType, f32 or bf16; grad_dtype may differ from param_dtype for Adam only.
  std::int32_t param_dtype, grad_dtype;
  std::int32_t state;                // Storage of engine.h: f32, bf16, q8, q4 or rank1
  std::int32_t stochastic_rounding;  // of everything stored as bf16; 0: to nearest even
};

}  // namespace gramcore::optim

// stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_optim_step(const gramcore::optim::StepCudaArgs* args, void* stream);
