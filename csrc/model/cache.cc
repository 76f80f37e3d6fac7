#include "model/cache.h"

#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "kvcache/kernels/tree_attention.h"
#include "kvcache/tree_attention.h"
#include "model/kernels/layers.h"

namespace gramcore::model {
namespace {

constexpr std::int64_t kTile = kvcache::kTileKeys;

void narrow(const float* x, std::int64_t n, float* to) {
  std::memcpy(to, x, static_cast<std::size_t>(n) * sizeof(float));
}
void narrow(const float* x, std::int64_t n, bf16* to) {
  for (std::int64_t i = 0; i < n; ++i) to[i] = to_bf16(x[i]);
}
void narrow(const float* x, std::int64_t n, f16* to) {
  layers_kernels().to_f16(x, n, to);
}

// The head's key of a slot starts here and goes on in steps of kTile.
template <class T>
T* key_at(T* head, std::int64_t slot, std::int64_t dim) {
  return head + slot / kTile * kTile * dim + slot % kTile;
}

constexpr float kSmallest = 1e-36f;  // below this a row counts as zero: its factor's inverse would overflow

// Codes round(x / scale), `step` apart; returns scale = max |x| / 127.  A row that is not finite becomes NaN.
float store_codes(const float* x, std::int64_t dim, std::int8_t* codes, std::int64_t step) {
  float most = 0;
  for (std::int64_t d = 0; d < dim; ++d) {
    const float size = std::abs(x[d]);
    if (size > most || std::isnan(size)) most = size;
  }
  const bool usable = most >= kSmallest && std::isfinite(most);
  const float scale = usable ? most / 127 : most - most, inverse = usable ? 127 / most : 0;
  for (std::int64_t d = 0; d < dim; ++d) {
    codes[d * step] = usable ? static_cast<std::int8_t>(std::lrint(x[d] * inverse)) : std::int8_t{0};
  }
  return scale;
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
    case DType::i8: return fn(std::int8_t{});
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
  GC_CHECK_AS(TypeMismatch, dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::i8,
              "cache dtype must be float32, bfloat16, float16 or int8, got ", dtype_name(dtype));
  layer_bytes_ = kv_heads * head_elements() * dtype_bytes(dtype);
  data_ = static_cast<char*>(arena_.take(2 * layers * layer_bytes_));
  if (dtype == DType::i8) scales_ = static_cast<float*>(arena_.take(2 * layers * kv_heads * slots_ * 4));
}

void Cache::store_key(std::int64_t layer, std::int64_t head, std::int64_t slot, const float* key) {
  with_type(dtype_, [&](auto zero) {
    using T = decltype(zero);
    T* const to = key_at(static_cast<T*>(keys(layer)) + head * head_elements(), slot, head_dim_);
    if constexpr (std::is_same_v<T, std::int8_t>) {
      key_scales(layer)[head * slots_ + slot] = store_codes(key, head_dim_, to, kTile);
    } else {
      static thread_local std::vector<T> column;
      column.resize(static_cast<std::size_t>(head_dim_));
      narrow(key, head_dim_, column.data());
      for (std::int64_t d = 0; d < head_dim_; ++d) to[d * kTile] = column[static_cast<std::size_t>(d)];
    }
  });
}

void Cache::store_value(std::int64_t layer, std::int64_t head, std::int64_t slot, const float* value) {
  with_type(dtype_, [&](auto zero) {
    using T = decltype(zero);
    T* const to = static_cast<T*>(values(layer)) + head * head_elements() + slot * head_dim_;
    if constexpr (std::is_same_v<T, std::int8_t>) {
      value_scales(layer)[head * slots_ + slot] = store_codes(value, head_dim_, to, 1);
    } else {
      narrow(value, head_dim_, to);
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
          const std::int64_t from = length_ + path[static_cast<std::size_t>(i)], to = length_ + i;
          move_keys(all + h * head_elements(), from, to, head_dim_);
          if (scales_) {
            for (float* scales : {key_scales(layer), value_scales(layer)}) {
              scales[h * slots_ + to] = scales[h * slots_ + from];
            }
          }
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
