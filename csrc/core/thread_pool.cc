#include "core/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <thread>

#include "core/check.h"

namespace gramcore {
namespace {

using Fn = void (*)(void*, std::int64_t);

constexpr int kMaxThreads = 1024;
// A worker looks for work this long before it sleeps: long enough to bridge the operators of one decoding
// step (tens of microseconds apart), short enough not to hold a core that others want.
constexpr auto kSpin = std::chrono::microseconds(60);
constexpr int kPausesPerLook = 16;

int affinity_count() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  const int n = CPU_COUNT(&set);
  return n > 0 ? n : 1;
}

// OMP_NUM_THREADS where it is a positive number (its first level: "4,2" asks for 4), as torch reads it; else the
// affinity mask.  So a process means the same number before torch is loaded and after.
int default_threads() {
  if (const char* wanted = std::getenv("OMP_NUM_THREADS")) {
    char* end = nullptr;
    const long n = std::strtol(wanted, &end, 10);
    const bool is_number = end != wanted && (*end == '\0' || *end == ',');
    if (is_number && n > 0) return static_cast<int>(std::min<long>(n, kMaxThreads));
  }
  return affinity_count();
}

thread_local bool inside_chunk = false;

// One job at a time lives in the fields below.  `ticket` packs (job number << 32 | next chunk): a worker
// reads the fields, then claims a chunk by compare-exchange on the ticket, which fails if the job changed
// in between; so fields that were read belong to the chunk that was claimed.
class Pool {
 public:
  void run(std::int64_t num_chunks, Fn fn, void* context) {
    const int threads = num_threads();
    if (num_chunks <= 1 || threads <= 1 || inside_chunk || !busy_.try_lock()) {
      for (std::int64_t i = 0; i < num_chunks; ++i) fn(context, i);
      return;
    }
    const std::lock_guard<std::mutex> guard(busy_, std::adopt_lock);
    // Chunk numbers fit 32 bits; a larger call is cut into rounds.
    constexpr std::int64_t kRound = std::int64_t{1} << 30;
    for (std::int64_t begin = 0; begin < num_chunks; begin += kRound) {
      run_round(begin, std::min(kRound, num_chunks - begin), threads, fn, context);
    }
  }

 private:
  void run_round(std::int64_t base, std::int64_t n, int threads, Fn fn, void* context) {
    start_workers(threads - 1);
    // Close the old job before its fields change: a worker that already read new fields cannot then claim
    // with the old ticket (its compare-exchange is ordered after this exchange and fails).
    const std::uint64_t job = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
    ticket_.exchange((job << 32) | 0xffffffffu, std::memory_order_acq_rel);
    fn_.store(fn, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    base_.store(base, std::memory_order_relaxed);
    count_.store(static_cast<std::uint32_t>(n), std::memory_order_relaxed);
    helpers_.store(threads - 1, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    ticket_.store(job << 32, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
      const std::lock_guard<std::mutex> lock(sleep_mutex_);
      wake_.notify_all();
    }
    inside_chunk = true;
    while (take_chunk()) {
    }
    inside_chunk = false;
    // Chunks still running were taken by workers that hold a core: spin, then let others run.
    for (int i = 0; done_.load(std::memory_order_acquire) != static_cast<std::uint32_t>(n); ++i) {
      if (i < 20000) {
        cpu_pause();
      } else {
        sched_yield();
      }
    }
  }

  bool take_chunk() {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    for (;;) {
      const std::uint32_t next = static_cast<std::uint32_t>(ticket);
      const Fn fn = fn_.load(std::memory_order_relaxed);
      void* const context = context_.load(std::memory_order_relaxed);
      const std::int64_t base = base_.load(std::memory_order_relaxed);
      if (next >= count_.load(std::memory_order_relaxed)) return false;
      if (ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        fn(context, base + next);
        done_.fetch_add(1, std::memory_order_release);
        return true;
      }
    }
  }

  void start_workers(int wanted) {
    for (; num_workers_ < wanted && num_workers_ < kMaxThreads; ++num_workers_) {
      std::thread([this, index = num_workers_] { work(index); }).detach();
    }
  }

  bool has_work(int index) const {
    const std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    return index < helpers_.load(std::memory_order_relaxed) &&
           static_cast<std::uint32_t>(ticket) < count_.load(std::memory_order_relaxed);
  }

  void work(int index) {
    inside_chunk = true;
    for (;;) {
      if (has_work(index)) {
        while (take_chunk()) {
        }
      }
      const auto deadline = std::chrono::steady_clock::now() + kSpin;
      bool found = false;
      while (!(found = has_work(index)) && std::chrono::steady_clock::now() < deadline) {
        for (int i = 0; i < kPausesPerLook; ++i) cpu_pause();
      }
      if (found) continue;
      std::unique_lock<std::mutex> lock(sleep_mutex_);
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      const std::uint64_t job = ticket_.load(std::memory_order_seq_cst) >> 32;
      if (!has_work(index)) {
        wake_.wait(lock, [&] { return ticket_.load(std::memory_order_seq_cst) >> 32 != job || has_work(index); });
      }
      sleepers_.fetch_sub(1, std::memory_order_seq_cst);
    }
  }

  std::mutex busy_;
  int num_workers_ = 0;  // guarded by busy_
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  std::atomic<Fn> fn_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<std::int64_t> base_{0};
  std::atomic<std::uint32_t> count_{0};
  std::atomic<int> helpers_{0};
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::mutex sleep_mutex_;
  std::condition_variable wake_;
};

std::atomic<int> requested_threads{0};
std::atomic<int (*)()> threads_hook{nullptr};

// Lives forever: workers are detached and may outlive static destruction.  A forked child has no workers,
// and locks may have been held at the fork, so it starts over with a fresh pool.
std::atomic<Pool*> current_pool{nullptr};

Pool& pool() {
  static const bool registered = [] {
    current_pool.store(new Pool, std::memory_order_release);
    pthread_atfork(nullptr, nullptr, [] {
      current_pool.store(new Pool, std::memory_order_release);
      inside_chunk = false;
    });
    return true;
  }();
  static_cast<void>(registered);
  return *current_pool.load(std::memory_order_acquire);
}

}  // namespace

int num_threads() {
  const int requested = requested_threads.load(std::memory_order_relaxed);
  if (requested > 0) return requested;
  if (auto* hook = threads_hook.load(std::memory_order_relaxed)) return hook();
  static const int available = default_threads();
  return available;
}

void set_num_threads(int n) {
  GC_CHECK(n >= 0 && n <= kMaxThreads, "num_threads must be in [0, ", kMaxThreads, "], got ", n,
           "; 0 returns to the default");
  requested_threads.store(n, std::memory_order_relaxed);
}

void set_num_threads_hook(int (*hook)()) {
  threads_hook.store(hook, std::memory_order_relaxed);
}

void run_chunks(std::int64_t num_chunks, Fn fn, void* context) {
  pool().run(num_chunks, fn, context);
}

}  // namespace gramcore
