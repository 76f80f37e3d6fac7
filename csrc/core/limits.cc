#include "core/limits.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <vector>

#include "core/check.h"
#include "core/kernels/bandwidth.h"
#include "core/kernels/peak.h"
#include "core/thread_pool.h"

namespace gramcore {
namespace {

template <class Pass>
double best_seconds(int passes, Pass&& pass) {
  double best = 1e30;
  for (int i = 0; i < passes; ++i) {
    const auto start = std::chrono::steady_clock::now();
    pass();
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  return best;
}

double best_rate(const core::PeakProbe& probe, int passes) {
  if (probe.run == nullptr) return 0;
  constexpr std::int64_t kRounds = 200'000;
  const std::int64_t chunks = std::int64_t{num_threads()} * 8;
  std::atomic<float> sink{0};
  const double seconds = best_seconds(passes, [&] {
    parallel_chunks(chunks, [&](std::int64_t) { sink.store(probe.run(kRounds), std::memory_order_relaxed); });
  });
  return static_cast<double>(chunks * kRounds) * probe.operations / seconds;
}

}  // namespace

Bandwidth measure_bandwidth(std::size_t num_bytes, int passes) {
  GC_CHECK(num_bytes >= 4096 && passes >= 1, "num_bytes must be >= 4096 and passes >= 1, got ", num_bytes, " and ",
           passes);
  const auto n = static_cast<std::int64_t>(num_bytes / sizeof(float));
  std::vector<float> x(static_cast<std::size_t>(n), 1.0f), y(x), z(x);
  const auto& kernels = core::bandwidth_kernels();
  const std::int64_t grain = 1 << 16;
  std::atomic<float> sink{0};
  const double bytes = static_cast<double>(n) * sizeof(float);
  Bandwidth result{};
  result.read = bytes / best_seconds(passes, [&] {
                  parallel_for(n, grain, [&](std::int64_t b, std::int64_t e) {
                    sink.store(kernels.read(x.data() + b, static_cast<std::size_t>(e - b)), std::memory_order_relaxed);
                  });
                });
  result.copy = 2 * bytes / best_seconds(passes, [&] {
                  parallel_for(n, grain, [&](std::int64_t b, std::int64_t e) {
                    kernels.copy(y.data() + b, x.data() + b, static_cast<std::size_t>(e - b));
                  });
                });
  result.triad = 3 * bytes / best_seconds(passes, [&] {
                   parallel_for(n, grain, [&](std::int64_t b, std::int64_t e) {
                     kernels.triad(z.data() + b, x.data() + b, y.data() + b, 0.5f, static_cast<std::size_t>(e - b));
                   });
                 });
  return result;
}

Compute measure_compute(int passes) {
  GC_CHECK(passes >= 1, "passes must be >= 1, got ", passes);
  const auto& kernels = core::peak_kernels();
  return {best_rate(kernels.fp32, passes), best_rate(kernels.bf16, passes), best_rate(kernels.int8, passes),
          best_rate(kernels.int8_tile, passes)};
}

}  // namespace gramcore
