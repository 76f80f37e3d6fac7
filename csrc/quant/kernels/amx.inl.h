// Many rows at once with AMX: up to kChunk blocks of the panel are expanded to signed bytes (L1), multiplied with every
// tile of 16 rows, and so on along the columns.  A block of 32 columns is one tile product of 16 rows by 16 outputs
// whose exact int32 result is scaled as in the vector kernel; fp32 sums wait in memory between chunks. Included by
// qgemm.inl.h inside its namespace.
#pragma once

// Whether tiles are faster than the vector kernels: a tile product takes as long for few rows as for 16, so not with
// few rows in the last of few tiles.  Eight-bit codes need no unpacking in vectors.
template <int kBits>
constexpr bool tiles_pay(std::int64_t rows) {
  const bool waste = rows % 16 > 0 && rows % 16 <= 8;
  return kBits == 8 ? rows >= 48 && !(waste && rows < 64) : rows >= 13 && !(waste && rows < 32);
}

using tiles::GC_ISA_NS::settle;
using tiles::GC_ISA_NS::TileConfig;

constexpr int kChunk = 20;  // most blocks expanded at a time: 10 KiB

// Tiles 0, 1: activations, rows x 32 bytes; 2, 3: weights, 8 x 64 bytes; 4 .. 7: sums, rows x 16.
GC_INLINE void configure(std::int64_t rows) {
  TileConfig c;
  for (int i = 0; i < 8; ++i) {
    c.row_bytes[i] = i < 2 ? 32 : 64;
    c.rows[i] = static_cast<std::uint8_t>(i == 2 || i == 3 ? 8 : rows);
  }
  tiles::GC_ISA_NS::configure(c);
}

// Where the walk along a panel stands, at a block boundary.
struct Walk {
  const std::uint8_t* codes;  // of the next block
  std::int64_t left;          // blocks to the end of its group, this one included
  std::int64_t group;
};

template <int kBits>
GC_INLINE void expand_blocks(const PanelArgs& a, Walk at, std::int64_t blocks) {
  const std::int64_t values = 16 * (a.scale_f32 ? 4 : 2) * (a.has_min ? 2 : 1);
  const Bytes zero = fill_bytes(a.zero);
  std::uint8_t* out = a.scratch;
  for (std::int64_t b = 0; b < blocks; ++b) {
    Bytes v[kVectors];
    unpack<kBits>(at.codes, v);
    for (int j = 0; j < kVectors; ++j) _mm512_store_si512(out + 512 * b + 64 * j, minus(v[j], zero));
    at.codes += 64 * kBits;
    if (--at.left == 0) {
      at.left = a.blocks_per_group;
      at.codes += values;
    }
  }
}

template <int kBits>
GC_INLINE Walk advance(const PanelArgs& a, Walk at, std::int64_t blocks) {
  const std::int64_t values = 16 * (a.scale_f32 ? 4 : 2) * (a.has_min ? 2 : 1);
  for (; blocks >= at.left; at.left = a.blocks_per_group) {
    at.codes += 64 * kBits * at.left + values;
    blocks -= at.left;
    ++at.group;
  }
  at.codes += 64 * kBits * blocks;
  at.left -= blocks;
  return at;
}

// Fp32 sums of one tile between chunks: of the rows so far and of the group that is open.
struct TileState {
  float acc[256], open[256];
};

// What scaling reads, block by block.
struct ScaleCursor {
  const float *xs, *gsum;
  const std::uint8_t* values;  // scales and minima of the open group
  std::int64_t left;           // blocks to its end
};

// Exact for |x| < 2^22.  While tile instructions are in flight, one of the two units that multiply and convert vectors
// stands still; additions go on.
GC_INLINE Floats sums_to_floats(const std::int32_t* x) {
  const __m512i shifted = _mm512_add_epi32(_mm512_load_si512(x), _mm512_set1_epi32(0x4b400000));  // 1.5 * 2^23
  return _mm512_sub_ps(_mm512_castsi512_ps(shifted), _mm512_set1_ps(12582912.0f));
}

