// tree_attention, tree_attention_ragged and kv_compact_: the cache kernels on (B, H, T, D) torch tensors, on the CPU
// and (compiled, emulated in the tests) on CUDA devices.
#include <algorithm>
#include <vector>

#include "core/cuda/status.h"
#include "core/thread_pool.h"
#include "kvcache/cuda/kv_compact.h"
#include "kvcache/cuda/tree_attention.h"
#include "kvcache/tree_attention.h"
#include "torch/registry.h"

namespace gramcore::torch {
namespace {

void check_type(const TensorView& t, const char* name, int device) {
  check_device(t, name, device);
  GC_CHECK_AS(TypeMismatch, t.dtype == DType::f32 || t.dtype == DType::bf16 || t.dtype == DType::f16, name,
              " must be float32, bfloat16 or float16, got ", dtype_name(t.dtype));
}

void check_rows(const TensorView& t, const char* name) {
  GC_CHECK(t.rank == 4, name, " must have 4 dimensions (batch, heads, positions, head_dim), got ", shape_string(t));
  GC_CHECK(t.shape[3] == 1 || t.stride[3] == 1, name, " must be dense along head_dim, got stride ", t.stride[3],
           "; call .contiguous()");
}

void check_float(const TensorView& t, const char* name, int device) {
  check_type(t, name, device);
  check_rows(t, name);
}

void check_cache(const TensorView& t, const char* name, int device) {
  if (t.dtype != DType::i8) return check_float(t, name, device);
  check_device(t, name, device);
  check_rows(t, name);
}

// Factors of an int8 cache of shape `cache`.
const float* check_scale(const TensorView& t, const char* name, const TensorView& cache, int device) {
  check_device(t, name, device);
  check_tensor(t, name, DType::f32, 3);
  GC_CHECK(std::equal(t.shape, t.shape + 3, cache.shape), name, " must be (batch, heads, positions) of the cache, got ",
           shape_string(t), " (cache ", shape_string(cache), ")");
  GC_CHECK(t.shape[2] <= 1 || t.stride[2] == 1, name, " must be dense along positions, got stride ", t.stride[2],
           "; call .contiguous()");
  return t.as<const float>();
}

void check_index(const TensorView& t, const char* name, std::int64_t batch, int device) {
  check_device(t, name, device);
  check_tensor(t, name, DType::i64, 1);
  check_contiguous(t, name);
  GC_CHECK(t.shape[0] == batch, name, " must have one entry per sequence, got ", t.shape[0], " (batch ", batch, ")");
}

// Rows of a ragged batch (rows, heads, head_dim) as if every sequence had all of them.
TensorView as_batch(const TensorView& rows, const TensorView& key) {
  check_type(rows, "query", rows.device);
  GC_CHECK(rows.rank == 3, "query must have 3 dimensions (rows, heads, head_dim), got ", shape_string(rows));
  TensorView q = rows;
  q.rank = 4;
  const std::int64_t shape[] = {key.shape[0], rows.shape[1], rows.shape[0], rows.shape[2]};
  const std::int64_t stride[] = {0, rows.stride[1], rows.stride[0], rows.stride[2]};
  std::copy(shape, shape + 4, q.shape);
  std::copy(stride, stride + 4, q.stride);
  return q;
}

// Everything but the values of lengths and starts is checked; `out` is still null.  A ragged call has `counts` behind
// lengths: rows per sequence, on the CPU.
kvcache::AttentionProblem read_attention(OpCall& call, int* device, std::vector<std::int64_t>* counts = nullptr) {
  const std::uint64_t after = counts ? 5 : 4;
  TensorView q = call.tensor(0);
  const TensorView k = call.tensor(1), v = call.tensor(2), lengths = call.tensor(3);
  TensorView mask, starts;
  if (counts) {
    const TensorView given = call.tensor(4);
    GC_CHECK(k.rank == 4, "key must have 4 dimensions (batch, heads, positions, head_dim), got ", shape_string(k));
    check_index(given, "counts", k.shape[0], -1);
    counts->assign(given.as<std::int64_t>(), given.as<std::int64_t>() + given.shape[0]);
    q = as_batch(q, k);
    std::int64_t rows = 0;
    for (std::int64_t count : *counts) {
      GC_CHECK(count >= 0 && count <= q.shape[2] - rows, "counts must be >= 0 and add up to the query's rows, got ",
               count, " after ", rows, " of ", q.shape[2]);
      rows += count;
    }
    GC_CHECK(rows == q.shape[2], "counts must add up to the query's rows, got ", rows, " for ", q.shape[2]);
  }
  const bool has_mask = call.optional_tensor(after, &mask), has_starts = call.optional_tensor(after + 1, &starts);
  *device = q.device;
  check_float(q, "query", q.device);
  TensorView key_scale, value_scale;
  const bool has_key_scale = call.optional_tensor(after + 3, &key_scale);
  const bool has_value_scale = call.optional_tensor(after + 4, &value_scale);
  check_cache(k, "key", q.device);
  check_cache(v, "value", q.device);
  GC_CHECK_AS(TypeMismatch, k.dtype == v.dtype, "key and value must have one dtype, got ", dtype_name(k.dtype), " and ",
              dtype_name(v.dtype));
  for (int d : {0, 1, 2, 3}) {
    GC_CHECK(k.shape[d] == v.shape[d], "key and value must have one shape, got ", shape_string(k), " and ",
             shape_string(v));
  }
  GC_CHECK(q.shape[0] == k.shape[0] && q.shape[3] == k.shape[3],
           "query must match the cache in batch and head_dim, got ", shape_string(q), " (cache ", shape_string(k), ")");
  check_index(lengths, "lengths", q.shape[0], q.device);
  kvcache::AttentionProblem p;
  p.batch = q.shape[0];
  p.heads = q.shape[1];
  p.nodes = q.shape[2];
  p.head_dim = q.shape[3];
  p.kv_heads = k.shape[1];
  p.capacity = k.shape[2];
  p.query = q.data;
  p.query_batch = q.stride[0];
  p.query_head = q.stride[1];
  p.query_node = q.stride[2];
  p.key = k.data;
  p.key_batch = k.stride[0];
  p.key_head = k.stride[1];
  p.key_slot = k.stride[2];
  p.value = v.data;
  p.value_batch = v.stride[0];
  p.value_head = v.stride[1];
  p.value_slot = v.stride[2];
  p.query_dtype = q.dtype;
  p.kv_dtype = k.dtype;
  if (has_key_scale) {
    p.key_scale = check_scale(key_scale, "key_scale", k, q.device);
    p.key_scale_batch = key_scale.stride[0];
    p.key_scale_head = key_scale.stride[1];
  }
  if (has_value_scale) {
    p.value_scale = check_scale(value_scale, "value_scale", k, q.device);
    p.value_scale_batch = value_scale.stride[0];
    p.value_scale_head = value_scale.stride[1];
  }
  p.lengths = lengths.as<std::int64_t>();
  p.scale = static_cast<float>(call.real(after + 2));
  if (has_starts) {
    check_index(starts, "starts", p.batch, q.device);
    p.starts = starts.as<std::int64_t>();
  }
  if (has_mask) {
    check_device(mask, "ancestors", q.device);
    GC_CHECK(mask.rank == 2 || mask.rank == 3, "ancestors must be (nodes, words) or (batch, nodes, words), got ",
             shape_string(mask));
    check_tensor(mask, "ancestors", DType::i64, mask.rank);
    check_contiguous(mask, "ancestors");
    GC_CHECK(mask.shape[mask.rank - 2] == p.nodes && (mask.rank == 2 || mask.shape[0] == p.batch),
             "ancestors must have one row per query row, got ", shape_string(mask), " (query ", shape_string(q), ")");
    p.ancestors = mask.as<std::uint64_t>();
    p.words = mask.shape[mask.rank - 1];
    p.ancestors_batch = mask.rank == 3 ? p.nodes * p.words : 0;
  }
  return p;
}

void tree_attention_cpu(OpCall& call) {
  int device = -1;
  kvcache::AttentionProblem p = read_attention(call, &device);
  kvcache::check_attention(p);
  p.out = call.new_output(0, p.query_dtype, {p.batch, p.nodes, p.heads, p.head_dim}).data;
  kvcache::tree_attention(p);
}

void tree_attention_ragged_cpu(OpCall& call) {
  int device = -1;
  std::vector<std::int64_t> counts;
  kvcache::AttentionProblem p = read_attention(call, &device, &counts);
  p.out = call.new_output(0, p.query_dtype, {p.nodes, p.heads, p.head_dim}).data;
  std::vector<kvcache::AttentionProblem> sequences;
  std::int64_t first = 0;
  for (std::size_t b = 0; b < counts.size(); ++b) {
    sequences.push_back(kvcache::sequence_of(p, static_cast<std::int64_t>(b), first, counts[b]));
    first += counts[b];
  }
  kvcache::tree_attention(sequences);
}

struct CompactOperands {
  std::vector<TensorView> caches;
  TensorView lengths, path;
};

CompactOperands read_compact(OpCall& call) {
  CompactOperands o;
  call.tensor_list(0, &o.caches);
  o.lengths = call.tensor(1);
  o.path = call.tensor(2);
  const int device = o.caches.empty() ? o.path.device : o.caches[0].device;
  GC_CHECK(o.path.rank == 2, "path must be (batch, steps), got ", shape_string(o.path));
  check_device(o.path, "path", device);
  check_tensor(o.path, "path", DType::i64, 2);
  check_contiguous(o.path, "path");
  check_index(o.lengths, "lengths", o.path.shape[0], device);
  for (const TensorView& cache : o.caches) {
    check_cache(cache, "caches", device);
    GC_CHECK(cache.shape[0] == o.path.shape[0], "caches must have the batch size of path, got ", shape_string(cache),
             " (batch ", o.path.shape[0], ")");
  }
  return o;
}

void kv_compact_cpu(OpCall& call) {
  const CompactOperands o = read_compact(call);
  const std::int64_t batch = o.path.shape[0], steps = o.path.shape[1];
  const std::int64_t *const lengths = o.lengths.as<std::int64_t>(), *const path = o.path.as<std::int64_t>();
  // Rows end at the first negative entry: sequences accept different counts.
  std::vector<std::int64_t> counts(static_cast<std::size_t>(batch));
  for (std::int64_t b = 0; b < batch; ++b) {
    const std::int64_t* row = path + b * steps;
    std::int64_t& count = counts[static_cast<std::size_t>(b)];
    while (count < steps && row[count] >= 0) ++count;
    GC_CHECK(lengths[b] >= 0, "lengths must be >= 0, got ", lengths[b]);
    for (const TensorView& cache : o.caches) kvcache::check_path(row, count, lengths[b], cache.shape[2]);
  }
  parallel_for(static_cast<std::int64_t>(o.caches.size()), 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const TensorView& cache = o.caches[static_cast<std::size_t>(i)];
      const std::int64_t element = dtype_bytes(cache.dtype);
      for (std::int64_t b = 0; b < batch; ++b) {
        kvcache::compact({static_cast<char*>(cache.data) + b * cache.stride[0] * element, cache.shape[1],
                          cache.stride[1] * element, cache.stride[2] * element, cache.shape[3] * element, lengths[b],
                          path + b * steps, counts[static_cast<std::size_t>(b)]});
      }
    }
  });
}

