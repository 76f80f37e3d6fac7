// A large uninitialised array on huge pages where the system grants them: suffix sorting jumps all over its arrays, and
// every jump would otherwise also miss in the page tables.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace gramcore::ngram {

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

template <class T>
using BigArray = std::unique_ptr<T[], FreeDeleter>;

template <class T>
BigArray<T> make_big_array(std::size_t n) {
  constexpr std::size_t kHuge = std::size_t{1} << 21;
  const std::size_t bytes = n * sizeof(T), align = bytes >= kHuge ? kHuge : 64;
  const std::size_t rounded = (bytes + align) / align * align;
  void* p = std::aligned_alloc(align, rounded);
  if (!p) throw std::bad_alloc();
  if (align == kHuge) ::madvise(p, rounded, MADV_HUGEPAGE);  // a hint: failure is harmless
  return BigArray<T>(static_cast<T*>(p));
}

}  // namespace gramcore::ngram
