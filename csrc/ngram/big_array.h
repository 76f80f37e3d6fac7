// A large uninitialised array on huge pages where the system grants them: suffix sorting jumps all over its arrays, and
// every jump would otherwise also miss in the page tables.  It is the system's again as soon as it is freed: the
// allocator would keep it, and sorting in blocks would exceed its limit of memory by a block's arrays.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "core/huge_pages.h"

namespace gramcore::ngram {

struct BigArrayDeleter {
  std::size_t mapped_bytes = 0;  // 0: of the allocator
  void operator()(void* p) const { mapped_bytes > 0 ? static_cast<void>(::munmap(p, mapped_bytes)) : std::free(p); }
};

template <class T>
using BigArray = std::unique_ptr<T[], BigArrayDeleter>;

template <class T>
BigArray<T> make_big_array(std::size_t n) {
  constexpr std::size_t kMapped = kHugePage / 2, kPage = 65536;  // bytes from which it is mapped; a multiple of a page
  const std::size_t bytes = n * sizeof(T);
  if (bytes < kMapped) {
    void* const p = std::aligned_alloc(64, (bytes + 64) / 64 * 64);
    if (!p) throw std::bad_alloc();
    return BigArray<T>(static_cast<T*>(p));
  }
  // What lies before the first whole huge page and behind the last is given back: its pages would count in full.
  const std::size_t size = (bytes + kPage - 1) / kPage * kPage, more = size + kHugePage;
  void* const mapped = ::mmap(nullptr, more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  const auto address = reinterpret_cast<std::uintptr_t>(mapped);
  const std::size_t before = (kHugePage - address % kHugePage) % kHugePage;
  auto* const p = static_cast<unsigned char*>(mapped) + before;
  if (before > 0) ::munmap(mapped, before);
  ::munmap(p + size, more - before - size);
  advise_huge_pages(p, size);
  return BigArray<T>(reinterpret_cast<T*>(p), BigArrayDeleter{size});
}

}  // namespace gramcore::ngram
