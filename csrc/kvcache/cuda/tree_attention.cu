#include "core/cuda/status.h"
#include "core/dtype.h"
#include "kvcache/cuda/tree_attention.cuh"

namespace gramcore::kvcache {
namespace {

using cuda::invalid;
using Policy = TreeAttentionPolicy;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}
std::int64_t row_tiles(const AttentionProblem& p) {
  return ceil_div(p.nodes * (p.heads / p.kv_heads), Policy::kWarps);
}
std::int64_t num_splits(const AttentionProblem& p) {
  return ceil_div(p.capacity, Policy::kSplitKeys);
}
// Whether the splits of a row go to blocks of their own.
bool spread(const AttentionProblem& p) {
  return num_splits(p) > 1 && p.batch * p.kv_heads * row_tiles(p) < Policy::kEnoughBlocks;
}
int dims_of(const AttentionProblem& p) {
  return p.head_dim <= 64 ? 2 : p.head_dim <= 128 ? 4 : 8;
}
bool is_float(DType t) {
  return t == DType::f32 || t == DType::bf16 || t == DType::f16;
}

// Sizes; the values of lengths and starts are on the device.
int check(const AttentionProblem& p) {
  if (p.batch < 0 || p.nodes < 0 || p.capacity < p.nodes) {
    return invalid("batch and nodes must be >= 0 and nodes <= capacity, got ", p.batch, ", ", p.nodes, " (capacity ",
                   p.capacity, ")");
  }
  if (p.head_dim < 1 || p.head_dim > Policy::kMaxHeadDim) {
    return invalid("head_dim must be in [1, ", Policy::kMaxHeadDim, "] on a CUDA device, got ", p.head_dim);
  }
  if (p.kv_heads < 1 || p.heads < 1 || p.heads % p.kv_heads != 0) {
    return invalid("query heads must be a multiple of key-value heads, got ", p.heads, " and ", p.kv_heads);
  }
  if (p.key_tiles) return invalid("key_tiles must be false on a CUDA device");
  if (p.ancestors != nullptr && p.words < ceil_div(p.nodes, 64)) {
    return invalid("ancestors must have ", ceil_div(p.nodes, 64), " words per node, got ", p.words, " (", p.nodes,
                   " nodes)");
  }
  if ((p.kv_dtype == DType::i8) != (p.key_scale != nullptr && p.value_scale != nullptr)) {
    return invalid("key_scale and value_scale must be given with an int8 cache and with no other");
  }
  if (!is_float(p.query_dtype) || (!is_float(p.kv_dtype) && p.kv_dtype != DType::i8)) {
    return invalid("query, key and value must be float32, bfloat16 or float16 (caches also int8), got dtype codes ",
                   static_cast<int>(p.query_dtype), " and ", static_cast<int>(p.kv_dtype));
  }
  if (p.batch * p.heads * p.nodes > 0x7fffff00 || num_splits(p) > 65535) {
    return invalid("batch * heads * nodes must be below 2^31 and capacity below ",
                   std::int64_t{65535} * Policy::kSplitKeys, ", got ", p.batch, " * ", p.heads, " * ", p.nodes,
                   " and capacity ", p.capacity);
  }
  return cuda::kOk;
}

template <class T, int kDims>
int launch(const TreeAttentionLaunch& l, cudaStream_t stream) {
  const AttentionProblem& p = l.p;
  const std::int64_t blocks = p.batch * p.kv_heads * std::int64_t{l.row_tiles};
  const unsigned threads = Policy::kWarps * 32;
  constexpr std::size_t kShared = 4 * (Policy::kTileKeys * (32 * kDims + 4) + Policy::kWarps * 32 * kDims);
  static_assert(kShared <= 48 * 1024, "more needs cudaFuncSetAttribute");
  const dim3 grid(static_cast<unsigned>(blocks), l.partials != nullptr ? l.splits : 1u);
  GC_CUDA_LAUNCH((tree_attention_kernel<T, kDims>), grid, threads, kShared, stream, l);
  if (const int status = cuda::launch_status("tree_attention"); status != cuda::kOk) return status;
  if (l.partials == nullptr) return cuda::set_status(cuda::kOk, "");
  const std::int64_t rows = p.batch * p.heads * p.nodes;
  GC_CUDA_LAUNCH((merge_splits_kernel<kDims>), static_cast<unsigned>(ceil_div(rows, Policy::kWarps)), threads, 0,
                 stream, l);
  return cuda::launch_status("tree_attention (merging splits)");
}

template <int kDims>
int dispatch_dtype(const TreeAttentionLaunch& l, cudaStream_t stream) {
  switch (l.p.kv_dtype) {
    case DType::bf16: return launch<bf16, kDims>(l, stream);
    case DType::f16: return launch<f16, kDims>(l, stream);
    case DType::i8: return launch<std::int8_t, kDims>(l, stream);
    default: return launch<float, kDims>(l, stream);
  }
}

}  // namespace
}  // namespace gramcore::kvcache

