// How parameters, gradients and moments are stored: blocks of storage to blocks of fp32 and back.
#pragma once

#include <cstdint>

#include "optim/kernels/rules.h"

namespace gramcore::optim {

struct CodecsKernels {
  void (*load_bf16)(const std::uint16_t* from, float* to, std::int64_t n);
  void (*store_bf16)(const float* from, std::uint16_t* to, std::int64_t n);
  void (*store_bf16_stochastic)(const float* from, std::uint16_t* to, std::int64_t n, const NoiseKey& key,
                                int field);  // 0 parameter, 1 and 2 moments
  // A parameter kept as the sum of two bf16 values (compensated, "Kahan").
  void (*load_bf16_pair)(const std::uint16_t* high, const std::uint16_t* low, float* to, std::int64_t n);
  void (*store_bf16_pair)(const float* from, std::uint16_t* high, std::uint16_t* low, std::int64_t n);
  void (*load_f16)(const std::uint16_t* from, float* to, std::int64_t n);
  void (*store_f16)(const float* from, std::uint16_t* to, std::int64_t n);
};
const CodecsKernels& codecs_kernels();

}  // namespace gramcore::optim
