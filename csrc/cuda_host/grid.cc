// Distributes the blocks of a launch over CPU threads and implements the runtime API twins.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <unordered_map>
#include <vector>

#include "block.h"
#include "launch.h"
#include "sanitizer.h"

namespace gramcore::cuda_host {

namespace {

constexpr std::size_t kDefaultSharedBytes = 48 * 1024;
constexpr std::size_t kMaxSharedBytes = 227 * 1024;
constexpr unsigned kMaxBlockThreads = 1024, kMaxBlockZ = 64, kMaxGridYZ = 65535;

// Runners keep their fibers between launches.
struct Process {
  std::mutex mutex;
  std::vector<std::unique_ptr<BlockRunner>> idle;
  std::unordered_map<const void*, std::size_t> shared_limit;
  int num_workers = 0;  // 0: as many as the machine has, at most 4
};

Process& process() {
  static Process p;
  return p;
}

std::unique_ptr<BlockRunner> take_runner() {
  const std::lock_guard<std::mutex> lock(process().mutex);
  if (process().idle.empty()) return std::make_unique<BlockRunner>();
  std::unique_ptr<BlockRunner> runner = std::move(process().idle.back());
  process().idle.pop_back();
  return runner;
}

void return_runner(std::unique_ptr<BlockRunner> runner) {
  const std::lock_guard<std::mutex> lock(process().mutex);
  process().idle.push_back(std::move(runner));
}

int choose_workers(std::uint64_t num_blocks) {
  if (sanitizer::kOneBlockAtATime) return 1;
  int n;
  {
    const std::lock_guard<std::mutex> lock(process().mutex);
    n = process().num_workers;
  }
  if (n == 0) n = std::clamp(static_cast<int>(std::thread::hardware_concurrency()), 1, 4);
  if (sanitizer::kRaceDetector) n = std::max(n, 2);  // neighbouring blocks must be able to race
  return static_cast<int>(std::min<std::uint64_t>(static_cast<std::uint64_t>(n), num_blocks));
}

struct Grid {
  const LaunchConfig& config;
  BlockRunner::Body body;
  const void* closure;
  std::uint64_t num_blocks;
  int num_workers;
  std::atomic<bool> stop{false};
  std::mutex mutex{};
  std::string error{};
  cudaError_t code = cudaSuccess;

  void record(cudaError_t failure, const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex);
    stop.store(true, std::memory_order_relaxed);
    if (code != cudaSuccess) return;
    code = failure;
    error = text;
  }

  uint3 block_index(std::uint64_t b) const {
    const dim3 g = config.grid;
    return {static_cast<unsigned>(b % g.x), static_cast<unsigned>(b / g.x % g.y), static_cast<unsigned>(b / g.x / g.y)};
  }

  // Blocks worker, worker + num_workers, ...: neighbours always run on different CPU threads.
  void work(int worker) {
    std::unique_ptr<BlockRunner> runner = take_runner();
    const std::size_t bytes = config.dynamic_shared_bytes;
    void* shared = nullptr;
    if (bytes != 0 && posix_memalign(&shared, 128, bytes) != 0) throw std::bad_alloc();
    const std::unique_ptr<void, void (*)(void*)> owner(shared, std::free);
    for (std::uint64_t b = static_cast<std::uint64_t>(worker); b < num_blocks;
         b += static_cast<std::uint64_t>(num_workers)) {
      if (stop.load(std::memory_order_relaxed)) break;
      if (bytes != 0) std::memset(shared, 0xff, bytes);  // uninitialised: a NaN in every float format
      if (!runner->run(config, block_index(b), shared, body, closure)) {
        record(cudaErrorLaunchFailure, runner->error());
        return;  // its abandoned fibers go with the runner
      }
    }
    return_runner(std::move(runner));
  }

  void work_or_record(int worker) {
    try {
      work(worker);
    } catch (const std::bad_alloc&) {
      record(cudaErrorMemoryAllocation, "out of memory for fiber stacks or shared memory");
    }
  }
};

const char* invalid_config(const LaunchConfig& c) {
  const dim3 g = c.grid, b = c.block;
  if (g.x == 0 || g.y == 0 || g.z == 0 || b.x == 0 || b.y == 0 || b.z == 0) return "grid and block must not be empty";
  if (g.x > 0x7fffffffu || g.y > kMaxGridYZ || g.z > kMaxGridYZ) return "grid exceeds (2^31-1, 65535, 65535)";
  if (b.x > kMaxBlockThreads || b.y > kMaxBlockThreads || b.z > kMaxBlockZ || b.x * b.y * b.z > kMaxBlockThreads) {
    return "block exceeds 1024 threads or 64 in z";
  }
  const std::lock_guard<std::mutex> lock(process().mutex);
  const auto limit = process().shared_limit.find(c.kernel);
  const std::size_t allowed = limit == process().shared_limit.end() ? kDefaultSharedBytes : limit->second;
  if (c.dynamic_shared_bytes > allowed) return "dynamic shared memory exceeds what cudaFuncSetAttribute allowed";
  return nullptr;
}

}  // namespace

void run_grid(const LaunchConfig& config, void (*body)(const void*), const void* closure) {
  if (const char* reason = invalid_config(config)) {
    set_last_error(cudaErrorInvalidConfiguration, reason);
    return;
  }
  const std::uint64_t num_blocks = std::uint64_t{config.grid.x} * config.grid.y * config.grid.z;
  Grid grid{config, body, closure, num_blocks, choose_workers(num_blocks)};
  std::vector<std::thread> threads;
  try {
    for (int w = 1; w < grid.num_workers; ++w) threads.emplace_back([&grid, w] { grid.work_or_record(w); });
  } catch (const std::system_error& e) {
    grid.record(cudaErrorMemoryAllocation, e.what());
  }
  grid.work_or_record(0);
  for (std::thread& t : threads) t.join();
  if (grid.code != cudaSuccess) set_last_error(grid.code, grid.error.c_str());
}

void set_num_workers(int n) {
  const std::lock_guard<std::mutex> lock(process().mutex);
  process().num_workers = std::clamp(n, 1, 64);
}

cudaError_t set_function_shared_limit(const void* kernel, int bytes) {
  if (bytes < 0 || static_cast<std::size_t>(bytes) > kMaxSharedBytes) return set_last_error(cudaErrorInvalidValue);
  const std::lock_guard<std::mutex> lock(process().mutex);
  process().shared_limit[kernel] = static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

}  // namespace gramcore::cuda_host
