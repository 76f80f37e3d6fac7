#include "model/cache.h"

#include <cstring>

#include "kvcache/tree_attention.h"

namespace gramcore::model {
namespace {

void narrow(const float* from, std::int64_t n, DType dtype, void* to) {
  switch (dtype) {
    case DType::bf16:
      for (std::int64_t i = 0; i < n; ++i) static_cast<bf16*>(to)[i] = to_bf16(from[i]);
      return;
    case DType::f16:
      for (std::int64_t i = 0; i < n; ++i) static_cast<f16*>(to)[i] = to_f16(from[i]);
      return;
    default: std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
  }
}

}  // namespace

Cache::Cache(std::int64_t layers, std::int64_t kv_heads, std::int64_t capacity, std::int64_t head_dim, DType dtype)
    : layers_(layers), kv_heads_(kv_heads), capacity_(capacity), head_dim_(head_dim), dtype_(dtype) {
  GC_CHECK(capacity >= 1 && capacity <= (std::int64_t{1} << 24), "capacity must be in [1, 2^24] slots, got ", capacity);
  GC_CHECK_AS(TypeMismatch, dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16,
              "cache dtype must be float32, bfloat16 or float16, got ", dtype_name(dtype));
  layer_bytes_ = kv_heads * capacity * head_dim * dtype_bytes(dtype);
  data_ = static_cast<char*>(arena_.take(2 * layers * layer_bytes_));
}

void Cache::store(std::int64_t layer, std::int64_t slot, const float* key, const float* value) {
  char *k = static_cast<char*>(keys(layer)), *v = static_cast<char*>(values(layer));
  for (std::int64_t h = 0; h < kv_heads_; ++h) {
    const std::int64_t at = h * head_bytes() + slot * slot_bytes();
    narrow(key + h * head_dim_, head_dim_, dtype_, k + at);
    narrow(value + h * head_dim_, head_dim_, dtype_, v + at);
  }
}

void Cache::commit(std::int64_t rows) {
  length_ += rows;
  pending_ = 0;
}

void Cache::commit_path(Span<const std::int64_t> path) {
  const auto count = static_cast<std::int64_t>(path.size());
  kvcache::check_path(path.data(), count, 0, pending_);
  for (std::int64_t layer = 0; layer < 2 * layers_; ++layer) {
    kvcache::compact({data_ + layer * layer_bytes_, kv_heads_, head_bytes(), slot_bytes(), slot_bytes(), length_,
                      path.data(), count});
  }
  commit(count);
}

void Cache::truncate(std::int64_t length) {
  GC_CHECK(length >= 0 && length <= length_, "length must be in [0, ", length_, "], got ", length);
  length_ = length;
  pending_ = 0;
}

}  // namespace gramcore::model
