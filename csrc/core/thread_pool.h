// The one pool of worker threads.  The caller always works too and never waits for a worker that has not
// taken a chunk, so a busy machine costs the missing help and nothing more.  Safe to use after fork.
#pragma once

#include <cstdint>
#include <exception>
#include <mutex>

namespace gramcore {

// Tells the processor that this thread spins.
inline void cpu_pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

// Threads that take part in a parallel call, the caller included.  Order of precedence: set_num_threads,
// the hook (torch.get_num_threads once torch is loaded), OMP_NUM_THREADS, the affinity mask of the process.
int num_threads();
void set_num_threads(int n);  // n >= 1; 0 returns to the default
void set_num_threads_hook(int (*hook)());

// Runs fn(context, chunk) for chunk in [0, num_chunks), each once, on any thread, and returns when all are
// done.  fn must not throw.  Calls from inside a chunk, or while another thread's call runs, run inline.
void run_chunks(std::int64_t num_chunks, void (*fn)(void* context, std::int64_t chunk), void* context);

// fn(chunk) for every chunk; the first exception is rethrown here after all chunks ended.
template <class F>
void parallel_chunks(std::int64_t num_chunks, F&& fn) {
  struct Context {
    F* fn;
    std::mutex mutex;
    std::exception_ptr error;
  } context{&fn, {}, nullptr};
  run_chunks(
      num_chunks,
      [](void* raw, std::int64_t chunk) {
        auto* c = static_cast<Context*>(raw);
        try {
          (*c->fn)(chunk);
        } catch (...) {
          const std::lock_guard<std::mutex> lock(c->mutex);
          if (!c->error) c->error = std::current_exception();
        }
      },
      &context);
  if (context.error) std::rethrow_exception(context.error);
}

// fn(begin, end) over [0, n) in pieces of at least `grain` elements, a few pieces per thread.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, F&& fn) {
  if (n <= 0) return;
  if (grain < 1) grain = 1;
  const std::int64_t most = (n + grain - 1) / grain, wanted = std::int64_t{num_threads()} * 4;
  const std::int64_t pieces = most < wanted ? most : wanted;
  const std::int64_t size = (n + pieces - 1) / pieces;
  parallel_chunks((n + size - 1) / size, [&](std::int64_t i) {
    const std::int64_t begin = i * size, end = begin + size < n ? begin + size : n;
    fn(begin, end);
  });
}

}  // namespace gramcore
