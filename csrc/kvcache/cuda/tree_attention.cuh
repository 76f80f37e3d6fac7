// out_r = sum_s p_rs v_s / sum_s p_rs,  p_rs = 2^(q_r.k_s - max_s q_r.k_s), s over the slots row r sees, ascending.
//
// A row's seen slots are numbered s = 0, 1, ...: the context, then the set bits of its ancestor words.  Tiles of 32
// consecutive s go through an online softmax, 32 tiles make a split, and splits are merged in ascending order.  Which
// sums are formed depends on these numbers alone, so a row's bits depend neither on the other rows, nor on which nodes
// lie between its ancestors, nor on whether one block walks all splits or many blocks one each.
// Mapping: block = (sequence, KV head, kWarps rows), warp = row = node * group + head; scores: lane = key; values: lane
// = every 32nd dimension.  Tiles that all rows of the block see alike are staged in shared memory as float, rows padded
// by 4 floats against bank conflicts; a row's own tail is read where it lies, with the same arithmetic.
// Bytes moved: the context once per kWarps rows of a KV head.  head_dim <= 32 * kDims; any strides, dense rows.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/cuda/any_float.cuh"
#include "core/cuda/launch.h"
#include "core/half.h"
#include "kvcache/cuda/tree_attention.h"
#include "kvcache/cuda/tree_attention_policy.h"

namespace gramcore::kvcache {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr float kAttentionLog2E = 1.44269504f;

struct TreeAttentionLaunch {
  AttentionProblem p;
  float* partials;  // per row and split: 32 * kDims sums, maximum, weight; null: finish in one kernel
  std::uint32_t splits;
  std::uint32_t group, rows, row_tiles;  // query heads, rows and blocks of a KV head; 32 bits divide without a call
};

// Numerators' maximum, their sum, and the weighted values: dimensions lane, lane + 32, ...
template <int kDims>
struct SoftmaxSum {
  float most, weight, acc[kDims];

  __device__ __forceinline__ void clear() {
    most = -INFINITY;
    weight = 0.0f;
#pragma unroll
    for (int i = 0; i < kDims; ++i) acc[i] = 0.0f;
  }
  __device__ __forceinline__ void store(float* to) const {
    const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
    for (int i = 0; i < kDims; ++i) to[lane + 32 * i] = acc[i];
    if (lane == 0) to[32 * kDims] = most;
    if (lane == 0) to[32 * kDims + 1] = weight;
  }
  __device__ __forceinline__ void load(const float* from) {
    const int lane = static_cast<int>(threadIdx.x) & 31;
#pragma unroll
    for (int i = 0; i < kDims; ++i) acc[i] = from[lane + 32 * i];
    most = from[32 * kDims];
    weight = from[32 * kDims + 1];
  }
  // Keys later in the row than this one's.
  __device__ __forceinline__ void merge(const SoftmaxSum& next) {
    const float top = fmaxf(most, next.most);
    const float base = top == -INFINITY ? 0.0f : top;
    const float mine = exp2f(most - base), other = exp2f(next.most - base);
    most = top;
    weight = __fmaf_rn(next.weight, other, __fmul_rn(weight, mine));
#pragma unroll
    for (int i = 0; i < kDims; ++i) acc[i] = __fmaf_rn(next.acc[i], other, __fmul_rn(acc[i], mine));
  }
};

// Position of set bit number k (from 0) of a word with more than k set bits.
__device__ __forceinline__ int select_bit(std::uint64_t word, int k) {
  int at = 0;
#pragma unroll
  for (int width = 32; width > 0; width /= 2) {
    const int below = __popcll(word >> at & ((std::uint64_t{1} << width) - 1));
    if (k >= below) {
      k -= below;
      at += width;
    }
  }
  return at;
}

// What one sequence looks like to one row.
struct RowView {
  std::int64_t start, context;  // first visible slot, slots before the new rows
  std::int64_t node;
  const std::uint64_t* ancestors;  // words of this node, or null: causal
  std::int64_t seen;               // slots in all

