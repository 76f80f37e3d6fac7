// STREAM-like loops over fp32 arrays.  `read` keeps eight vector accumulators so that it is bound by memory and
// not by the latency of the additions; the compiler vectorises copy and triad.
#include "core/kernels/bandwidth.h"

namespace gramcore::core {
namespace GC_ISA_NS {

static float read_sum(const float* x, std::size_t n) {
  typedef float Vec __attribute__((vector_size(64), aligned(4)));
  constexpr std::size_t kLanes = 16, kUnroll = 8;
  Vec sums[kUnroll] = {};
  std::size_t i = 0;
  for (; i + kLanes * kUnroll <= n; i += kLanes * kUnroll) {
    for (std::size_t u = 0; u < kUnroll; ++u) {
      Vec v;
      __builtin_memcpy(&v, x + i + u * kLanes, sizeof(v));
      sums[u] += v;
    }
  }
  float total = 0;
  for (std::size_t u = 0; u < kUnroll; ++u) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) total += sums[u][lane];
  }
  for (; i < n; ++i) total += x[i];
  return total;
}

static void copy(float* GC_RESTRICT y, const float* GC_RESTRICT x, std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) y[i] = x[i];
}

static void triad(float* GC_RESTRICT z, const float* GC_RESTRICT x, const float* GC_RESTRICT y, float a,
                  std::size_t n) {
  for (std::size_t i = 0; i < n; ++i) z[i] = x[i] + a * y[i];
}

extern const BandwidthKernels kBandwidth;
const BandwidthKernels kBandwidth = {read_sum, copy, triad};

}  // namespace GC_ISA_NS
}  // namespace gramcore::core
