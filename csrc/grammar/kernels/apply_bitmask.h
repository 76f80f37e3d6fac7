// Masks `count` consecutive logits of one row; the first belongs to bit 0 of mask[0].
#pragma once

#include <cstdint>

namespace gramcore::grammar {

struct ApplyBitmaskKernels {
  void (*mask32)(std::uint32_t* logits, const std::int32_t* mask, std::int64_t count);  // fp32
  void (*mask16)(std::uint16_t* logits, const std::int32_t* mask, std::int64_t count,
                 std::uint16_t minus_inf);  // fp16, bf16
};

const ApplyBitmaskKernels& apply_bitmask_kernels();

}  // namespace gramcore::grammar