  // A node's own word with the bits of later nodes cleared: ancestors come first.
  __device__ __forceinline__ std::uint64_t word(std::int64_t w) const {
    const std::uint64_t bits = ancestors[w];
    return w < node / 64 ? bits : bits & (~std::uint64_t{0} >> (63 - node % 64));
  }
  __device__ __forceinline__ std::int64_t slot(std::int64_t s) const {
    if (s < context || ancestors == nullptr) return start + s;
    std::int64_t k = s - context;
    for (std::int64_t w = 0; w <= node / 64; ++w) {
      const std::uint64_t bits = word(w);
      const int count = __popcll(bits);
      if (k < count) return start + context + 64 * w + select_bit(bits, static_cast<int>(k));
      k -= count;
    }
    return start;  // not reached for s < seen
  }
};

__device__ __forceinline__ RowView view_of_row(const AttentionProblem& p, std::int64_t batch, std::int64_t node) {
  const std::int64_t length = p.lengths[batch], start = p.starts != nullptr ? p.starts[batch] : 0;
  if (length < 0 || length > p.capacity - p.nodes || start < 0 || start > length) __trap();
  RowView row{start, length - start, node, nullptr, length - start + node + 1};
  if (p.ancestors != nullptr) {
    row.ancestors = p.ancestors + batch * p.ancestors_batch + node * p.words;
    row.seen = row.context;
    for (std::int64_t w = 0; w <= node / 64; ++w) row.seen += __popcll(row.word(w));
  }
  return row;
}

// One row against the `count` keys of a tile: `score` is this lane's key's; value_row(j), called by the whole warp,
// says where key j's values are.
template <int kDims, class ValueRow>
__device__ __forceinline__ void add_tile(SoftmaxSum<kDims>& sum, float score, int count, int head_dim,
                                         ValueRow value_row) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const float s = lane < count ? score : -INFINITY;
  float top = fmaxf(sum.most, s);
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, offset));
  const float base = top == -INFINITY ? 0.0f : top;
  const float p = exp2f(s - base), keep = exp2f(sum.most - base);
  sum.most = top;
  sum.weight = __fmul_rn(sum.weight, keep);
#pragma unroll
  for (int i = 0; i < kDims; ++i) sum.acc[i] = __fmul_rn(sum.acc[i], keep);
  for (int j = 0; j < count; ++j) {
    const float w = __shfl_sync(kAllLanes, p, j);
    const auto values = value_row(j);
    sum.weight = __fadd_rn(sum.weight, w);
#pragma unroll
    for (int i = 0; i < kDims; ++i) {
      const int d = lane + 32 * i;
      if (d < head_dim) sum.acc[i] = __fmaf_rn(w, to_f32(values[d]), sum.acc[i]);
    }
  }
}

// A row of the cache as float; only int8 rows have a factor.
template <class T>
struct CacheRow {
  const T* at;
  float factor;
  __device__ __forceinline__ float operator[](int d) const {
    if constexpr (sizeof(T) == 1) return __fmul_rn(to_f32(at[d]), factor);
    return to_f32(at[d]);
  }
};

// Keys or values of one head.
template <class T>
struct CacheRows {
  const T* first;
  std::int64_t step;
  const float* factors;  // null unless T is int8
  __device__ __forceinline__ CacheRow<T> operator[](std::int64_t slot) const {
    return {first + slot * step, sizeof(T) == 1 ? factors[slot] : 1.0f};
  }
};

// Rows from slot `slot` on as float in shared memory, zero from head_dim to 32 * kDims.
template <int kDims, class T>
__device__ __forceinline__ void stage(float* tile, const CacheRows<T>& rows, std::int64_t slot, int head_dim) {
  constexpr int kPadded = 32 * kDims;
  for (int i = static_cast<int>(threadIdx.x); i < TreeAttentionPolicy::kTileKeys * kPadded; i += blockDim.x) {
    const int j = i / kPadded, d = i % kPadded;
    tile[j * (kPadded + 4) + d] = d < head_dim ? rows[slot + j][d] : 0.0f;
  }
}

