// Attention over bf16 caches with tile products (AMX): 16 rows by 16 keys (or dimensions) at a time, 32 reduced
// elements per product.  Here the maximum is kept online, chunk by chunk of slots: whole score rows of many query rows
// would not stay in cache, and reading the cache again for every few rows costs more than the products.  Chunks begin
// at fixed slots, an element of a product is summed in one fixed order, and a chunk without seen slots changes nothing:
// a row's bits do not depend on the other rows. Included by tree_attention.inl.h inside its namespace.
#pragma once

using tiles::GC_ISA_NS::TileConfig;

constexpr std::int64_t kTilePair = 32;    // rows of a product: of tiles 0, 1, 4 and of tiles 2, 3, 5
constexpr std::int64_t kChunkKeys = 512;  // slots between two looks at the maximum
constexpr std::int64_t kFetchRows = 128;  // with fewer rows asking for the next slots costs more than it saves
constexpr std::int64_t kPad = 16;         // behind rows in scratch, so that they do not share cache sets

// Tiles 0 .. 3: sums of 2 x 2 products; 4, 5: rows; 6, 7: keys or values.
class Tiles {
 public:
  ~Tiles() { _tile_release(); }
  // For `rows` rows, 1 .. kTilePair.
  void configure(std::int64_t rows) {
    if (rows == rows_) return;
    rows_ = rows;
    TileConfig c;
    const std::int64_t upper = rows < 16 ? rows : 16, lower = rows > 16 ? rows - 16 : 1;
    for (int i = 0; i < 8; ++i) {
      c.row_bytes[i] = 64;
      c.rows[i] = static_cast<std::uint8_t>(i >= 6 ? 16 : i == 2 || i == 3 || i == 5 ? lower : upper);
    }
    tiles::GC_ISA_NS::configure(c);
  }

 private:
  std::int64_t rows_ = 0;
};

// out (rows x 32 fp32) = or += a (rows x 2 steps bf16) times b (steps x 32 pairs); steps is a multiple of 16, strides
// count 32-bit elements.
template <bool kTwo>
static void multiply_tiles(float* out, std::int64_t out_stride, bool add, const std::int32_t* a, std::int64_t a_stride,
                           const std::int32_t* b, std::int64_t b_stride, std::int64_t steps) {
  float* const lower = out + 16 * out_stride;
  tiles::GC_ISA_NS::settle();
  if (add) {
    _tile_loadd(0, out, 4 * out_stride);
    _tile_loadd(1, out + 16, 4 * out_stride);
    if constexpr (kTwo) {
      _tile_loadd(2, lower, 4 * out_stride);
      _tile_loadd(3, lower + 16, 4 * out_stride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTwo) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  for (std::int64_t s = 0; s < steps; s += 16) {
    _tile_loadd(4, a + s, 4 * a_stride);
    _tile_loadd(6, b + s * b_stride, 4 * b_stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, b + s * b_stride + 16, 4 * b_stride);
    _tile_dpbf16ps(1, 4, 7);
    if constexpr (kTwo) {
      _tile_loadd(5, a + 16 * a_stride + s, 4 * a_stride);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, out, 4 * out_stride);
  _tile_stored(1, out + 16, 4 * out_stride);
  if constexpr (kTwo) {
    _tile_stored(2, lower, 4 * out_stride);
    _tile_stored(3, lower + 16, 4 * out_stride);
  }
  tiles::GC_ISA_NS::settle();
}

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

template <class Fn>
GC_INLINE void for_tile_rows(std::int64_t rows, Tiles* tiles, Fn fn) {
  for (std::int64_t r = 0; r < rows; r += kTilePair) {
    const std::int64_t here = rows - r < kTilePair ? rows - r : kTilePair;
    tiles->configure(here);
    fn(r, here > 16);
  }
}

// What a block keeps in its scratch.
struct TileScratch {
  std::int64_t dim, score_stride, acc_stride, query_stride;
  float *scores, *acc;
  std::int32_t *query, *keys, *values;
  RowState* state;

  explicit TileScratch(const AttentionBlock& b) {
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

static void score_chunk(const AttentionBlock& b, const TileScratch& t, Tiles* tiles, std::int64_t first,
                        std::int64_t end) {
  for (std::int64_t k = first; k < end; k += kTileKeys) {
    const int count = static_cast<int>(end - k < kTileKeys ? end - k : kTileKeys);
    pack_keys<Bf16Products, bf16, kTileKeys>(t.keys, b, k, count, static_cast<int>(t.dim / 2));
    Fetch next(b, b.key, 2, b.key_step, b.rows >= kFetchRows ? k + kTileKeys : b.num_keys, kTileKeys,
               round_up(b.rows, kTilePair) / kTilePair * 2);
    for_tile_rows(b.rows, tiles, [&](std::int64_t r, bool two) {
      const auto multiply = two ? multiply_tiles<true> : multiply_tiles<false>;
      for (std::int64_t n = 0; n < kTileKeys; n += 32) {
        Fetch::some(&next);
        multiply(t.scores + r * t.score_stride + k - first + n, t.score_stride, false, t.query + r * t.query_stride,
                 t.query_stride, t.keys + n, kTileKeys, t.dim / 2);
      }
    });
  }
}

static void add_value_chunk(const AttentionBlock& b, const TileScratch& t, Tiles* tiles, std::int64_t first,
                            std::int64_t end) {
  pack_value_pairs(t.values, b, first, end - first, t.dim);
  const auto* weights = reinterpret_cast<const std::int32_t*>(t.scores);
  for_tile_rows(b.rows, tiles, [&](std::int64_t r, bool two) {
    const auto multiply = two ? multiply_tiles<true> : multiply_tiles<false>;
    for (std::int64_t d = 0; d < t.dim; d += 32) {
      multiply(t.acc + r * t.acc_stride + d, t.acc_stride, first > 0, weights + r * t.score_stride, t.score_stride,
               t.values + d, t.dim, round_up(end - first, 32) / 2);
    }
  });
}

static void attend_tiles(const AttentionBlock& b) {
  const TileScratch t(b);
  Tiles tiles;
  pack_query<Bf16Products>(t.query, b, t.dim, t.query_stride);
  for (std::int64_t r = 0; r < b.rows; ++r) t.state[r] = {-__builtin_inff(), 0.0f};
  for (std::int64_t k = 0; k < b.num_keys; k += kChunkKeys) {
    const std::int64_t end = b.num_keys - k < kChunkKeys ? b.num_keys : k + kChunkKeys;
    score_chunk(b, t, &tiles, k, end);
    Fetch next(b, b.value, 2, b.value_step, b.rows >= kFetchRows ? k : b.num_keys, end - k, b.rows);
    for (std::int64_t r = 0; r < b.rows; ++r) {
      Fetch::some(&next);
      float* scores = t.scores + r * t.score_stride;
      const std::int64_t padded = round_up(end - k, kTileKeys);
      mask_row(scores, b, b.first_node + r / b.group, k, padded);
      soften_row(scores, padded, t.state + r, t.acc + r * t.acc_stride, k > 0 ? t.dim : 0);
    }
    add_value_chunk(b, t, &tiles, k, end);
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    const float total = t.state[r].total, inverse = total == 0.0f ? 0.0f : 1.0f / total;
    for (std::int64_t d = 0; d < b.head_dim; ++d) b.out[r * b.head_dim + d] = t.acc[r * t.acc_stride + d] * inverse;
  }
}
