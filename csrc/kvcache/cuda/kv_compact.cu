#include "core/cuda/status.h"
#include "kvcache/cuda/kv_compact.cuh"

namespace gramcore::kvcache {
namespace {

using cuda::invalid;
using Policy = KvCompactPolicy;

int check(const KvCompactArgs& a) {
  if (a.batch < 0 || a.batch > 65535) return invalid("batch must be in [0, 65535] on a CUDA device, got ", a.batch);
  if (a.steps < 0) return invalid("steps must be >= 0, got ", a.steps);
  if (a.num_caches < 0) return invalid("num_caches must be >= 0, got ", a.num_caches);
  if (a.batch == 0 || a.steps == 0 || a.num_caches == 0) return cuda::kOk;
  if (a.caches == nullptr || a.lengths == nullptr || a.path == nullptr) {
    return invalid("caches, lengths and path must not be null");
  }
  for (std::int64_t i = 0; i < a.num_caches; ++i) {
    const KvCompactCache& c = a.caches[i];
    if (c.heads < 0 || c.capacity < 0 || c.row_bytes < 0 || c.row_bytes > 1 << 16 || c.heads > 1 << 16) {
      return invalid("caches must have at most 65536 heads and bytes per row, got ", c.heads, " and ", c.row_bytes,
                     " (cache ", i, ")");
    }
    if ((alignment_bits(c) & 1) != 0) {
      return invalid("caches must be aligned to their element size of 2 or 4 bytes (cache ", i, ")");
    }
    if (c.data == nullptr && c.heads * c.capacity * c.row_bytes > 0) {
      return invalid("caches must not be null (cache ", i, ")");
    }
  }
  return cuda::kOk;
}

}  // namespace
}  // namespace gramcore::kvcache

int gc_cuda_kv_compact(const gramcore::kvcache::KvCompactArgs* args, void* stream) {
  using namespace gramcore;
  using namespace gramcore::kvcache;
  const KvCompactArgs& a = *args;
  if (const int status = check(a); status != cuda::kOk) return status;
  if (a.batch == 0 || a.steps == 0) return cuda::set_status(cuda::kOk, "");
  for (std::int64_t first = 0; first < a.num_caches; first += Policy::kMaxCaches) {
    KvCompactLaunch launch{a.lengths, a.path, a.steps, {}};
    std::int64_t caches = 0, chunks = 1;
    for (; caches < Policy::kMaxCaches && first + caches < a.num_caches; ++caches) {
      const KvCompactCache& c = a.caches[first + caches];
      launch.cache[caches] = c;
      const std::int64_t needed = (c.heads * (c.row_bytes / unit_bytes(c)) + Policy::kThreads - 1) / Policy::kThreads;
      chunks = needed > chunks ? needed : chunks;
    }
    if (chunks > 65535)
      return cuda::invalid("caches must have fewer than 2^23 units per sequence, got ", chunks, " chunks");
    const dim3 grid(static_cast<unsigned>(caches), static_cast<unsigned>(a.batch), static_cast<unsigned>(chunks));
    GC_CUDA_LAUNCH(kv_compact_kernel, grid, Policy::kThreads, 0, static_cast<cudaStream_t>(stream), launch);
    if (const int status = cuda::launch_status("kv_compact"); status != cuda::kOk) return status;
  }
  return cuda::set_status(cuda::kOk, "");
}
