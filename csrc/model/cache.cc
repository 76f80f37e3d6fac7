#include "model/cache.h"

#include <type_traits>

#include "kvcache/kernels/tree_attention.h"
#include "kvcache/tree_attention.h"

namespace gramcore::model {
namespace {

constexpr std::int64_t kTile = kvcache::kTileKeys;

template <class T>
T narrow(float x) {
  if constexpr (sizeof(T) == 4) {
    return x;
  } else if constexpr (std::is_same_v<T, bf16>) {
    return to_bf16(x);
  } else {
    return to_f16(x);
  }
}

// The head's key of a slot starts here and goes on in steps of kTile.
template <class T>
T* key_at(T* head, std::int64_t slot, std::int64_t dim) {
  return head + slot / kTile * kTile * dim + slot % kTile;
}

template <class T>
void store_head(T* keys, T* values, std::int64_t slot, std::int64_t dim, const float* key, const float* value) {
  T *k = key_at(keys, slot, dim), *v = values + slot * dim;
  for (std::int64_t d = 0; d < dim; ++d) k[d * kTile] = narrow<T>(key[d]);
  for (std::int64_t d = 0; d < dim; ++d) v[d] = narrow<T>(value[d]);
}

template <class T>
void move_keys(T* head, std::int64_t from, std::int64_t to, std::int64_t dim) {
  const T* source = key_at(head, from, dim);
  T* target = key_at(head, to, dim);
  for (std::int64_t d = 0; d < dim; ++d) target[d * kTile] = source[d * kTile];
}

// fn(T{}) for the element type.
template <class F>
void with_type(DType dtype, F&& fn) {
  switch (dtype) {
    case DType::bf16: return fn(bf16{});
    case DType::f16: return fn(f16{});
    default: return fn(float{});
  }
}

}  // namespace

Cache::Cache(std::int64_t layers, std::int64_t kv_heads, std::int64_t capacity, std::int64_t head_dim, DType dtype)
    : layers_(layers),
      kv_heads_(kv_heads),
      capacity_(capacity),
      head_dim_(head_dim),
      slots_((capacity + kTile - 1) / kTile * kTile),
      dtype_(dtype) {
  GC_CHECK(capacity >= 1 && capacity <= (std::int64_t{1} << 24), "capacity must be in [1, 2^24] slots, got ", capacity);
  GC_CHECK_AS(TypeMismatch, dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16,
              "cache dtype must be float32, bfloat16 or float16, got ", dtype_name(dtype));
  layer_bytes_ = kv_heads * head_elements() * dtype_bytes(dtype);
  data_ = static_cast<char*>(arena_.take(2 * layers * layer_bytes_));
}

void Cache::store(std::int64_t layer, std::int64_t slot, const float* key, const float* value) {
  with_type(dtype_, [&](auto zero) {
    using T = decltype(zero);
    for (std::int64_t h = 0; h < kv_heads_; ++h) {
      store_head(static_cast<T*>(keys(layer)) + h * head_elements(),
                 static_cast<T*>(values(layer)) + h * head_elements(), slot, head_dim_, key + h * head_dim_,
                 value + h * head_dim_);
    }
  });
}

void Cache::commit(std::int64_t rows) {
  length_ += rows;
  pending_ = 0;
}

void Cache::commit_path(Span<const std::int64_t> path) {
  const auto count = static_cast<std::int64_t>(path.size());
  kvcache::check_path(path.data(), count, 0, pending_);
  const std::int64_t row = head_dim_ * dtype_bytes(dtype_), head = slots_ * row;
  for (std::int64_t layer = 0; layer < layers_; ++layer) {
    kvcache::compact({static_cast<char*>(values(layer)), kv_heads_, head, row, row, length_, path.data(), count});
    with_type(dtype_, [&](auto zero) {
      auto* all = static_cast<decltype(zero)*>(keys(layer));
      for (std::int64_t h = 0; h < kv_heads_; ++h) {
        for (std::int64_t i = 0; i < count; ++i) {
          if (path[static_cast<std::size_t>(i)] == i) continue;
          move_keys(all + h * head_elements(), length_ + path[static_cast<std::size_t>(i)], length_ + i, head_dim_);
        }
      }
    });
  }
  commit(count);
}

void Cache::truncate(std::int64_t length) {
  GC_CHECK(length >= 0 && length <= length_, "length must be in [0, ", length_, "], got ", length);
  length_ = length;
  pending_ = 0;
}

}  // namespace gramcore::model
