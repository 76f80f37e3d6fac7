// out_r = sum_j p_rj v_j / sum_j p_rj,  p_rj = 2^(q_r.k_j - max_j q_r.k_j) over the slots row r may see.
//
// Three passes over the block: all scores (keys transposed tile by tile, lanes = keys), softmax numerators in
// place, weighted sum of values (lanes = head dimension).  Whole score rows instead of an online maximum: every
// sum runs over slots in ascending order with no rescaling, and an unseen slot adds an exact zero.  So a row's bits
// depend neither on how many rows are computed with it, nor (with fp32 products) on which other nodes lie between
// its ancestors: a tree node gets what plain decoding would have computed.
// Products are fp32, or bf16 pairs (vdpbf16ps, or tiles) when the query and the cache are bf16 and the level has them.
// An int8 cache is widened with its slots' factors as tiles are packed.  Products of AMX tiles keep their maximum
// online instead (tree_attention_amx.inl.h). Tiles are kTileKeys slots; head_dim is padded with zeros to 32.
#include "core/tiles.h"
#include "core/vec.h"
#include "kvcache/kernels/tree_attention.h"

namespace gramcore::kvcache {
namespace GC_ISA_NS {

using namespace vec::GC_ISA_NS;

constexpr int kRowBlock = 4;
constexpr int kVecBlock = kLanes == 16 ? 4 : 2;  // vectors of keys or of dimensions per inner block

// How 32-bit elements of the packed tiles multiply: one fp32 number, or a pair of bf16.
struct F32Products {
  static constexpr int kPer = 1;  // reduced elements in one 32-bit lane
  GC_INLINE Vf madd(Vf acc, Vi tile, std::int32_t scalar) {
    return acc + reinterpret_cast<Vf>(tile) * reinterpret_cast<Vf>(splat(scalar));
  }
  static std::int32_t one() { return 0x3f800000; }
};

#if defined(__AVX512BF16__)
struct Bf16Products {
  static constexpr int kPer = 2;
  GC_INLINE Vf madd(Vf acc, Vi tile, std::int32_t scalar) {
    return reinterpret_cast<Vf>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(acc), reinterpret_cast<__m512bh>(tile),
                                                 reinterpret_cast<__m512bh>(splat(scalar))));
  }
  static std::int32_t one() { return 0x3f803f80; }
};
#endif

GC_INLINE Vi load_bits(const std::int32_t* p) {
  Vi v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}

GC_INLINE Vi times(Vi lanes, Vf factors) {
  return reinterpret_cast<Vi>(reinterpret_cast<Vf>(lanes) * factors);
}

// Row `slot` of a cache, lanes [d, d + kLanes) of the reduced 32-bit form, zeros past head_dim.
template <class Products, class T>
GC_INLINE Vi key_lanes(const T* row, int d, int head_dim) {
  if constexpr (Products::kPer == 1) {
    return reinterpret_cast<Vi>(d + kLanes <= head_dim ? load_f32(row + d)
                                                       : load_partial(row + d, head_dim > d ? head_dim - d : 0));
  } else {
    if (2 * (d + kLanes) <= head_dim) return load_bits(reinterpret_cast<const std::int32_t*>(row + 2 * d));
    std::uint16_t pairs[2 * kLanes] = {};
    for (int i = 0; i < 2 * kLanes && 2 * d + i < head_dim; ++i) pairs[i] = row[2 * d + i].bits;
    return load_bits(reinterpret_cast<const std::int32_t*>(pairs));
  }
}

// tile[step][key]: `count` keys from `first`, transposed; keys past `count` repeat nothing and are zero.
template <class Products, class T>
static void pack_keys(std::int32_t* tile, const AttentionBlock& b, std::int64_t first, int count, int steps) {
  const T* keys = static_cast<const T*>(b.key) + first * b.key_step;
  const int head_dim = static_cast<int>(b.head_dim);
  for (int k = 0; k < static_cast<int>(kTileKeys); k += kLanes) {
    for (int d = 0; d < steps; d += kLanes) {
      Vi rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = k + i < count ? key_lanes<Products, T>(keys + (k + i) * b.key_step, d, head_dim) : Vi{};
        if constexpr (sizeof(T) == 1) {
          if (k + i < count) rows[i] = times(rows[i], splat(b.key_scale[first + k + i]));
        }
      }
      transpose(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) __builtin_memcpy(tile + (d + i) * kTileKeys + k, &rows[i], sizeof(Vi));
    }
  }
}

