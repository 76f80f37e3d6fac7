// The running thread as a kernel sees it: its indices, block barriers, fences.
#pragma once

#include <cstddef>

#include "qualifiers.h"
#include "vector_types.h"

namespace gramcore::cuda_host {

// Where in the source a thread waits; printed when a block cannot go on.
struct Site {
  const char* file;
  int line;
};

struct Thread {
  uint3 thread_idx, block_idx;
  dim3 block_dim, grid_dim;
  void* dynamic_shared;  // exactly the requested bytes, on the heap
  std::size_t dynamic_shared_bytes;
};

// The fiber running on this CPU thread; null outside a kernel.
extern __thread const Thread* current_thread;

enum class BarrierOp : unsigned char { sync, any, all, count };

// Waits for every thread of the block and returns the reduced predicate.  A block in which a thread has returned
// or waits elsewhere can never complete it and is reported as an error.
int block_barrier(BarrierOp op, bool predicate, Site site);

// Orders this thread's accesses for the race detector and for other CPU threads.
void thread_fence();

// Lets the other threads of the block run.
void yield();

// Ends the launch with cudaErrorLaunchFailure and this text.
[[noreturn]] void kernel_error(const char* text, Site site);

}  // namespace gramcore::cuda_host

#define threadIdx (::gramcore::cuda_host::current_thread->thread_idx)
#define blockIdx (::gramcore::cuda_host::current_thread->block_idx)
#define blockDim (::gramcore::cuda_host::current_thread->block_dim)
#define gridDim (::gramcore::cuda_host::current_thread->grid_dim)
inline constexpr int warpSize = 32;

#define GC_HOST_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(GC_HOST_SITE) {
  gramcore::cuda_host::block_barrier(gramcore::cuda_host::BarrierOp::sync, false, {file, line});
}
inline int __syncthreads_or(int predicate, GC_HOST_SITE) {
  return gramcore::cuda_host::block_barrier(gramcore::cuda_host::BarrierOp::any, predicate != 0, {file, line});
}
inline int __syncthreads_and(int predicate, GC_HOST_SITE) {
  return gramcore::cuda_host::block_barrier(gramcore::cuda_host::BarrierOp::all, predicate != 0, {file, line});
}
inline int __syncthreads_count(int predicate, GC_HOST_SITE) {
  return gramcore::cuda_host::block_barrier(gramcore::cuda_host::BarrierOp::count, predicate != 0, {file, line});
}
inline void __threadfence_block() {
  gramcore::cuda_host::thread_fence();
}
inline void __threadfence() {
  gramcore::cuda_host::thread_fence();
}
inline void __threadfence_system() {
  gramcore::cuda_host::thread_fence();
}
inline void __nanosleep(unsigned) {
  gramcore::cuda_host::yield();
}
[[noreturn]] inline void __trap(GC_HOST_SITE) {
  gramcore::cuda_host::kernel_error("__trap()", {file, line});
}
