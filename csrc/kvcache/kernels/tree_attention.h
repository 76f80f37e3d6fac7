// Attention of a block of query rows that share one key-value head.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/dtype.h"

namespace gramcore::kvcache {

inline constexpr std::int64_t kTileKeys = 64;

// Rows r = 0..rows-1; row r belongs to tree node `first_node + r / group` (group query heads share the KV head).
// Slots [0, context) are seen by every row; slot context + t by row of node i iff bit t of ancestors[i], or
// t <= i when `ancestors` is null (causal).  `num_keys` bounds the slots any row of the block sees.
struct AttentionBlock {
  const float* query;  // rows x head_dim, dense, already multiplied by scale * log2(e)
  std::int64_t rows, group, first_node;
  std::int64_t head_dim;
  const void *key, *value;  // slot 0 of this head
  bool key_tiles;           // keys lie in tiles of kTileKeys slots, [tile][head_dim][kTileKeys]; key_step is not used
  std::int64_t key_step, value_step;     // elements between slots
  DType kv_dtype;                        // f32, bf16, f16, i8
  const float *key_scale, *value_scale;  // factors of the slots (i8), or null
  bool bf16_products;                    // multiply in bf16 where the level can (the query was bf16)
  std::int64_t context, num_keys;
  const std::uint64_t* ancestors;  // words of node 0
  std::int64_t words;              // per node
  float* scratch;                  // scratch_floats(block), 64-byte aligned
  float* out;                      // rows x head_dim, dense
};

struct TreeAttentionKernels {
  void (*attend)(const AttentionBlock& block);
  std::int64_t (*scratch_floats)(const AttentionBlock& block);  // block.scratch is not read
  bool bf16_online;  // with bf16 products scratch does not grow with the slots: many rows may share a block
};

const TreeAttentionKernels& tree_attention_kernels();

inline std::int64_t round_up(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}
inline std::int64_t padded_dim(std::int64_t head_dim) {
  return round_up(head_dim, 32);
}
}  // namespace gramcore::kvcache