// The same from keys that are stored transposed: widening, and zero rows past head_dim.
template <class T>
static void widen_keys(std::int32_t* tile, const AttentionBlock& b, std::int64_t first, int steps) {
  const T* keys = static_cast<const T*>(b.key) + first * b.head_dim;
  for (int d = 0; d < steps; ++d) {
    for (int k = 0; k < static_cast<int>(kTileKeys); k += kLanes) {
      Vi lanes = d < b.head_dim ? reinterpret_cast<Vi>(load_f32(keys + d * kTileKeys + k)) : Vi{};
      if constexpr (sizeof(T) == 1) lanes = times(lanes, load(b.key_scale + first + k));
      __builtin_memcpy(tile + d * kTileKeys + k, &lanes, sizeof(Vi));
    }
  }
}

// tile[step][dim]: values of kPer successive slots in one 32-bit lane; an odd last slot is paired with zero.
template <class Products, class T>
static void pack_values(std::int32_t* tile, const AttentionBlock& b, std::int64_t first, int count, int dim) {
  const T* values = static_cast<const T*>(b.value) + first * b.value_step;
  const int head_dim = static_cast<int>(b.head_dim);
  for (int k = 0; k < count; k += Products::kPer) {
    const T* row = values + k * b.value_step;
    std::int32_t* to = tile + k / Products::kPer * dim;
    for (int d = 0; d < dim; d += kLanes) {
      const int left = head_dim > d ? head_dim - d : 0;
      Vi lanes = reinterpret_cast<Vi>(left >= kLanes ? load_f32(row + d) : load_partial(row + d, left));
      if constexpr (sizeof(T) == 1) lanes = times(lanes, splat(b.value_scale[first + k]));
      if constexpr (Products::kPer == 2) {
        Vi next = {};
        if (k + 1 < count) {
          const T* second = row + b.value_step;
          next = reinterpret_cast<Vi>(left >= kLanes ? load_f32(second + d) : load_partial(second + d, left));
        }
        lanes =
            reinterpret_cast<Vi>(reinterpret_cast<Vu>(lanes) >> 16) | (next & static_cast<std::int32_t>(0xffff0000));
      }
      __builtin_memcpy(to + d, &lanes, sizeof(Vi));
    }
  }
}

// scores[r][key] for kRows rows and the keys of one tile.
template <class Products, int kRows>
static void score_rows(float* scores, std::int64_t stride, const std::int32_t* query, std::int64_t dim,
                       const std::int32_t* tile, int steps) {
  for (int k = 0; k < static_cast<int>(kTileKeys); k += kVecBlock * kLanes) {
    Vf acc[kRows][kVecBlock] = {};
    for (int d = 0; d < steps; ++d) {
      Vi keys[kVecBlock];
#pragma GCC unroll 4
      for (int u = 0; u < kVecBlock; ++u) keys[u] = load_bits(tile + d * kTileKeys + k + u * kLanes);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        const std::int32_t x = query[r * dim + d];
#pragma GCC unroll 4
        for (int u = 0; u < kVecBlock; ++u) acc[r][u] = Products::madd(acc[r][u], keys[u], x);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int u = 0; u < kVecBlock; ++u) store(scores + r * stride + k + u * kLanes, acc[r][u]);
    }
  }
}

// acc[r][dim] += sum over the tile's slots; sums[r][lane] += the weights themselves, in the same order.
template <class Products, int kRows, int kVecs, bool kSum>
static void add_values(float* acc_rows, float* sums, std::int64_t dim, const std::int32_t* weights, std::int64_t stride,
                       const std::int32_t* tile, std::int64_t tile_step, int steps, int d) {
  Vf acc[kRows][kVecs], total[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int u = 0; u < kVecs; ++u) acc[r][u] = load(acc_rows + r * dim + d + u * kLanes);
    if constexpr (kSum) total[r] = load(sums + r * 16);
  }
  const Vi ones = splat(Products::one());
  for (int k = 0; k < steps; ++k) {
    Vi values[kVecs];
#pragma GCC unroll 4
    for (int u = 0; u < kVecs; ++u) values[u] = load_bits(tile + k * tile_step + d + u * kLanes);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const std::int32_t w = weights[r * stride + k];
      if constexpr (kSum) total[r] = Products::madd(total[r], ones, w);
#pragma GCC unroll 4
      for (int u = 0; u < kVecs; ++u) acc[r][u] = Products::madd(acc[r][u], values[u], w);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int u = 0; u < kVecs; ++u) store(acc_rows + r * dim + d + u * kLanes, acc[r][u]);
    if constexpr (kSum) store(sums + r * 16, total[r]);
  }
}