std::int64_t gc_cuda_tree_attention_workspace(const gramcore::kvcache::AttentionProblem* problem) {
  using namespace gramcore::kvcache;
  const AttentionProblem& p = *problem;
  if (p.kv_heads < 1 || p.heads < 1 || !spread(p)) return 0;
  return p.batch * p.heads * p.nodes * num_splits(p) * (32 * dims_of(p) + 2);
}

int gc_cuda_tree_attention(const gramcore::kvcache::TreeAttentionArgs* args, void* stream) {
  using namespace gramcore;
  using namespace gramcore::kvcache;
  const AttentionProblem& p = args->problem;
  if (const int status = check(p); status != cuda::kOk) return status;
  if (p.batch == 0 || p.nodes == 0) return cuda::set_status(cuda::kOk, "");
  if (p.query == nullptr || p.key == nullptr || p.value == nullptr || p.out == nullptr || p.lengths == nullptr) {
    return cuda::invalid("query, key, value, out and lengths must not be null");
  }
  const std::int64_t needed = gc_cuda_tree_attention_workspace(&p);
  if (args->workspace_floats < needed || (needed > 0 && args->workspace == nullptr)) {
    return cuda::invalid("workspace must have ", needed, " floats, got ", args->workspace_floats);
  }
  const TreeAttentionLaunch l{p,
                              needed > 0 ? args->workspace : nullptr,
                              static_cast<std::uint32_t>(num_splits(p)),
                              static_cast<std::uint32_t>(p.heads / p.kv_heads),
                              static_cast<std::uint32_t>(p.nodes * (p.heads / p.kv_heads)),
                              static_cast<std::uint32_t>(row_tiles(p))};
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  switch (dims_of(p)) {
    case 2: return dispatch_dtype<2>(l, s);
    case 4: return dispatch_dtype<4>(l, s);
    default: return dispatch_dtype<8>(l, s);
  }
}

std::int64_t gc_cuda_tree_attention_ragged_workspace(const gramcore::kvcache::AttentionProblem* problem,
                                                     const std::int64_t* counts) {
  std::int64_t most = 0;
  for (std::int64_t b = 0; b < problem->batch; ++b) {
    gramcore::kvcache::AttentionProblem p = *problem;
    p.batch = 1;
    p.nodes = counts[b];
    const std::int64_t needed = gc_cuda_tree_attention_workspace(&p);
    most = needed > most ? needed : most;
  }
  return most;
}

int gc_cuda_tree_attention_ragged(const gramcore::kvcache::TreeAttentionArgs* args, const std::int64_t* counts,
                                  void* stream) {
  using namespace gramcore;
  const kvcache::AttentionProblem& p = args->problem;
  std::int64_t first = 0;
  for (std::int64_t b = 0; b < p.batch; ++b) {
    if (counts[b] < 0 || counts[b] > p.nodes - first) {
      return cuda::invalid("counts must be >= 0 and add up to ", p.nodes, " rows, got ", counts[b], " after ", first);
    }
    const kvcache::TreeAttentionArgs sequence{kvcache::sequence_of(p, b, first, counts[b]), args->workspace,
                                              args->workspace_floats};
    if (const int status = gc_cuda_tree_attention(&sequence, stream); status != cuda::kOk) return status;
    first += counts[b];
  }
  if (first != p.nodes) return cuda::invalid("counts must add up to ", p.nodes, " rows, got ", first);
  return cuda::set_status(cuda::kOk, "");
}
