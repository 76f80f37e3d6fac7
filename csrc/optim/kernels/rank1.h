// Rank-1 storage of second moments (Li et al. 2023, arXiv:2309.01507): an element of a matrix is divided by the smaller
// of its row's and its column's largest value, and the quotient is stored as (code + 1) / 16.
#pragma once

#include <cstdint>

namespace gramcore::optim {

// Codes lie two per byte, the first in the low nibble.
struct Rank1Kernels {
  // to = (code + 1) / 16.
  void (*decode)(const std::uint8_t* codes, float* to, std::int64_t n);
  // Nearest codes.
  void (*encode)(const float* from, std::uint8_t* codes, std::int64_t n);
  // x *= min(row, columns).
  void (*multiply)(const float* columns, float row, float* x, std::int64_t n);
  // x /= min(row, columns); 0 where that is 0.
  void (*divide)(const float* columns, float row, float* x, std::int64_t n);
  // columns = max(columns, x); returns the largest x, at least 0.
  float (*maxima)(const float* x, float* columns, std::int64_t n);
};
const Rank1Kernels& rank1_kernels();

}  // namespace gramcore::optim
