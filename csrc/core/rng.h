// Philox4x32-10 (Salmon et al. 2011): a counter-based generator.  The four words drawn are a pure function
// of (seed, counter), so results depend neither on thread count nor on instruction set nor on draw order.
// Also the generator of the CUDA twins.
#pragma once

#include <cstdint>

#include "core/hd.h"

namespace gramcore {

struct Philox4 {
  std::uint32_t v[4];
};

GC_HD static inline Philox4 philox4x32(std::uint64_t seed, std::uint64_t counter_lo, std::uint64_t counter_hi = 0) {
  std::uint32_t c0 = static_cast<std::uint32_t>(counter_lo), c1 = static_cast<std::uint32_t>(counter_lo >> 32);
  std::uint32_t c2 = static_cast<std::uint32_t>(counter_hi), c3 = static_cast<std::uint32_t>(counter_hi >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c0;
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c2;
    c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<std::uint32_t>(p1);
    c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<std::uint32_t>(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return Philox4{{c0, c1, c2, c3}};
}

// Uniform on [0, 1) with 24 / 53 random bits.
GC_HD static inline float uniform_f32(std::uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}
GC_HD static inline double uniform_f64(std::uint32_t hi, std::uint32_t lo) {
  const std::uint64_t word = (static_cast<std::uint64_t>(hi) << 32) | lo;
  return static_cast<double>(word >> 11) * 0x1p-53;
}

// A stream of draws for sequential host code: seed names the stream family, `stream` one member of it.
class Rng {
 public:
  explicit Rng(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  std::uint32_t next_u32() {
    if (used_ == 4) {
      block_ = philox4x32(seed_, counter_++, stream_);
      used_ = 0;
    }
    return block_.v[used_++];
  }
  double next_uniform() {
    const std::uint32_t hi = next_u32();
    return uniform_f64(hi, next_u32());
  }
  // Unbiased integer in [0, bound), bound >= 1 (Lemire's multiply-shift with rejection).
  std::uint32_t next_below(std::uint32_t bound) {
    std::uint64_t product = std::uint64_t{next_u32()} * bound;
    if (static_cast<std::uint32_t>(product) < bound) {
      const std::uint32_t threshold = (0u - bound) % bound;
      while (static_cast<std::uint32_t>(product) < threshold) product = std::uint64_t{next_u32()} * bound;
    }
    return static_cast<std::uint32_t>(product >> 32);
  }

 private:
  std::uint64_t seed_, stream_;
  std::uint64_t counter_ = 0;
  Philox4 block_{};
  int used_ = 4;
};

}  // namespace gramcore
