// Measured limits of the machine with the threads in use, for benchmarks.
#pragma once

#include <cstddef>

namespace gramcore {

struct Bandwidth {
  double read, copy, triad;  // bytes per second; copy counts 2 and triad 3 streams
};

// Best of `passes` over buffers of `num_bytes` each (choose more than the last-level cache holds).
Bandwidth measure_bandwidth(std::size_t num_bytes, int passes);

// Operations per second (an addition and a multiplication are two); 0 where the level in use has no such instruction.
struct Compute {
  double fp32, bf16, int8;
  double int8_tile;  // AMX
};

// Best of `passes` of a few milliseconds each, registers only.
Compute measure_compute(int passes);

}  // namespace gramcore
