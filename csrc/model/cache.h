// Keys and values of one sequence in all layers, preallocated.  A head's values are (slots, head_dim); its keys lie in
// tiles [slots / 64][head_dim][64], the form in which attention multiplies them, so decoding never transposes.
#pragma once

#include <cstdint>
#include <memory>

#include "core/dtype.h"
#include "core/span.h"
#include "model/weights.h"

namespace gramcore::model {

class Cache {
 public:
  // dtype f32, bf16, f16, or i8 with a factor per slot and head.  Memory is touched only as far as slots are used.
  Cache(std::int64_t layers, std::int64_t kv_heads, std::int64_t capacity, std::int64_t head_dim, DType dtype);

  std::int64_t layers() const { return layers_; }
  std::int64_t capacity() const { return capacity_; }
  std::int64_t kv_heads() const { return kv_heads_; }
  std::int64_t head_dim() const { return head_dim_; }
  DType dtype() const { return dtype_; }
  std::int64_t length() const { return length_; }    // committed slots
  std::int64_t pending() const { return pending_; }  // rows of the last tree, not committed
  std::int64_t head_elements() const { return slots_ * head_dim_; }

  void* keys(std::int64_t layer) { return data_ + 2 * layer * layer_bytes_; }
  void* values(std::int64_t layer) { return data_ + (2 * layer + 1) * layer_bytes_; }
  // (kv_heads, head_slots()) factors of an int8 cache, or null.
  float* key_scales(std::int64_t layer) { return scales_ ? scales_ + 2 * layer * kv_heads_ * slots_ : nullptr; }
  float* value_scales(std::int64_t layer) { return scales_ ? scales_ + (2 * layer + 1) * kv_heads_ * slots_ : nullptr; }
  std::int64_t head_slots() const { return slots_; }
  // Slot `slot` of a head from head_dim fp32 elements.
  void store_key(std::int64_t layer, std::int64_t head, std::int64_t slot, const float* key);
  void store_value(std::int64_t layer, std::int64_t head, std::int64_t slot, const float* value);

  // Rows written behind length(): all stay (a chain), or wait for commit_path (a tree).
  void commit(std::int64_t rows);
  void set_pending(std::int64_t rows) { pending_ = rows; }
  // Keeps the pending rows `path` (strictly increasing) in place and drops the others.
  void commit_path(Span<const std::int64_t> path);
  void truncate(std::int64_t length);  // rollback; drops pending rows

 private:
  std::int64_t layers_, kv_heads_, capacity_, head_dim_, slots_;  // slots_: capacity in whole tiles
  DType dtype_;
  std::int64_t layer_bytes_, length_ = 0, pending_ = 0;
  Arena arena_;
  char* data_;
  float* scales_ = nullptr;
};

}  // namespace gramcore::model
