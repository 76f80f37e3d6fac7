// Atomic functions.  Relaxed, as on the device: atomicity without ordering.
#pragma once

#include <cstdint>
#include <cstring>

namespace gramcore::cuda_host {

template <class Bits, class T, class Update>
T atomic_update(T* address, Update update) {
  static_assert(sizeof(Bits) == sizeof(T));
  Bits* word = reinterpret_cast<Bits*>(address);
  Bits seen = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    T old;
    std::memcpy(&old, &seen, sizeof(T));
    const T fresh = update(old);
    Bits wanted;
    std::memcpy(&wanted, &fresh, sizeof(T));
    if (__atomic_compare_exchange_n(word, &seen, wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) return old;
  }
}

}  // namespace gramcore::cuda_host

#define GC_HOST_ATOMIC_INTEGER(T, Bits)                                                            \
  inline T atomicAdd(T* p, T v) {                                                                  \
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);                                             \
  }                                                                                                \
  inline T atomicExch(T* p, T v) {                                                                 \
    return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);                                            \
  }                                                                                                \
  inline T atomicAnd(T* p, T v) {                                                                  \
    return __atomic_fetch_and(p, v, __ATOMIC_RELAXED);                                             \
  }                                                                                                \
  inline T atomicOr(T* p, T v) {                                                                   \
    return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);                                              \
  }                                                                                                \
  inline T atomicXor(T* p, T v) {                                                                  \
    return __atomic_fetch_xor(p, v, __ATOMIC_RELAXED);                                             \
  }                                                                                                \
  inline T atomicMax(T* p, T v) {                                                                  \
    return gramcore::cuda_host::atomic_update<Bits>(p, [v](T old) { return old > v ? old : v; });  \
  }                                                                                                \
  inline T atomicMin(T* p, T v) {                                                                  \
    return gramcore::cuda_host::atomic_update<Bits>(p, [v](T old) { return old < v ? old : v; });  \
  }                                                                                                \
  inline T atomicCAS(T* p, T expected, T desired) {                                                \
    __atomic_compare_exchange_n(p, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); \
    return expected;                                                                               \
  }

GC_HOST_ATOMIC_INTEGER(int, std::uint32_t)
GC_HOST_ATOMIC_INTEGER(unsigned, std::uint32_t)
GC_HOST_ATOMIC_INTEGER(unsigned long long, std::uint64_t)
#undef GC_HOST_ATOMIC_INTEGER

inline int atomicSub(int* p, int v) {
  return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED);
}
inline unsigned atomicSub(unsigned* p, unsigned v) {
  return __atomic_fetch_sub(p, v, __ATOMIC_RELAXED);
}

// Counts up to `limit`, then wraps to 0; the usual ticket of "the last block finishes the work".
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return gramcore::cuda_host::atomic_update<std::uint32_t>(
      p, [limit](unsigned old) { return old >= limit ? 0u : old + 1u; });
}

inline float atomicAdd(float* p, float v) {
  return gramcore::cuda_host::atomic_update<std::uint32_t>(p, [v](float old) { return old + v; });
}
inline double atomicAdd(double* p, double v) {
  return gramcore::cuda_host::atomic_update<std::uint64_t>(p, [v](double old) { return old + v; });
}
inline float atomicExch(float* p, float v) {
  return gramcore::cuda_host::atomic_update<std::uint32_t>(p, [v](float) { return v; });
}
