#include "kvcache/tree_attention.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <memory>

#include "core/thread_pool.h"
#include "kvcache/kernels/tree_attention.h"

namespace gramcore::kvcache {
namespace {

constexpr std::int64_t kScoreFloats = 320 * 1024;  // score rows of an item stay in the second-level cache
constexpr std::int64_t kMinRows = 32, kMaxRows = 128, kMaxOnlineRows = 256;
constexpr std::int64_t kGroupRows = 64;  // most rows a kernel multiplies at once
constexpr float kLog2E = 1.44269504f;

struct AlignedFree {
  void operator()(float* p) const { std::free(p); }
};

// Per-thread workspace that only grows.
float* workspace(std::int64_t floats) {
  thread_local std::unique_ptr<float, AlignedFree> memory;
  thread_local std::int64_t size = 0;
  if (floats > size) {
    const auto bytes = static_cast<std::size_t>(round_up(floats * 4, 4096));
    memory.reset(static_cast<float*>(std::aligned_alloc(64, bytes)));
    size = memory ? floats : 0;
    if (!memory) throw std::bad_alloc();
  }
  return memory.get();
}

bool bf16_products(const AttentionProblem& p) {
  return p.query_dtype == DType::bf16 && p.kv_dtype == DType::bf16 && !p.key_tiles;
}

// Nodes per item: enough rows to share each packed tile, few enough that their scores stay in cache.
std::int64_t nodes_per_item(const AttentionProblem& p) {
  const std::int64_t group = p.heads / p.kv_heads;
  std::int64_t longest = 1;
  for (std::int64_t b = 0; b < p.batch; ++b) longest = std::max(longest, p.lengths[b] + p.nodes);
  const bool online = bf16_products(p) && tree_attention_kernels().bf16_online;
  std::int64_t rows = online ? kMaxOnlineRows : std::clamp(kScoreFloats / longest, kMinRows, kMaxRows);
  if (rows > kGroupRows) rows -= rows % kGroupRows;
  std::int64_t nodes = std::max<std::int64_t>(1, rows / group);
  const std::int64_t threads = num_threads(), heads = p.batch * p.kv_heads;
  // Split further only as long as items are few and divide unevenly.
  const auto items = [&] { return heads * ((p.nodes + nodes - 1) / nodes); };
  while (nodes > 1 && items() % threads != 0 && items() < 4 * threads) nodes = (nodes + 1) / 2;
  return nodes;
}

template <class T>
void gather_query(const AttentionProblem& p, std::int64_t batch, std::int64_t head, std::int64_t node, float* to) {
  const T* from = static_cast<const T*>(p.query) + batch * p.query_batch + head * p.query_head + node * p.query_node;
  for (std::int64_t d = 0; d < p.head_dim; ++d) to[d] = to_f32(from[d]) * (p.scale * kLog2E);
}

template <class T>
T narrow(float x);
template <>
float narrow<float>(float x) {
  return x;
}
template <>
bf16 narrow<bf16>(float x) {
  return to_bf16(x);
}
template <>
f16 narrow<f16>(float x) {
  return to_f16(x);
}

template <class T>
void run_block(const AttentionProblem& p, std::int64_t out_node, std::int64_t batch, std::int64_t kv_head,
               std::int64_t first, std::int64_t nodes) {
  const std::int64_t group = p.heads / p.kv_heads, rows = nodes * group;
  const std::int64_t start = p.starts ? p.starts[batch] : 0;
  const std::int64_t element = dtype_bytes(p.kv_dtype);
  AttentionBlock block;
  block.rows = rows;
  block.group = group;
  block.first_node = first;
  block.head_dim = p.head_dim;
  block.key =
      static_cast<const char*>(p.key) + element * (batch * p.key_batch + kv_head * p.key_head + start * p.key_slot);
  block.value = static_cast<const char*>(p.value) +
                element * (batch * p.value_batch + kv_head * p.value_head + start * p.value_slot);
  const auto scale_at = [&](const float* first, std::int64_t batch_step, std::int64_t head_step) {
    return first ? first + batch * batch_step + kv_head * head_step + start : nullptr;
  };
  block.key_scale = scale_at(p.key_scale, p.key_scale_batch, p.key_scale_head);
  block.value_scale = scale_at(p.value_scale, p.value_scale_batch, p.value_scale_head);
  block.key_step = p.key_slot;
  block.value_step = p.value_slot;
  block.key_tiles = p.key_tiles;
  block.kv_dtype = p.kv_dtype;
  block.bf16_products = bf16_products(p);
  block.context = p.lengths[batch] - start;
  // A node's ancestors come before it, so no row of the block looks past its last node.
  block.num_keys = block.context + first + nodes;
  block.ancestors = p.ancestors ? p.ancestors + batch * p.ancestors_batch : nullptr;
  block.words = p.words;
  const std::int64_t dense = rows * p.head_dim;
  const std::int64_t offset = round_up(2 * dense, 16);
  block.scratch = nullptr;
  float* memory = workspace(offset + tree_attention_kernels().scratch_floats(block));
  block.scratch = memory + offset;
  block.query = memory;
  block.out = memory + dense;
  for (std::int64_t r = 0; r < rows; ++r) {
    gather_query<T>(p, batch, kv_head * group + r % group, first + r / group, memory + r * p.head_dim);
  }
  tree_attention_kernels().attend(block);
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t head = kv_head * group + r % group, node = first + r / group;
    T* to = static_cast<T*>(p.out) + (batch * p.nodes + node) * out_node + head * p.head_dim;
    for (std::int64_t d = 0; d < p.head_dim; ++d) to[d] = narrow<T>(block.out[r * p.head_dim + d]);
  }
}

}  // namespace