// Adds the sums of one block.  t: kSingle (groups of one block): the sums so far; else those of the open group, added
// to `acc` where it ends.  kRows: rows of the tile, or 0 for any number;
// known, loops unroll and t stays in registers.
template <int kBits, int kRows, bool kSingle>
GC_INLINE void scale_block(const PanelArgs& a, const std::int32_t* sums, std::int64_t tile_rows, ScaleCursor* at,
                           Floats* t, float* acc) {
  const std::int64_t rows = kRows ? kRows : tile_rows, value_bytes = a.scale_f32 ? 4 : 2;
  const Floats scale = a.scale_f32 ? load_f32(at->values) : load_f16(at->values);
  unrolled<16>([&](auto r) __attribute__((always_inline)) {
    if (r.value >= rows) return;
    const Floats sum = sums_to_floats(sums + 16 * r.value), xs = fill_float(at->xs[r.value]);
    t[r.value] = kSingle ? fma(scale, _mm512_mul_ps(sum, xs), t[r.value]) : fma(sum, xs, t[r.value]);
  });
  at->xs += rows;
  if (!kSingle && --at->left > 0) return;
  at->left = a.blocks_per_group;
  if constexpr (!kSingle) {
    unrolled<16>([&](auto r) __attribute__((always_inline)) {
      if (r.value >= rows) return;
      store(acc + 16 * r.value, fma(scale, t[r.value], _mm512_load_ps(acc + 16 * r.value)));
      t[r.value] = zero_floats();
    });
  }
  at->values += 16 * value_bytes;
  if (a.has_min) {
    const Floats min = a.scale_f32 ? load_f32(at->values) : load_f16(at->values);
    unrolled<16>([&](auto r) __attribute__((always_inline)) {
      if (r.value >= rows) return;
      const Floats gsum = fill_float(at->gsum[r.value]);
      if constexpr (kSingle) {
        t[r.value] = fma(min, gsum, t[r.value]);
      } else {
        store(acc + 16 * r.value, fma(min, gsum, _mm512_load_ps(acc + 16 * r.value)));
      }
    });
    at->values += 16 * value_bytes;
  }
  at->values += std::int64_t{64} * kBits * a.blocks_per_group;
  at->gsum += rows;
}

// One tile of rows times the expanded blocks.  Step i multiplies block i, stores the sums of block i - 2 and scales
// those of block i - 4, so that tiles, stores and vectors work at the same time; it also prefetches the weights of
// `next`, the blocks to expand after these, bit by bit: all at once they would wait for each other.  xq, xs: at the
// first block.
template <int kBits, int kRows, bool kSingle>
static void amx_blocks(const PanelArgs& a, Walk start, std::int64_t blocks, const std::int8_t* xq, const float* xs,
                       const float* gsum, std::int64_t tile_rows, const std::uint8_t* next, TileState* state) {
  constexpr int kLines = kBits + 1;  // of a block, with its share of scales and minima
  alignas(64) std::int32_t sums[4][256];
  const std::int64_t rows = kRows ? kRows : tile_rows;
  ScaleCursor at{xs, gsum + start.group * rows, start.codes + 64 * kBits * start.left, start.left};
  float* const kept = kSingle ? state->acc : state->open;
  Floats t[16];
  unrolled<16>([&](auto r) __attribute__((always_inline)) { t[r.value] = _mm512_load_ps(kept + 16 * r.value); });
  // The tile intrinsics want literal numbers: `tile` takes the product of a and w, `done` holds that of two steps ago.
#define GC_STEP(u, tile, a_tile, w_tile, done, done_slot, scaled_slot)                                           \
  if (i + u < blocks) {                                                                                          \
    _tile_zero(tile);                                                                                            \
    _tile_loadd(a_tile, xq + (i + u) * 32 * rows, 32);                                                           \
    _tile_loadd(w_tile, a.scratch + (i + u) * 512, 64);                                                          \
    _tile_dpbssd(tile, a_tile, w_tile);                                                                          \
    for (int line = 0; next && line < kLines; ++line) __builtin_prefetch(next + 64 * (kLines * (i + u) + line)); \
  }                                                                                                              \
  if (i + u > 1 && i + u <= blocks + 1) _tile_stored(done, sums[done_slot], 64);                                 \
  if (i + u > 3 && i + u < blocks + 4) {                                                                         \
    scale_block<kBits, kRows, kSingle>(a, sums[scaled_slot], rows, &at, t, state->acc);                          \
  }
  for (std::int64_t i = 0; i < blocks + 4; i += 4) {
    GC_STEP(0, 4, 0, 2, 6, 2, 0)
    GC_STEP(1, 5, 1, 3, 7, 3, 1)
    GC_STEP(2, 6, 0, 2, 4, 0, 2)
    GC_STEP(3, 7, 1, 3, 5, 1, 3)
  }
#undef GC_STEP
  unrolled<16>([&](auto r) __attribute__((always_inline)) { store(kept + 16 * r.value, t[r.value]); });
}

