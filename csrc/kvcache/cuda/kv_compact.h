// The CUDA twin of kvcache::compact, over all caches of a model at once.
#pragma once

#include <cstdint>

namespace gramcore::kvcache {

// One (batch, heads, capacity, head_dim) tensor, dense along head_dim; steps and rows in bytes.
struct KvCompactCache {
  void* data;
  std::int64_t batch_bytes, head_bytes, slot_bytes, row_bytes;
  std::int64_t heads, capacity;
};

// Slot lengths[b] + path[b, i] moves to lengths[b] + i, for i from 0 up to the first negative entry.  `caches` is a
// host array; lengths (batch) and path (batch, steps) are on the device, and the kernel traps on a path that is not
// strictly increasing or leaves a cache.
struct KvCompactArgs {
  const KvCompactCache* caches;
  std::int64_t num_caches;
  const std::int64_t *lengths, *path;
  std::int64_t batch, steps;
};

}  // namespace gramcore::kvcache

// stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_kv_compact(const gramcore::kvcache::KvCompactArgs* args, void* stream);
