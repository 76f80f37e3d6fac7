// Arithmetic probes: the rates that compute-bound benchmarks divide by.
#pragma once

#include <cstdint>

namespace gramcore::core {

// Runs `rounds` rounds of independent register operations; the result keeps them from being dropped.
struct PeakProbe {
  float (*run)(std::int64_t rounds);  // null: this level has no such instruction
  double operations;                  // additions and multiplications of one round
};

struct PeakKernels {
  PeakProbe fp32, bf16, int8;
  PeakProbe int8_tile;  // AMX
};

const PeakKernels& peak_kernels();

}  // namespace gramcore::core