template <class Products, int kRows>
static void add_value_rows(float* acc, float* sums, std::int64_t dim, const std::int32_t* weights, std::int64_t stride,
                           const std::int32_t* tile, std::int64_t tile_step, int steps) {
  constexpr int kStep = kVecBlock * kLanes;
  if (dim < kStep) {
    add_values<Products, kRows, 1, true>(acc, sums, dim, weights, stride, tile, tile_step, steps, 0);
  } else {
    add_values<Products, kRows, kVecBlock, true>(acc, sums, dim, weights, stride, tile, tile_step, steps, 0);
  }
  int d = dim < kStep ? kLanes : kStep;
  for (; d + kStep <= dim; d += kStep) {
    add_values<Products, kRows, kVecBlock, false>(acc, sums, dim, weights, stride, tile, tile_step, steps, d);
  }
  for (; d < dim; d += kLanes) {
    add_values<Products, kRows, 1, false>(acc, sums, dim, weights, stride, tile, tile_step, steps, d);
  }
}

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

// Scores to numerators 2^(s - max).
static void softmax_row(float* s, std::int64_t padded) {
  const float lowest = -__builtin_inff();
  Vf most = splat(lowest);
  for (std::int64_t j = 0; j < padded; j += kLanes) most = max(load(s + j), most);
  const float m = max_lane(most);
  const Vf offset = splat(m == lowest ? 0.0f : m);
  for (std::int64_t j = 0; j < padded; j += kLanes) store(s + j, exp2(load(s + j) - offset));
}

#if defined(__AVX512BF16__)
// In place: padded fp32 numbers become padded/2 pairs of bf16.
static void narrow_row(float* s, std::int64_t padded) {
  char* to = reinterpret_cast<char*>(s);
  for (std::int64_t j = 0; j < padded; j += 32) {
    const __m512 a = _mm512_loadu_ps(s + j), c = _mm512_loadu_ps(s + j + 16);
    const __m512bh pairs = _mm512_cvtne2ps_pbh(c, a);
    __builtin_memcpy(to + j * 2, &pairs, sizeof(pairs));
  }
}
#endif

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

// Calls Fn<rows>::call for the row blocks: full ones, then the rest.
#define GC_FOR_ROW_BLOCKS(rows, r, ...)                        \
  for (std::int64_t r = 0; r < (rows); r += kRowBlock) {       \
    switch ((rows) - r < kRowBlock ? (rows) - r : kRowBlock) { \
      case 1: {                                                \
        constexpr int kRows = 1;                               \
        __VA_ARGS__;                                           \
        break;                                                 \
      }                                                        \
      case 2: {                                                \
        constexpr int kRows = 2;                               \
        __VA_ARGS__;                                           \
        break;                                                 \
      }                                                        \
      case 3: {                                                \
        constexpr int kRows = 3;                               \
        __VA_ARGS__;                                           \
        break;                                                 \
      }                                                        \
      default: {                                               \
        constexpr int kRows = 4;                               \
        __VA_ARGS__;                                           \
        break;                                                 \
      }                                                        \
    }                                                          \
  }