#if defined(GRAMCORE_WITH_CUDA)
void tree_attention_cuda(OpCall& call) {
  int device = -1;
  kvcache::TreeAttentionArgs args{read_attention(call, &device), nullptr, 0};
  kvcache::AttentionProblem& p = args.problem;
  kvcache::check_attention_sizes(p);
  const CudaStream stream(device);
  p.out = call.new_output(0, p.query_dtype, {p.batch, p.nodes, p.heads, p.head_dim}, device).data;
  args.workspace_floats = gc_cuda_tree_attention_workspace(&p);
  if (args.workspace_floats > 0) {
    args.workspace = call.scratch(DType::f32, args.workspace_floats, device).as<float>();
  }
  cuda::check_status(gc_cuda_tree_attention(&args, stream.get()));
}

void tree_attention_ragged_cuda(OpCall& call) {
  int device = -1;
  std::vector<std::int64_t> counts;
  kvcache::TreeAttentionArgs args{read_attention(call, &device, &counts), nullptr, 0};
  kvcache::AttentionProblem& p = args.problem;
  const CudaStream stream(device);
  p.out = call.new_output(0, p.query_dtype, {p.nodes, p.heads, p.head_dim}, device).data;
  args.workspace_floats = gc_cuda_tree_attention_ragged_workspace(&p, counts.data());
  if (args.workspace_floats > 0) {
    args.workspace = call.scratch(DType::f32, args.workspace_floats, device).as<float>();
  }
  cuda::check_status(gc_cuda_tree_attention_ragged(&args, counts.data(), stream.get()));
}

