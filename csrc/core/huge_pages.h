// Huge pages: memory that is read at random, or once per token from end to end, otherwise loses a good part of its time
// to address translation.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

namespace gramcore {

constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Asks for them where whole ones fit in memory not yet written.  A hint: failure is harmless.
inline void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] std::size_t size) {
#if defined(MADV_HUGEPAGE)
  const std::uintptr_t first = (reinterpret_cast<std::uintptr_t>(data) + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t last = (reinterpret_cast<std::uintptr_t>(data) + size) / kHugePage * kHugePage;
  if (first < last) ::madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

}  // namespace gramcore