template <class Products, class T>
static void attend_as(const AttentionBlock& b) {
  const std::int64_t dim = padded_dim(b.head_dim), padded = round_up(b.num_keys, kTileKeys);
  const int key_steps = static_cast<int>(dim / Products::kPer);
  float* scores = b.scratch;
  float* acc = scores + b.rows * padded;
  auto* query = reinterpret_cast<std::int32_t*>(acc + b.rows * dim);
  auto* tile = query + b.rows * dim;
  float* sums = reinterpret_cast<float*>(tile + kTileKeys * dim);
  // fp32 tiles and values of a whole number of vectors are read where they lie.
  constexpr bool kMayRead = Products::kPer == 1 && sizeof(T) == 4;
  const bool direct = kMayRead && b.head_dim == dim, read_keys = direct && b.key_tiles;
  pack_query<Products>(query, b, dim, dim);
  for (std::int64_t k = 0; k < b.num_keys; k += kTileKeys) {
    const int count = static_cast<int>(b.num_keys - k < kTileKeys ? b.num_keys - k : kTileKeys);
    const std::int32_t* keys = tile;
    if (read_keys) {
      keys = reinterpret_cast<const std::int32_t*>(static_cast<const T*>(b.key) + k * b.head_dim);
    } else if (Products::kPer == 1 && b.key_tiles) {
      widen_keys<T>(tile, b, k, key_steps);
    } else {
      pack_keys<Products, T>(tile, b, k, count, key_steps);
    }
    GC_FOR_ROW_BLOCKS(
        b.rows, r, score_rows<Products, kRows>(scores + r * padded + k, padded, query + r * dim, dim, keys, key_steps))
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    mask_row(scores + r * padded, b, b.first_node + r / b.group, 0, padded);
    softmax_row(scores + r * padded, padded);
#if defined(__AVX512BF16__)
    if constexpr (Products::kPer == 2) narrow_row(scores + r * padded, padded);
#endif
    for (std::int64_t d = 0; d < dim; ++d) acc[r * dim + d] = 0;
    for (int lane = 0; lane < 16; ++lane) sums[r * 16 + lane] = 0;
  }
  for (std::int64_t k = 0; k < b.num_keys; k += kTileKeys) {
    const int count = static_cast<int>(b.num_keys - k < kTileKeys ? b.num_keys - k : kTileKeys);
    const int steps = (count + Products::kPer - 1) / Products::kPer;
    if (!direct) pack_values<Products, T>(tile, b, k, count, static_cast<int>(dim));
    const std::int32_t* values =
        direct ? reinterpret_cast<const std::int32_t*>(static_cast<const T*>(b.value) + k * b.value_step) : tile;
    const std::int64_t value_step = direct ? b.value_step : dim;
    const auto* weights = reinterpret_cast<const std::int32_t*>(scores);
    GC_FOR_ROW_BLOCKS(
        b.rows, r,
        add_value_rows<Products, kRows>(acc + r * dim, sums + r * 16, dim, weights + r * padded + k / Products::kPer,
                                        padded, values, value_step, steps))
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    const float total = sums[r * 16];
    const float inverse = total == 0.0f ? 0.0f : 1.0f / total;
    for (std::int64_t d = 0; d < b.head_dim; ++d) b.out[r * b.head_dim + d] = acc[r * dim + d] * inverse;
  }
}

#if defined(GC_ISA_IS_amx)
#include "kvcache/kernels/tree_attention_amx.inl.h"
#endif

// Scores, packed queries, one packed tile, accumulators and sums.
static std::int64_t scratch_floats(const AttentionBlock& b) {
#if defined(GC_ISA_IS_amx)
  if (b.bf16_products && b.kv_dtype == DType::bf16) return TileScratch::floats(b);
#endif
  const std::int64_t dim = padded_dim(b.head_dim);
  return b.rows * round_up(b.num_keys, kTileKeys) + 2 * b.rows * dim + kTileKeys * dim + b.rows * 16;
}

static void attend(const AttentionBlock& b) {
  switch (b.kv_dtype) {
    case DType::bf16:
#if defined(GC_ISA_IS_amx)
      if (b.bf16_products) return attend_tiles(b);
#elif defined(__AVX512BF16__)
      if (b.bf16_products) return attend_as<Bf16Products, bf16>(b);
#endif
      return attend_as<F32Products, bf16>(b);
    case DType::f16: return attend_as<F32Products, f16>(b);
    case DType::i8: return attend_as<F32Products, std::int8_t>(b);
    default: return attend_as<F32Products, float>(b);
  }
}

extern const TreeAttentionKernels kTreeAttention;
#if defined(GC_ISA_IS_amx)
const TreeAttentionKernels kTreeAttention = {attend, scratch_floats, true};
#else
const TreeAttentionKernels kTreeAttention = {attend, scratch_floats, false};
#endif

}  // namespace GC_ISA_NS
}  // namespace gramcore::kvcache
