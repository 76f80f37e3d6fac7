// What the fiber switch must tell AddressSanitizer and ThreadSanitizer.  The runtime (*.cc here) is compiled without
// instrumentation even in sanitizer builds, so that the only accesses and orderings ThreadSanitizer sees are those
// of the kernels and the edges declared here; GC_HOST_ASAN / GC_HOST_TSAN say which sanitizer the kernels use.
#pragma once

#include <cstddef>

#if defined(GC_HOST_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(GC_HOST_TSAN)
#include <sanitizer/tsan_interface.h>
#endif

namespace gramcore::cuda_host::sanitizer {

#if defined(GC_HOST_TSAN)
inline constexpr bool kRaceDetector = true;
inline void* create_fiber() {
  return __tsan_create_fiber(0);
}
inline void destroy_fiber(void* fiber) {
  __tsan_destroy_fiber(fiber);
}
inline void* current_fiber() {
  return __tsan_get_current_fiber();
}
inline void before_switch_race(void* to) {
  __tsan_switch_to_fiber(to, 1u << 0);
}  // no happens-before edge
inline void release(void* address) {
  __tsan_release(address);
}
inline void acquire(void* address) {
  __tsan_acquire(address);
}
#else
inline constexpr bool kRaceDetector = false;
inline void* create_fiber() {
  return nullptr;
}
inline void destroy_fiber(void*) {}
inline void* current_fiber() {
  return nullptr;
}
inline void before_switch_race(void*) {}
inline void release(void*) {}
inline void acquire(void*) {}
#endif

#if defined(GC_HOST_ASAN)
inline constexpr bool kOneBlockAtATime = true;  // static __shared__ arrays are plain globals, see qualifiers.h
inline void before_switch_stack(void** fake_stack, const void* bottom, std::size_t bytes) {
  __sanitizer_start_switch_fiber(fake_stack, bottom, bytes);
}
inline void after_switch_stack(void* fake_stack, const void** old_bottom, std::size_t* old_bytes) {
  __sanitizer_finish_switch_fiber(fake_stack, old_bottom, old_bytes);
}
inline void unpoison(void* bottom, std::size_t bytes) {
  __asan_unpoison_memory_region(bottom, bytes);
}
#else
inline constexpr bool kOneBlockAtATime = false;
inline void before_switch_stack(void**, const void*, std::size_t) {}
inline void after_switch_stack(void*, const void**, std::size_t*) {}
inline void unpoison(void*, std::size_t) {}
#endif

}  // namespace gramcore::cuda_host::sanitizer
