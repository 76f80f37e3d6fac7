// Kernel launches.  GC_CUDA_LAUNCH (core/cuda/launch.cuh) ends here when there is no nvcc.
#pragma once

#include <cstddef>
#include <tuple>

#include "api.h"
#include "thread.h"

namespace gramcore::cuda_host {

struct LaunchConfig {
  dim3 grid, block;
  std::size_t dynamic_shared_bytes;
  const void* kernel;  // identity, for cudaFuncSetAttribute
};

// Runs body(closure) once per thread of the grid and returns when all have finished.  Failures become this CPU
// thread's last error.
void run_grid(const LaunchConfig& config, void (*body)(const void* closure), const void* closure);

// CPU threads that share the blocks of a launch, 1 <= n <= 64.
void set_num_workers(int n);

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t dynamic_shared_bytes, cudaStream_t,
            Args&&... args) {
  struct Closure {
    void (*kernel)(Params...);
    std::tuple<std::decay_t<Params>...> params;  // copied once, as the device copies its parameters
  };
  const Closure closure{kernel, {static_cast<Params>(args)...}};
  run_grid(
      {grid, block, dynamic_shared_bytes, reinterpret_cast<const void*>(kernel)},
      [](const void* p) {
        const Closure& c = *static_cast<const Closure*>(p);
        std::apply(c.kernel, c.params);
      },
      &closure);
}

}  // namespace gramcore::cuda_host
