// Stretches of rows of matrices in rank-1 storage.  Bytes of codes are taken apart by plain loops, which the compiler
// turns into vectors.
#pragma once

#include "optim/kernels/rank1.h"
#include "optim/kernels/vec.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

static void decode(const std::uint8_t* codes, float* to, std::int64_t n) {
  for (std::int64_t k = 0; k < n / 2; ++k) {
    to[2 * k] = static_cast<float>((codes[k] & 15) + 1) * 0.0625f;
    to[2 * k + 1] = static_cast<float>((codes[k] >> 4) + 1) * 0.0625f;
  }
  if (n % 2) to[n - 1] = static_cast<float>((codes[n / 2] & 15) + 1) * 0.0625f;
}

GC_INLINE std::uint32_t code_of(float x) {
  const float place = x * 16.0f - 0.5f;  // cut to a whole number: the nearest of x * 16 - 1
  return place >= 15.0f ? 15u : place > 0.0f ? static_cast<std::uint32_t>(static_cast<std::int32_t>(place)) : 0u;
}

static void encode(const float* from, std::uint8_t* codes, std::int64_t n) {
  for (std::int64_t k = 0; k < n / 2; ++k) {
    codes[k] = static_cast<std::uint8_t>(code_of(from[2 * k]) | (code_of(from[2 * k + 1]) << 4));
  }
  if (n % 2) codes[n / 2] = static_cast<std::uint8_t>(code_of(from[n - 1]));
}

static void multiply(const float* columns, float row, float* x, std::int64_t n) {
  const vf limit = splat(row);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, load(x + i) * vmin(limit, load(columns + i)));
  for (; i < n; ++i) x[i] *= columns[i] < row ? columns[i] : row;
}

GC_INLINE vf quotient(vf x, vf bound) {
  return select(bound >= 1.2e-38f, x / bound, vf{});
}

static void divide(const float* columns, float row, float* x, std::int64_t n) {
  const vf limit = splat(row);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, quotient(load(x + i), vmin(limit, load(columns + i))));
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    store_part(x + i, quotient(load_part(x + i, rest), vmin(limit, load_part(columns + i, rest))), rest);
  }
}

static float maxima(const float* x, float* columns, std::int64_t n) {
  vf largest = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const vf v = load(x + i);
    largest = vmax(v, largest);
    store(columns + i, vmax(v, load(columns + i)));
  }
  if (i < n) {
    const int rest = static_cast<int>(n - i);
    const vf v = load_part(x + i, rest);
    largest = vmax(v, largest);
    store_part(columns + i, vmax(v, load_part(columns + i, rest)), rest);
  }
  float best = largest[0];
  for (int k = 1; k < kLanes; ++k) best = largest[k] > best ? largest[k] : best;
  return best;
}

}  // namespace

extern const Rank1Kernels kRank1;
const Rank1Kernels kRank1 = {decode, encode, multiply, divide, maxima};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
