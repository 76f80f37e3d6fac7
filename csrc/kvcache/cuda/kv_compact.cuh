// cache[b, h, lengths[b] + i] = cache[b, h, lengths[b] + path[b, i]], i ascending, in place.
//
// Mapping: blockIdx = (cache, sequence, chunk of units); a thread owns one unit (16, 4 or 2 bytes) of the rows of one
// head and walks the path alone.  path[i] >= i, so a slot is read before the same thread overwrites it and no thread
// touches another's units: no barrier.  Units are as wide as the alignment of data, steps and rows allows.
// Bytes moved: one read and one write per moved row.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/hd.h"
#include "kvcache/cuda/kv_compact.h"
#include "kvcache/cuda/kv_compact_policy.h"

namespace gramcore::kvcache {

struct KvCompactLaunch {
  const std::int64_t *lengths, *path;
  std::int64_t steps;
  KvCompactCache cache[KvCompactPolicy::kMaxCaches];
};
static_assert(sizeof(KvCompactLaunch) <= 32764, "kernel parameters are limited to 32,764 bytes");

template <class Unit>
__device__ __forceinline__ void move_unit(char* base, const std::int64_t* path, std::int64_t count, std::int64_t step) {
  for (std::int64_t i = 0; i < count; ++i) {
    if (path[i] != i) *reinterpret_cast<Unit*>(base + i * step) = *reinterpret_cast<const Unit*>(base + path[i] * step);
  }
}

// Low bits are set where the address of some row may have them.
GC_HD inline std::uint64_t alignment_bits(const KvCompactCache& c) {
  return reinterpret_cast<std::uintptr_t>(c.data) | static_cast<std::uint64_t>(c.batch_bytes) |
         static_cast<std::uint64_t>(c.head_bytes) | static_cast<std::uint64_t>(c.slot_bytes) |
         static_cast<std::uint64_t>(c.row_bytes);
}

// Bytes one thread moves of a row.
GC_HD inline int unit_bytes(const KvCompactCache& c) {
  const std::uint64_t bits = alignment_bits(c);
  return (bits & 15) == 0 ? 16 : (bits & 3) == 0 ? 4 : 2;
}

__global__ void __launch_bounds__(KvCompactPolicy::kThreads)
    kv_compact_kernel(const __grid_constant__ KvCompactLaunch launch) {
  const KvCompactCache& c = launch.cache[blockIdx.x];
  const std::int64_t batch = blockIdx.y;
  const std::int64_t* const path = launch.path + batch * launch.steps;
  const std::int64_t length = launch.lengths[batch];
  if (length < 0) __trap();
  std::int64_t count = 0;
  for (; count < launch.steps && path[count] >= 0; ++count) {
    if ((count > 0 && path[count] <= path[count - 1]) || length + path[count] >= c.capacity) __trap();
  }
  const int bytes = unit_bytes(c);
  const std::uint32_t units = static_cast<std::uint32_t>(c.row_bytes) / static_cast<std::uint32_t>(bytes);
  const std::uint32_t at = blockIdx.z * KvCompactPolicy::kThreads + threadIdx.x;
  if (at >= c.heads * units) return;
  char* const base = static_cast<char*>(c.data) + batch * c.batch_bytes + at / units * c.head_bytes +
                     length * c.slot_bytes + at % units * bytes;
  if (bytes == 16) {
    move_unit<uint4>(base, path, count, c.slot_bytes);
  } else if (bytes == 4) {
    move_unit<std::uint32_t>(base, path, count, c.slot_bytes);
  } else {
    move_unit<std::uint16_t>(base, path, count, c.slot_bytes);
  }
}

}  // namespace gramcore::kvcache
