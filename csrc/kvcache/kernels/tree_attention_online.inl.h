// Attention over bf16 caches with products of bf16 pairs (vdpbf16ps, or AMX tiles).  Here the maximum is kept online,
// chunk by chunk of slots: whole score rows of many query rows would not stay in cache, and packing the cache again for
// every few rows costs more than it saves.  Chunks begin at fixed slots, an element of a product is summed in one fixed
// order, and a chunk without seen slots changes nothing: a row's bits do not depend on the other rows.  Included by
// tree_attention.inl.h inside its namespace.
#pragma once

constexpr std::int64_t kChunkKeys = 512;  // slots between two looks at the maximum
constexpr std::int64_t kPad = 16;         // behind rows in scratch, so that they do not share cache sets

// tile[pair][dim]: values of two successive slots in one 32-bit lane; zeros past `count` up to a multiple of 32 slots.
static void pack_value_pairs(std::int32_t* tile, const AttentionBlock& b, std::int64_t first, std::int64_t count,
                             std::int64_t dim) {
  const bf16* values = static_cast<const bf16*>(b.value) + first * b.value_step;
  alignas(64) std::int16_t twice[2][32];  // every element of one half, twice
  for (int i = 0; i < 32; ++i) {
    twice[0][i] = static_cast<std::int16_t>(i / 2);
    twice[1][i] = static_cast<std::int16_t>(16 + i / 2);
  }
  const __m512i low = _mm512_load_si512(twice[0]), high = _mm512_load_si512(twice[1]);
  for (std::int64_t k = 0; k < count; k += 2) {
    const bf16* row = values + k * b.value_step;
    std::int32_t* to = tile + k / 2 * dim;
    for (std::int64_t d = 0; d < dim; d += 32) {
      const std::int64_t left = b.head_dim - d;
      const __mmask32 all = left >= 32 ? 0xffffffffu : left > 0 ? (1u << left) - 1 : 0u;
      const __m512i one = _mm512_maskz_loadu_epi16(all, row + d);
      const __m512i two = _mm512_maskz_loadu_epi16(k + 1 < count ? all : 0, row + d + b.value_step);
      _mm512_storeu_si512(to + d,
                          _mm512_mask_permutexvar_epi16(_mm512_permutexvar_epi16(low, one), 0xaaaaaaaau, low, two));
      _mm512_storeu_si512(to + d + 16,
                          _mm512_mask_permutexvar_epi16(_mm512_permutexvar_epi16(high, one), 0xaaaaaaaau, high, two));
    }
  }
  for (std::int64_t k = round_up(count, 2); k < round_up(count, 32); k += 2) {
    __builtin_memset(tile + k / 2 * dim, 0, static_cast<std::size_t>(dim) * 4);
  }
}

// 2^x for x <= 0 to 8e-5, far below the rounding to bf16 that follows; 2^-inf = 0, NaN stays NaN.
GC_INLINE __m512 exp2_short(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x); 0 for -inf
  __m512 p = _mm512_set1_ps(7.8024536e-2f);                                         // smallest relative error on [0, 1]
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.2606720e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.9583350e-1f));
  p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.9992526e-1f));
  return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}

struct RowState {
  float most, total;  // maximum of the scores and sum of the numerators so far
};

// In place: a chunk's scores become numerators as pairs of bf16.  `acc` and the state follow a new maximum.
static void soften_row(float* s, std::int64_t padded, RowState* state, float* acc, std::int64_t dim) {
  __m512 most[4];
  for (int u = 0; u < 4; ++u) most[u] = _mm512_set1_ps(state->most);
  for (std::int64_t j = 0; j < padded; j += 64) {
    for (int u = 0; u < 4; ++u) most[u] = _mm512_max_ps(_mm512_loadu_ps(s + j + 16 * u), most[u]);  // not NaN
  }
  const __m512 pair = _mm512_max_ps(most[0], most[1]), other = _mm512_max_ps(most[2], most[3]);
  const float before = state->most, m = _mm512_reduce_max_ps(_mm512_max_ps(pair, other));
  const float unseen = -__builtin_inff();
  if (m > before) {
    state->most = m;
    if (before > unseen) {
      const float factor = exp2(splat(before - m))[0];
      state->total *= factor;
      for (std::int64_t d = 0; d < dim; d += kLanes) store(acc + d, load(acc + d) * factor);
    }
  }
  const auto offset = reinterpret_cast<__m512>(splat(m == unseen ? 0.0f : m));
  char* to = reinterpret_cast<char*>(s);
  __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
  for (std::int64_t j = 0; j < padded; j += 32) {
    const __m512 x = exp2_short(_mm512_sub_ps(_mm512_loadu_ps(s + j), offset));
    const __m512 y = exp2_short(_mm512_sub_ps(_mm512_loadu_ps(s + j + 16), offset));
    low = _mm512_add_ps(low, x);
    high = _mm512_add_ps(high, y);
    _mm512_storeu_si512(to + 2 * j, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(y, x)));
  }
  state->total += _mm512_reduce_add_ps(_mm512_add_ps(low, high));
}