template <int kBits, bool kSingle>
GC_INLINE void amx_tile(const PanelArgs& a, Walk start, std::int64_t blocks, const std::int8_t* xq, const float* xs,
                        std::int64_t rows, const std::uint8_t* next, TileState* state) {
  const auto run = rows == 16  ? amx_blocks<kBits, 16, kSingle>
                   : rows == 8 ? amx_blocks<kBits, 8, kSingle>
                               : amx_blocks<kBits, 0, kSingle>;
  run(a, start, blocks, xq, xs, a.gsum, rows, next, state);
}

template <int kBits>
static void amx_one_panel(const PanelArgs& args, std::int64_t* configured) {
  const bool single = args.blocks_per_group == 1;
  const std::int64_t blocks = args.groups * args.blocks_per_group;
  TileState* const states = reinterpret_cast<TileState*>(args.scratch + kChunk * 512);
  __builtin_memset(states, 0, sizeof(TileState) * ((args.rows + args.tile_rows - 1) / args.tile_rows));
  Walk at{args.panel, args.blocks_per_group, 0};
  const std::int64_t chunks = (blocks + kChunk - 1) / kChunk, most = (blocks + chunks - 1) / chunks;
  for (std::int64_t first = 0; first < blocks; first += most) {
    const std::int64_t here = blocks - first < most ? blocks - first : most;
    expand_blocks<kBits>(args, at, here);
    settle();
    const std::uint8_t* const next = advance<kBits>(args, at, here).codes;
    PanelArgs a = args;
    TileState* state = states;
    for (std::int64_t done = 0; done < args.rows; done += args.tile_rows, ++state) {
      const std::int64_t left = args.rows - done, rows = left < args.tile_rows ? left : args.tile_rows;
      if (rows != *configured) configure(rows);
      *configured = rows;
      const auto run = single ? amx_tile<kBits, true> : amx_tile<kBits, false>;
      run(a, at, here, a.xq + first * rows * 32, a.xs + first * rows, rows, done == 0 ? next : nullptr, state);
      next_tile(&a, rows);
    }
    settle();
    at = advance<kBits>(args, at, here);
  }
  const TileState* state = states;
  for (std::int64_t done = 0; done < args.rows; done += args.tile_rows, ++state) {
    const std::int64_t left = args.rows - done, rows = left < args.tile_rows ? left : args.tile_rows;
    for (std::int64_t r = 0; r < rows; ++r) store(args.out + 16 * (done + r), _mm512_load_ps(state->acc + 16 * r));
  }
}

// Tiles are configured once for all panels: that and their release take as long as some blocks.
template <int kBits>
static void amx_panels(const PanelArgs& args) {
  PanelArgs a = args;
  std::int64_t configured = 0;
  for (std::int64_t p = 0; p < args.panels; ++p) {
    amx_one_panel<kBits>(a, &configured);
    a.panel += a.panel_bytes;
    a.out += 16 * a.rows;
  }
  _tile_release();
}