// In the order of the dimensions, as the unstaged loop sums.
template <int kPadded>
__device__ __forceinline__ float staged_score(const float* q, const float* key) {
  float score = 0.0f;
#pragma unroll 8
  for (int d = 0; d < kPadded; d += 4) {
    const float4 k4 = *reinterpret_cast<const float4*>(key + d), q4 = *reinterpret_cast<const float4*>(q + d);
    score = __fmaf_rn(q4.x, k4.x, score);
    score = __fmaf_rn(q4.y, k4.y, score);
    score = __fmaf_rn(q4.z, k4.z, score);
    score = __fmaf_rn(q4.w, k4.w, score);
  }
  return score;
}

template <int kDims>
__device__ __forceinline__ void store_row(const AttentionProblem& p, std::int64_t batch, std::int64_t node,
                                          std::int64_t head, const SoftmaxSum<kDims>& sum) {
  const int lane = static_cast<int>(threadIdx.x) & 31;
  const float inverse = sum.weight == 0.0f ? 0.0f : 1.0f / sum.weight;
  const std::int64_t at = ((batch * p.nodes + node) * p.heads + head) * p.head_dim;
#pragma unroll
  for (int i = 0; i < kDims; ++i) {
    const int d = lane + 32 * i;
    if (d < p.head_dim) cuda::store_any(p.out, p.query_dtype, at + d, sum.acc[i] * inverse);
  }
}