void check_attention_sizes(const AttentionProblem& p) {
  GC_CHECK(p.head_dim >= 1, "head_dim must be >= 1, got ", p.head_dim);
  GC_CHECK(p.kv_heads >= 1 && p.heads >= 1 && p.heads % p.kv_heads == 0,
           "query heads must be a multiple of key-value heads, got ", p.heads, " and ", p.kv_heads);
  GC_CHECK((p.kv_dtype == DType::i8) == (p.key_scale && p.value_scale) && !p.key_scale == !p.value_scale,
           "key_scale and value_scale must be given with an int8 cache and with no other, got a cache of ",
           dtype_name(p.kv_dtype));
  if (p.ancestors) {
    GC_CHECK(p.words >= (p.nodes + 63) / 64, "ancestors must have ", (p.nodes + 63) / 64, " words per node, got ",
             p.words, " (", p.nodes, " nodes)");
  }
}

void check_attention(const AttentionProblem& p, std::int64_t first) {
  check_attention_sizes(p);
  for (std::int64_t b = 0; b < p.batch; ++b) {
    GC_CHECK(p.lengths[b] >= 0 && p.lengths[b] <= p.capacity - p.nodes, "lengths must be in [0, ", p.capacity - p.nodes,
             "], got ", p.lengths[b], " (sequence ", first + b, ", ", p.nodes, " new rows, cache capacity ", p.capacity,
             ")");
    if (p.starts) {
      GC_CHECK(p.starts[b] >= 0 && p.starts[b] <= p.lengths[b], "starts must be in [0, ", p.lengths[b], "], got ",
               p.starts[b], " (sequence ", first + b, ")");
    }
  }
  GC_CHECK(!p.key_tiles || !p.starts, "starts must not be given with keys in tiles, got both");
}

void AttentionItems::add(const AttentionProblem& p, std::int64_t out_node) {
  const std::int64_t nodes = p.nodes > 0 && p.batch > 0 ? nodes_per_item(p) : 1;
  parts_.push_back({p, out_node ? out_node : p.heads * p.head_dim, nodes,
                    size() + p.batch * p.kv_heads * ((p.nodes + nodes - 1) / nodes)});
}

AttentionItems::Done AttentionItems::run(std::int64_t item) const {
  const auto part = std::upper_bound(parts_.begin(), parts_.end(), item,
                                     [](std::int64_t i, const Part& candidate) { return i < candidate.end; });
  if (part != parts_.begin()) item -= std::prev(part)->end;
  const AttentionProblem& p = part->problem;
  const std::int64_t nodes = part->nodes, blocks = (p.nodes + nodes - 1) / nodes;
  const std::int64_t first = (blocks - 1 - item % blocks) * nodes;  // the longest (last) blocks first
  const std::int64_t kv_head = item / blocks % p.kv_heads, batch = item / blocks / p.kv_heads;
  const std::int64_t count = std::min(nodes, p.nodes - first);
  switch (p.query_dtype) {
    case DType::bf16: run_block<bf16>(p, part->out_node, batch, kv_head, first, count); break;
    case DType::f16: run_block<f16>(p, part->out_node, batch, kv_head, first, count); break;
    default: run_block<float>(p, part->out_node, batch, kv_head, first, count);
  }
  return {static_cast<std::size_t>(part - parts_.begin()), batch, kv_head, first, count};
}

void tree_attention(Span<const AttentionProblem> problems) {
  AttentionItems items;
  for (std::size_t i = 0; i < problems.size(); ++i) {
    check_attention(problems[i], static_cast<std::int64_t>(i));
    items.add(problems[i]);
  }
  parallel_chunks(items.size(), [&](std::int64_t item) { items.run(item); });
}

void tree_attention(const AttentionProblem& p) {
  tree_attention(Span<const AttentionProblem>(&p, 1));
}

void check_path(const std::int64_t* path, std::int64_t count, std::int64_t base, std::int64_t capacity) {
  for (std::int64_t i = 0; i < count; ++i) {
    GC_CHECK(path[i] >= 0 && (i == 0 || path[i] > path[i - 1]),
             "path must be strictly increasing node indices >= 0, got ", path[i], " at position ", i);
    GC_CHECK(base + path[i] < capacity, "path must stay inside the cache, got node ", path[i], " (base slot ", base,
             ", capacity ", capacity, ")");
  }
}

void compact(const Compaction& m) {
  for (std::int64_t h = 0; h < m.heads; ++h) {
    char* head = m.data + h * m.head_bytes + m.base * m.slot_bytes;
    for (std::int64_t i = 0; i < m.count; ++i) {
      if (m.path[i] == i) continue;
      std::memcpy(head + i * m.slot_bytes, head + m.path[i] * m.slot_bytes, static_cast<std::size_t>(m.row_bytes));
    }
  }
}

}  // namespace gramcore::kvcache
