// A std::vector whose elements start at a cache line: vectors and tiles that straddle two lines are loaded twice.
#pragma once

#include <cstddef>
#include <new>
#include <vector>

namespace gramcore {

inline constexpr std::size_t kLineBytes = 64;

template <class T>
struct LineAllocator {
  using value_type = T;
  LineAllocator() = default;
  template <class U>
  LineAllocator(const LineAllocator<U>&) {}
  T* allocate(std::size_t n) {
    if (n > static_cast<std::size_t>(-1) / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{kLineBytes}));
  }
  void deallocate(T* p, std::size_t) { ::operator delete(p, std::align_val_t{kLineBytes}); }
};
template <class T, class U>
bool operator==(const LineAllocator<T>&, const LineAllocator<U>&) {
  return true;
}
template <class T, class U>
bool operator!=(const LineAllocator<T>&, const LineAllocator<U>&) {
  return false;
}

template <class T>
using LineVector = std::vector<T, LineAllocator<T>>;

}  // namespace gramcore