// What a block keeps in its scratch.
struct PairScratch {
  std::int64_t dim, score_stride, acc_stride, query_stride;
  float *scores, *acc;
  std::int32_t *query, *keys, *values;
  RowState* state;

  explicit PairScratch(const AttentionBlock& b) {
    dim = padded_dim(b.head_dim);
    score_stride = kChunkKeys + kPad;
    acc_stride = dim + kPad;
    query_stride = dim / 2 + kPad;
    scores = b.scratch;
    acc = scores + b.rows * score_stride;
    query = reinterpret_cast<std::int32_t*>(acc + b.rows * acc_stride);
    keys = query + b.rows * query_stride;
    values = keys + kTileKeys * dim / 2;
    state = reinterpret_cast<RowState*>(values + kChunkKeys * dim / 2);
  }
  static std::int64_t floats(const AttentionBlock& b) {
    const std::int64_t dim = padded_dim(b.head_dim);
    return b.rows * (kChunkKeys + dim + dim / 2 + 3 * kPad + 2) + (kTileKeys + kChunkKeys) * dim / 2;
  }
};

// Pairs multiplied by vectors of lanes.
struct VectorPairs {
  static constexpr std::int64_t kFetchRows = 0;
  static constexpr std::int64_t kSteps = 64;  // so that what all rows multiply with stays in the first-level cache
  static std::int64_t fetches(std::int64_t rows, std::int64_t lanes, std::int64_t steps) {
    return Fetch::calls(rows * lanes, steps);
  }
  static void multiply(float* out, std::int64_t out_stride, bool add, const std::int32_t* a, std::int64_t a_stride,
                       std::int64_t rows, const std::int32_t* b, std::int64_t b_stride, std::int64_t lanes,
                       std::int64_t steps, Fetch* fetch) {
    for (std::int64_t s = 0; s < steps; s += kSteps) {
      const std::int64_t here = steps - s < kSteps ? steps - s : kSteps;
      multiply_all<Bf16Products>(out, out_stride, add || s > 0, {a + s, a_stride, 1}, rows, b + s * b_stride, b_stride,
                                 lanes, here, fetch);
    }
  }
};

template <class Pairs>
static void score_chunk(const AttentionBlock& b, const PairScratch& t, Pairs* pairs, std::int64_t first,
                        std::int64_t end) {
  const std::int64_t steps = t.dim / 2;
  for (std::int64_t k = first; k < end; k += kTileKeys) {
    const int count = static_cast<int>(end - k < kTileKeys ? end - k : kTileKeys);
    pack_keys<Bf16Products, bf16, kTileKeys>(t.keys, b, k, count, static_cast<int>(steps));
    Fetch next(b, b.key, 2, b.key_step, b.rows >= Pairs::kFetchRows ? k + kTileKeys : b.num_keys, kTileKeys,
               Pairs::fetches(b.rows, kTileKeys, steps));
    pairs->multiply(t.scores + k - first, t.score_stride, false, t.query, t.query_stride, b.rows, t.keys, kTileKeys,
                    kTileKeys, steps, &next);
  }
}

template <class Pairs>
static void attend_online(const AttentionBlock& b) {
  const PairScratch t(b);
  Pairs pairs;
  pack_query<Bf16Products>(t.query, b, t.dim, t.query_stride);
  for (std::int64_t r = 0; r < b.rows; ++r) t.state[r] = {-__builtin_inff(), 0.0f};
  for (std::int64_t k = 0; k < b.num_keys; k += kChunkKeys) {
    const std::int64_t end = b.num_keys - k < kChunkKeys ? b.num_keys : k + kChunkKeys;
    score_chunk(b, t, &pairs, k, end);
    Fetch next(b, b.value, 2, b.value_step, b.rows >= Pairs::kFetchRows ? k : b.num_keys, end - k, b.rows);
    for (std::int64_t r = 0; r < b.rows; ++r) {
      Fetch::some(&next);
      float* scores = t.scores + r * t.score_stride;
      const std::int64_t padded = round_up(end - k, kTileKeys);
      mask_row(scores, b, b.first_node + r / b.group, k, padded);
      soften_row(scores, padded, t.state + r, t.acc + r * t.acc_stride, k > 0 ? t.dim : 0);
    }
    pack_value_pairs(t.values, b, k, end - k, t.dim);
    pairs.multiply(t.acc, t.acc_stride, k > 0, reinterpret_cast<const std::int32_t*>(t.scores), t.score_stride, b.rows,
                   t.values, t.dim, t.dim, round_up(end - k, 32) / 2, nullptr);
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    write_row(b.out + r * b.head_dim, t.acc + r * t.acc_stride, t.state[r].total, b.head_dim);
  }
}
