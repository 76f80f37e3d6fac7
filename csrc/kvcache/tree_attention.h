// Attention of n new rows per sequence (tree nodes, or a chunk of a prompt) against a preallocated cache.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "core/span.h"

namespace gramcore::kvcache {

// Strided description; all steps count elements.  The n rows sit in the cache at slots lengths[b] .. +n already.
struct AttentionProblem {
  std::int64_t batch = 1, heads = 0, kv_heads = 0, nodes = 0, head_dim = 0, capacity = 0;
  const void* query = nullptr;  // (batch, heads, nodes, head_dim)
  std::int64_t query_batch = 0, query_head = 0, query_node = 0;
  const void *key = nullptr, *value = nullptr;  // (batch, kv_heads, capacity, head_dim)
  std::int64_t key_batch = 0, key_head = 0, key_slot = 0;
  std::int64_t value_batch = 0, value_head = 0, value_slot = 0;
  // An int8 cache has a factor per slot and head: (batch, kv_heads, capacity), dense along slots; null for other types.
  const float *key_scale = nullptr, *value_scale = nullptr;
  std::int64_t key_scale_batch = 0, key_scale_head = 0, value_scale_batch = 0, value_scale_head = 0;
  bool key_tiles = false;  // a head's keys as [slot / 64][head_dim][64]; key_slot is not used, starts is null
  void* out = nullptr;     // (batch, nodes, heads, head_dim) dense
  DType query_dtype = DType::f32, kv_dtype = DType::f32;  // out has the query's
  const std::int64_t* lengths = nullptr;                  // (batch): slots before the new rows
  const std::int64_t* starts = nullptr;                   // (batch) or null: first visible slot (left padding)
  const std::uint64_t* ancestors = nullptr;               // (batch or shared, nodes, words); null: causal
  std::int64_t words = 0, ancestors_batch = 0;            // ancestors_batch 0: one mask for all sequences
  float scale = 1.0f;
};

// Sequence b of a ragged problem, a batch whose sequences have any number of rows each: rows (of query, out and
// ancestors) lie one behind the other, and those of b are [first, first + rows).
inline AttentionProblem sequence_of(AttentionProblem p, std::int64_t b, std::int64_t first, std::int64_t rows) {
  const auto past = [](const void* start, std::int64_t elements, DType type) {
    return static_cast<const char*>(start) + elements * dtype_bytes(type);
  };
  p.batch = 1;
  p.nodes = rows;
  p.query = past(p.query, first * p.query_node, p.query_dtype);
  p.key = past(p.key, b * p.key_batch, p.kv_dtype);
  p.value = past(p.value, b * p.value_batch, p.kv_dtype);
  p.out = static_cast<char*>(p.out) + first * p.heads * p.head_dim * dtype_bytes(p.query_dtype);
  if (p.key_scale) p.key_scale += b * p.key_scale_batch;
  if (p.value_scale) p.value_scale += b * p.value_scale_batch;
  p.lengths += b;
  if (p.starts) p.starts += b;
  if (p.ancestors) p.ancestors += first * p.words;
  return p;
}

// Throws InvalidArgument when sizes disagree.
void check_attention_sizes(const AttentionProblem& problem);
// The same, or when a sequence does not fit the cache; the problem's first sequence is called `first`.
void check_attention(const AttentionProblem& problem, std::int64_t first = 0);

// The work of some problems split into independent items (sequence, KV head, block of rows); any thread may run any
// item once.  Problems are not checked; what they point to must stay.
class AttentionItems {
 public:
  // out_node: elements between nodes of out, 0: they are dense.
  void add(const AttentionProblem& problem, std::int64_t out_node = 0);
  std::int64_t size() const { return parts_.empty() ? 0 : parts_.back().end; }
  // What an item has written: the heads of `kv_head` in nodes [first, first + nodes) of a sequence of a problem.
  struct Done {
    std::size_t problem;
    std::int64_t batch, kv_head, first, nodes;
  };
  Done run(std::int64_t item) const;

 private:
  struct Part {
    AttentionProblem problem;
    std::int64_t out_node;
    std::int64_t nodes, end;  // nodes per item; items of the problems so far, this one's included
  };
  std::vector<Part> parts_;
};

// Problems are checked; their items share the threads.
void tree_attention(Span<const AttentionProblem> problems);
void tree_attention(const AttentionProblem& problem);

// Moves slot base + path[i] to base + i for i < count in a (heads, capacity, head_dim) array; `row_bytes` per slot.
// path must be strictly increasing, which makes the in-place ascending copy safe.
struct Compaction {
  char* data;
  std::int64_t heads, head_bytes, slot_bytes, row_bytes;
  std::int64_t base;
  const std::int64_t* path;
  std::int64_t count;
};
void check_path(const std::int64_t* path, std::int64_t count, std::int64_t base, std::int64_t capacity);
void compact(const Compaction& move);

}  // namespace gramcore::kvcache