// blockIdx.x = (sequence, KV head, row tile); blockIdx.y = split when partials are written.
template <class T, int kDims>
__global__ void __launch_bounds__(TreeAttentionPolicy::kWarps * 32, TreeAttentionPolicy::kMinBlocks)
    tree_attention_kernel(const __grid_constant__ TreeAttentionLaunch launch) {
  using Policy = TreeAttentionPolicy;
  constexpr int kPadded = 32 * kDims, kStride = kPadded + 4, kTile = Policy::kTileKeys;
  static_assert(Policy::kSplitKeys % kTile == 0 && kTile == 32, "a split is whole tiles of one key per lane");
  GC_DYNAMIC_SHARED(float, shared);
  float* const tile = shared;                       // kTile rows
  float* const queries = shared + kTile * kStride;  // kWarps rows, times scale * log2(e)
  const AttentionProblem& p = launch.p;
  const int lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  const int head_dim = static_cast<int>(p.head_dim);
  const std::uint32_t group = launch.group, rows = launch.rows, kv_heads = static_cast<std::uint32_t>(p.kv_heads);
  const std::uint32_t pair = blockIdx.x / launch.row_tiles, first_row = blockIdx.x % launch.row_tiles * Policy::kWarps;
  const std::uint32_t kv_head = pair % kv_heads, batch = pair / kv_heads;
  // Warps without a row of their own repeat the last one, so that every thread takes part in every barrier.
  const bool active = first_row + warp < rows;
  const std::uint32_t r = active ? first_row + warp : rows - 1;
  const std::uint32_t node = r / group, head = kv_head * group + r % group;

  const RowView row = view_of_row(p, batch, node);
  const std::uint32_t last_node =
      (rows - first_row < Policy::kWarps ? rows - 1 : first_row + Policy::kWarps - 1) / group;
  // Keys that every row of the block has at the same number, and keys that any row may have.
  const std::int64_t common = row.context + (p.ancestors != nullptr ? 0 : first_row / group + 1);
  std::int64_t begin = 0, end = row.context + last_node + 1;
  if (launch.partials != nullptr) {
    begin = std::int64_t{blockIdx.y} * Policy::kSplitKeys;
    if (begin >= end) return;
    if (begin + Policy::kSplitKeys < end) end = begin + Policy::kSplitKeys;
  }
  const auto factors = [&](const float* first, std::int64_t batch_step, std::int64_t head_step) {
    return sizeof(T) == 1 ? first + batch * batch_step + kv_head * head_step : nullptr;
  };
  const CacheRows<T> keys{static_cast<const T*>(p.key) + batch * p.key_batch + kv_head * p.key_head, p.key_slot,
                          factors(p.key_scale, p.key_scale_batch, p.key_scale_head)};
  const CacheRows<T> values{static_cast<const T*>(p.value) + batch * p.value_batch + kv_head * p.value_head,
                            p.value_slot, factors(p.value_scale, p.value_scale_batch, p.value_scale_head)};
  const std::int64_t query_at = batch * p.query_batch + head * p.query_head + node * p.query_node;
  float* const q = queries + warp * kPadded;
  for (int d = lane; d < kPadded; d += 32) {
    q[d] = d < head_dim ? cuda::load_any(p.query, p.query_dtype, query_at + d) * (p.scale * kAttentionLog2E) : 0.0f;
  }
  __syncwarp();

  SoftmaxSum<kDims> total, split;
  total.clear();
  split.clear();
  for (std::int64_t s = begin; s < end; s += kTile) {
    if (s + kTile <= common) {
      __syncthreads();  // the last tile's readers are done
      stage<kDims>(tile, keys, row.start + s, head_dim);
      __syncthreads();
      const float score = staged_score<kPadded>(q, tile + lane * kStride);
      __syncthreads();
      stage<kDims>(tile, values, row.start + s, head_dim);
      __syncthreads();
      add_tile(split, score, kTile, head_dim, [&](int j) { return tile + j * kStride; });
    } else if (s < row.seen) {
      const int count = row.seen - s < kTile ? static_cast<int>(row.seen - s) : kTile;
      const std::int64_t slot = row.slot(lane < count ? s + lane : s);
      const CacheRow<T> k_row = keys[slot];
      float score = 0.0f;
      for (int d = 0; d < head_dim; ++d) score = __fmaf_rn(q[d], k_row[d], score);
      add_tile(split, score, count, head_dim, [&](int j) { return values[__shfl_sync(kAllLanes, slot, j)]; });
    }
    if (launch.partials == nullptr && ((s + kTile) % Policy::kSplitKeys == 0 || s + kTile >= end)) {
      total.merge(split);
      split.clear();
    }
  }
  if (!active) return;
  if (launch.partials != nullptr) {
    split.store(launch.partials + ((std::int64_t{pair} * rows + r) * launch.splits + blockIdx.y) * (kPadded + 2));
  } else {
    store_row(p, batch, node, head, total);
  }
}

// Warp = row; merges its splits as the other kernel would have.
template <int kDims>
__global__ void __launch_bounds__(TreeAttentionPolicy::kWarps * 32, TreeAttentionPolicy::kMinBlocks)
    merge_splits_kernel(const __grid_constant__ TreeAttentionLaunch launch) {
  const AttentionProblem& p = launch.p;
  const std::uint32_t group = launch.group, rows = launch.rows, kv_heads = static_cast<std::uint32_t>(p.kv_heads);
  const std::uint32_t at = blockIdx.x * TreeAttentionPolicy::kWarps + (threadIdx.x >> 5);
  if (at >= p.batch * p.kv_heads * rows) return;
  const std::uint32_t pair = at / rows, r = at % rows;
  const std::uint32_t batch = pair / kv_heads, head = pair % kv_heads * group + r % group;
  const RowView row = view_of_row(p, batch, r / group);
  SoftmaxSum<kDims> total, split;
  total.clear();
  for (std::int64_t s = 0; s * TreeAttentionPolicy::kSplitKeys < row.seen; ++s) {
    split.load(launch.partials + (std::int64_t{at} * launch.splits + s) * (32 * kDims + 2));
    total.merge(split);
  }
  store_row(p, batch, r / group, head, total);
}

}  // namespace gramcore::kvcache