void kv_compact_cuda(OpCall& call) {
  const CompactOperands o = read_compact(call);
  std::vector<kvcache::KvCompactCache> caches;
  for (const TensorView& cache : o.caches) {
    const std::int64_t element = dtype_bytes(cache.dtype);
    caches.push_back({cache.data, cache.stride[0] * element, cache.stride[1] * element, cache.stride[2] * element,
                      cache.shape[3] * element, cache.shape[1], cache.shape[2]});
  }
  const kvcache::KvCompactArgs args{caches.data(),
                                    static_cast<std::int64_t>(caches.size()),
                                    o.lengths.as<const std::int64_t>(),
                                    o.path.as<const std::int64_t>(),
                                    o.path.shape[0],
                                    o.path.shape[1]};
  const CudaStream stream(o.path.device);
  cuda::check_status(gc_cuda_kv_compact(&args, stream.get()));
}
constexpr BoxedFn kAttentionCuda = boxed<tree_attention_cuda>, kRaggedCuda = boxed<tree_attention_ragged_cuda>,
                  kCompactCuda = boxed<kv_compact_cuda>;
#else
constexpr BoxedFn kAttentionCuda = nullptr, kRaggedCuda = nullptr, kCompactCuda = nullptr;
#endif

const Ops ops{
    {"tree_attention(Tensor query, Tensor key, Tensor value, Tensor lengths, Tensor? ancestors, Tensor? starts, "
     "float scale, Tensor? key_scale=None, Tensor? value_scale=None) -> Tensor",
     boxed<tree_attention_cpu>, kAttentionCuda},
    {"tree_attention_ragged(Tensor query, Tensor key, Tensor value, Tensor lengths, Tensor counts, Tensor? ancestors, "
     "Tensor? starts, float scale, Tensor? key_scale=None, Tensor? value_scale=None) -> Tensor",
     boxed<tree_attention_ragged_cpu>, kRaggedCuda},
    {"kv_compact_(Tensor(a!)[] caches, Tensor lengths, Tensor path) -> ()", boxed<kv_compact_cpu>, kCompactCuda},
};

}  // namespace
}  // namespace gramcore::torch
