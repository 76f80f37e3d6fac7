// out_r = sum_j p_rj v_j / sum_j p_rj,  p_rj = 2^(q_r.k_j - max_j q_r.k_j) over the slots row r may see.
//
// All scores of the block first, then numerators and weighted sums of values.  Whole score rows instead of an online
// maximum: every sum runs over slots in ascending order with no rescaling, and an unseen slot adds an exact zero.  So a
// row's bits depend neither on how many rows are computed with it, nor (with fp32 products) on which other nodes lie
// between its ancestors: a tree node gets what plain decoding would have computed.
// Few rows: keys are transposed tile by tile and are the lanes of scores.  Many rows (tree_attention_many.inl.h): rows
// are the lanes and keys are read where they lie.  Both are one register-blocked product with the same order of sums
// (tree_attention_products.inl.h), and give the same bits.
// Products are fp32; an int8 cache is widened with its slots' factors as tiles are packed.  When the query and the
// cache are bf16 and the level multiplies pairs of them, the maximum is kept online instead
// (tree_attention_online.inl.h). Tiles are kTileKeys slots; head_dim is padded with zeros to 32.
#include "core/tiles.h"
#include "core/vec.h"
#include "kvcache/kernels/tree_attention.h"

namespace gramcore::kvcache {
namespace GC_ISA_NS {

using namespace vec::GC_ISA_NS;

#include "kvcache/kernels/tree_attention_products.inl.h"

// Of the scores of slots [first, first + padded), those of unseen slots become -inf.
static void mask_row(float* s, const AttentionBlock& b, std::int64_t node, std::int64_t first, std::int64_t padded) {
  const float lowest = -__builtin_inff();
  s -= first;
  const std::int64_t end = first + padded, known = b.num_keys < end ? b.num_keys : end;
  for (std::int64_t j = b.context > first ? b.context : first; j < known; ++j) {
    const std::int64_t t = j - b.context;
    const bool seen = b.ancestors ? (b.ancestors[node * b.words + (t >> 6)] >> (t & 63)) & 1u : t <= node;
    if (!seen) s[j] = lowest;
  }
  for (std::int64_t j = known; j < end; ++j) s[j] = lowest;
}

// 2^x for x <= 0, relative error < 2e-7; 0 for -inf, NaN stays NaN.
GC_INLINE Vf numerator(Vf x) {
#if defined(__AVX512F__)
  const auto raw = reinterpret_cast<__m512>(x);
  const auto f =
      reinterpret_cast<Vf>(_mm512_reduce_ps(raw, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC));  // x - floor(x)
  Vf p = splat(1.86713052e-3f);  // smallest relative error on [0, 1] with p(0) = 1
  p = p * f + 9.01702885e-3f;
  p = p * f + 5.57999127e-2f;
  p = p * f + 2.40164444e-1f;
  p = p * f + 6.93151295e-1f;
  p = p * f + 1.0f;
  return reinterpret_cast<Vf>(_mm512_scalef_ps(reinterpret_cast<__m512>(p), raw));  // p * 2^floor(x)
#else
  return exp2(x);
#endif
}

// Scores to numerators 2^(s - max).
static void softmax_row(float* s, std::int64_t padded) {
  const float lowest = -__builtin_inff();
  Vf most = splat(lowest);
  for (std::int64_t j = 0; j < padded; j += kLanes) most = max(load(s + j), most);
  const float m = max_lane(most);
  const Vf offset = splat(m == lowest ? 0.0f : m);
  for (std::int64_t j = 0; j < padded; j += kLanes) store(s + j, numerator(load(s + j) - offset));
}

// acc / total; zeros when nothing was seen.
GC_INLINE void write_row(float* out, const float* acc, float total, std::int64_t head_dim) {
  const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
  for (std::int64_t d = 0; d < head_dim; ++d) out[d] = acc[d] * inverse;
}

template <class Products>
static void pack_query(std::int32_t* to, const AttentionBlock& b, std::int64_t dim, std::int64_t stride) {
  for (std::int64_t r = 0; r < b.rows; ++r) {
    const float* from = b.query + r * b.head_dim;
    std::int32_t* row = to + r * stride;
    if constexpr (Products::kPer == 1) {
      for (std::int64_t d = 0; d < dim; ++d) row[d] = static_cast<std::int32_t>(bits::of(d < b.head_dim ? from[d] : 0));
    } else {
      for (std::int64_t d = 0; d < dim; d += 2) {
        const std::uint32_t lo = d < b.head_dim ? to_bf16(from[d]).bits : 0u;
        const std::uint32_t hi = d + 1 < b.head_dim ? to_bf16(from[d + 1]).bits : 0u;
        row[d / 2] = static_cast<std::int32_t>(lo | (hi << 16));
      }
    }
  }
}

constexpr int kFewKeys = 2 * kLanes;  // a packed tile fills a third of the first-level cache

// Few rows, fp32 products: lanes are keys, then dimensions.
template <class T>
static void attend_few(const AttentionBlock& b) {
  const std::int64_t dim = padded_dim(b.head_dim), padded = round_up(b.num_keys, kTileKeys);
  const int key_steps = static_cast<int>(dim);
  float* scores = b.scratch;
  float* acc = scores + b.rows * padded;
  auto* query = reinterpret_cast<std::int32_t*>(acc + b.rows * dim);
  auto* tile = query + b.rows * dim;
  float* sums = reinterpret_cast<float*>(tile + kTileKeys * dim);
  // fp32 tiles and values of a whole number of vectors are read where they lie.
  const bool direct = sizeof(T) == 4 && b.head_dim == dim, read_keys = direct && b.key_tiles;
  pack_query<F32Products>(query, b, dim, dim);
  const std::int64_t keys_here = b.key_tiles ? kTileKeys : kFewKeys;
  for (std::int64_t k = 0; k < b.num_keys; k += keys_here) {
    const int count = static_cast<int>(b.num_keys - k < keys_here ? b.num_keys - k : keys_here);
    const std::int32_t* keys = tile;
    if (read_keys) {
      keys = bits_at(static_cast<const T*>(b.key) + k * b.head_dim);
    } else if (b.key_tiles) {
      widen_keys<T>(tile, b, k, key_steps);
    } else if constexpr (sizeof(T) == 1) {
      pack_short_keys<kFewKeys>(tile, b, k, count, key_steps);
    } else {
      pack_keys<F32Products, T, kFewKeys>(tile, b, k, count, key_steps);
    }
    Fetch next(b, b.key, sizeof(T), b.key_tiles ? b.head_dim : b.key_step, k + keys_here, keys_here,
               Fetch::calls(b.rows * keys_here, key_steps));
    multiply_all<F32Products>(scores + k, padded, false, {query, dim, 1}, b.rows, keys, keys_here, keys_here, key_steps,
                              &next);
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    mask_row(scores + r * padded, b, b.first_node + r / b.group, 0, padded);
    softmax_row(scores + r * padded, padded);
  }
  const Vf ones = splat(1.0f);
  for (std::int64_t k = 0; k < b.num_keys; k += kTileKeys) {
    const int count = static_cast<int>(b.num_keys - k < kTileKeys ? b.num_keys - k : kTileKeys);
    if (!direct) widen_rows<T>(tile, b.value, b.value_step, b.value_scale, b.head_dim, k, count, dim);
    const std::int32_t* values = direct ? bits_at(static_cast<const T*>(b.value) + k * b.value_step) : tile;
    const Matrix weights = {bits_at(scores) + k, padded, 1};
    Fetch next(b, b.value, sizeof(T), b.value_step, direct ? k + kTileKeys : b.num_keys, kTileKeys,
               Fetch::calls(b.rows * dim, count));
    multiply_all<F32Products>(acc, dim, k > 0, weights, b.rows, values, direct ? b.value_step : dim, dim, count, &next);
    multiply_all<F32Products>(sums, kLanes, k > 0, weights, b.rows, bits_at(&ones), 0, kLanes, count, nullptr);
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    write_row(b.out + r * b.head_dim, acc + r * dim, b.num_keys > 0 ? sums[r * kLanes] : 0.0f, b.head_dim);
  }
}

#include "kvcache/kernels/tree_attention_many.inl.h"

// Whether this level multiplies the block in bf16.
GC_INLINE bool bf16_products(const AttentionBlock& b) {
#if defined(__AVX512BF16__)
  return b.bf16_products && b.kv_dtype == DType::bf16;
#else
  static_cast<void>(b);
  return false;
#endif
}

// Whether lanes are rows; the bits are the same either way.
GC_INLINE bool many_rows(const AttentionBlock& b) {
  return b.rows > kLanes / 2 && !bf16_products(b);
}

#if defined(__AVX512BF16__)
#include "kvcache/kernels/tree_attention_online.inl.h"
#endif
#if defined(GC_ISA_IS_amx)
#include "kvcache/kernels/tree_attention_amx.inl.h"
using LevelPairs = TilePairs;
#elif defined(__AVX512BF16__)
using LevelPairs = VectorPairs;
#endif

static std::int64_t scratch_floats(const AttentionBlock& b) {
#if defined(__AVX512BF16__)
  if (bf16_products(b)) return PairScratch::floats(b);
#endif
  if (many_rows(b)) return LaneScratch::floats(b);
  const std::int64_t dim = padded_dim(b.head_dim);  // scores, sums, queries, one packed tile, sums of weights
  return b.rows * round_up(b.num_keys, kTileKeys) + 2 * b.rows * dim + kTileKeys * dim + b.rows * kLanes;
}

template <class T>
static void attend_as(const AttentionBlock& b) {
  return many_rows(b) ? attend_many<T>(b) : attend_few<T>(b);
}

static void attend(const AttentionBlock& b) {
#if defined(__AVX512BF16__)
  if (bf16_products(b)) return attend_online<LevelPairs>(b);
#endif
  switch (b.kv_dtype) {
    case DType::bf16: return attend_as<bf16>(b);
    case DType::f16: return attend_as<f16>(b);
    case DType::i8: return attend_as<std::int8_t>(b);
    default: return attend_as<float>(b);
  }
}

extern const TreeAttentionKernels kTreeAttention;
#if defined(__AVX512BF16__)
const TreeAttentionKernels kTreeAttention = {attend, scratch_floats, true};
#else
const TreeAttentionKernels kTreeAttention = {attend, scratch_floats, false};
#endif

}  // namespace GC_ISA_NS
}  // namespace gramcore::kvcache
