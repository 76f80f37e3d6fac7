// A fiber: a stack and the point where it left off.  Switches cost a few nanoseconds on x86-64 (a hand-written
// switch); elsewhere, and with GC_HOST_UCONTEXT, swapcontext() does it.
#pragma once

#include <cstddef>

#if !defined(__x86_64__) && !defined(GC_HOST_UCONTEXT)
#define GC_HOST_UCONTEXT 1
#endif

#if defined(GC_HOST_UCONTEXT)
#include <ucontext.h>
#endif

namespace gramcore::cuda_host {

class Fiber {
 public:
  // `entry` never returns: it switches back to the scheduler for good.
  explicit Fiber(void (*entry)());
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Called by the scheduler: runs the fiber until it calls leave().
  void enter();
  // Called on the fiber's own stack: back to the enter() that started it.
  void leave();
  // First thing `entry` does.
  void begin();

 private:
  void switch_stacks(bool into_fiber);

  char* mapping_ = nullptr;  // a guard page, then the stack
  std::size_t mapping_bytes_ = 0;
  char* stack_ = nullptr;
  std::size_t stack_bytes_ = 0;
#if defined(GC_HOST_UCONTEXT)
  ucontext_t context_{}, scheduler_{};
#else
  void* stack_pointer_ = nullptr;
  void* scheduler_pointer_ = nullptr;
#endif
  void* race_fiber_ = nullptr;  // ThreadSanitizer's thread for this fiber
  void* scheduler_race_fiber_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's, while the fiber is left
  const void* scheduler_stack_ = nullptr;
  std::size_t scheduler_stack_bytes_ = 0;
};

}  // namespace gramcore::cuda_host
