#include "fiber.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <new>

#include "sanitizer.h"

#if !defined(GC_HOST_UCONTEXT)
// Saves the callee-saved registers on the current stack, stores its pointer in *rdi, and resumes the stack at rsi.
extern "C" void gc_host_switch_stack(void** save, void* resume);
asm(R"(
.pushsection .text
.hidden gc_host_switch_stack
.globl gc_host_switch_stack
.type gc_host_switch_stack, @function
gc_host_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size gc_host_switch_stack, .-gc_host_switch_stack
.popsection
)");
#endif

namespace gramcore::cuda_host {

namespace {
constexpr std::size_t kStackBytes = 256 * 1024;  // address space; only touched pages take memory
}

Fiber::Fiber(void (*entry)()) : race_fiber_(sanitizer::create_fiber()) {
  const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  mapping_bytes_ = kStackBytes + page;
  void* mapping =
      mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(mapping);
  if (mprotect(mapping_, page, PROT_NONE) != 0) {
    munmap(mapping_, mapping_bytes_);
    throw std::bad_alloc();
  }
  stack_ = mapping_ + page;
  stack_bytes_ = kStackBytes;
  sanitizer::unpoison(stack_, stack_bytes_);
#if defined(GC_HOST_UCONTEXT)
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack_;
  context_.uc_stack.ss_size = stack_bytes_;
  context_.uc_link = nullptr;
  makecontext(&context_, entry, 0);
#else
  // Six saved registers, then the address `ret` jumps to, then an empty return address that keeps rsp as the ABI
  // wants it on entry to a function (8 modulo 16).
  std::uintptr_t* top = reinterpret_cast<std::uintptr_t*>(stack_ + stack_bytes_) - 1;
  top[0] = 0;
  top[-1] = reinterpret_cast<std::uintptr_t>(entry);
  for (int i = 2; i <= 7; ++i) top[-i] = 0;
  stack_pointer_ = top - 7;
#endif
}

Fiber::~Fiber() {
  sanitizer::destroy_fiber(race_fiber_);
  sanitizer::unpoison(stack_, stack_bytes_);
  munmap(mapping_, mapping_bytes_);
}

void Fiber::switch_stacks(bool into_fiber) {
#if defined(GC_HOST_UCONTEXT)
  if (into_fiber) {
    swapcontext(&scheduler_, &context_);
  } else {
    swapcontext(&context_, &scheduler_);
  }
#else
  if (into_fiber) {
    gc_host_switch_stack(&scheduler_pointer_, stack_pointer_);
  } else {
    gc_host_switch_stack(&stack_pointer_, scheduler_pointer_);
  }
#endif
}

void Fiber::enter() {
  scheduler_race_fiber_ = sanitizer::current_fiber();
  void* fake_stack = nullptr;
  sanitizer::before_switch_stack(&fake_stack, stack_, stack_bytes_);
  sanitizer::before_switch_race(race_fiber_);
  switch_stacks(true);
  sanitizer::after_switch_stack(fake_stack, nullptr, nullptr);
}

void Fiber::begin() {
  sanitizer::after_switch_stack(nullptr, &scheduler_stack_, &scheduler_stack_bytes_);
}

void Fiber::leave() {
  sanitizer::before_switch_stack(&fake_stack_, scheduler_stack_, scheduler_stack_bytes_);
  sanitizer::before_switch_race(scheduler_race_fiber_);
  switch_stacks(false);
  sanitizer::after_switch_stack(fake_stack_, &scheduler_stack_, &scheduler_stack_bytes_);
}

}  // namespace gramcore::cuda_host
