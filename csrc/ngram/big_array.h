// A large uninitialised array on huge pages where the system grants them: suffix sorting jumps all over its arrays, and
// every jump would otherwise also miss in the page tables.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/huge_pages.h"

namespace gramcore::ngram {

struct FreeDeleter {
  void operator()(void* p) const { std::free(p); }
};

template <class T>
using BigArray = std::unique_ptr<T[], FreeDeleter>;

template <class T>
BigArray<T> make_big_array(std::size_t n) {
  const std::size_t bytes = n * sizeof(T), align = bytes >= kHugePage ? kHugePage : 64;
  const std::size_t rounded = (bytes + align) / align * align;
  void* p = std::aligned_alloc(align, rounded);
  if (!p) throw std::bad_alloc();
  advise_huge_pages(p, rounded);
  return BigArray<T>(static_cast<T*>(p));
}

}  // namespace gramcore::ngram
