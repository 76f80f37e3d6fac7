// Many rows at once with AMX: kChunk blocks of the panel are expanded to signed bytes (L1), multiplied with every tile
// of 16 rows, and so on along the columns.  A block of 32 columns is one tile product of 16 rows by 16 outputs whose
// exact int32 result is scaled as in the vector kernel; fp32 sums wait in memory between chunks.
// Included by qgemm.inl.h inside its namespace.
#pragma once

// Below this the vector kernel is as fast or faster: a tile's sums pass through memory once per 32 columns.
constexpr std::int64_t kAmxMinRows = 64;

struct TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

constexpr int kChunk = 16;  // blocks expanded at a time: 8 KiB
constexpr int kBatch = 4;   // blocks whose products are under way together

// Tiles 0, 1: activations, rows x 32 bytes; 2, 3: weights, 8 x 64 bytes; 4 .. 7: sums, rows x 16.
GC_INLINE void configure(std::int64_t rows) {
  TileConfig c;
  for (int i = 0; i < 8; ++i) {
    c.row_bytes[i] = i < 2 ? 32 : 64;
    c.rows[i] = static_cast<std::uint8_t>(i == 2 || i == 3 ? 8 : rows);
  }
  _tile_loadconfig(&c);
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
    for (int line = 0; line < kBits; ++line) __builtin_prefetch(at.codes + kPrefetchBytes + 64 * line);
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

// Exact sums of up to kBatch consecutive blocks from block b: tiles 4 .. 7, stored to `sums`.
GC_INLINE void multiply_blocks(const std::int8_t* xq, const std::uint8_t* codes, std::int64_t rows, std::int64_t b,
                               std::int64_t blocks, std::int32_t (*sums)[256]) {
  const std::int64_t left = blocks - b;
  xq += b * 32 * rows;
  codes += b * 512;
#define GC_MULTIPLY(i, sum, a, w)           \
  if (i < left) {                           \
    _tile_zero(sum);                        \
    _tile_loadd(a, xq + i * 32 * rows, 32); \
    _tile_loadd(w, codes + i * 512, 64);    \
    _tile_dpbssd(sum, a, w);                \
  }
  GC_MULTIPLY(0, 4, 0, 2)
  GC_MULTIPLY(1, 5, 1, 3)
  GC_MULTIPLY(2, 6, 0, 2)
  GC_MULTIPLY(3, 7, 1, 3)
#undef GC_MULTIPLY
  _tile_stored(4, sums[0], 64);
  if (left > 1) _tile_stored(5, sums[1], 64);
  if (left > 2) _tile_stored(6, sums[2], 64);
  if (left > 3) _tile_stored(7, sums[3], 64);
}

// One tile of rows times the expanded blocks: while tiles multiply one batch of blocks, vectors scale the batch before.
// kFull: 16 rows, so that loops unroll and sums stay in registers; kSingle: groups of one block, where the sum t of a
// group needs no register of its own.  xq, xs: at the first of these blocks.
template <int kBits, bool kFull, bool kSingle>
static void amx_blocks(const PanelArgs& a, Walk at, std::int64_t blocks, const std::int8_t* xq, const float* xs,
                       const float* gsum, std::int64_t tile_rows, TileState* state) {
  alignas(64) std::int32_t sums[2][kBatch][256];
  const std::int64_t rows = kFull ? 16 : tile_rows, value_bytes = a.scale_f32 ? 4 : 2;
  const std::uint8_t* p = at.codes + 64 * kBits * at.left;
  gsum += at.group * rows;
  Floats acc[16], t[16];
  for (int r = 0; r < 16; ++r) {
    acc[r] = _mm512_load_ps(state->acc + 16 * r);
    t[r] = kSingle ? zero_floats() : _mm512_load_ps(state->open + 16 * r);
  }
  multiply_blocks(xq, a.scratch, rows, 0, blocks, sums[0]);
  for (std::int64_t first = 0; first < blocks; first += kBatch) {
    const std::int64_t batch = first / kBatch;
    if (first + kBatch < blocks) multiply_blocks(xq, a.scratch, rows, first + kBatch, blocks, sums[(batch + 1) & 1]);
    for (std::int64_t b = first; b < blocks && b < first + kBatch; ++b) {
      const std::int32_t* sum = sums[batch & 1][b - first];
      const bool closes = kSingle || --at.left == 0;
      Floats scale = zero_floats();
      if (closes) scale = a.scale_f32 ? load_f32(p) : load_f16(p);
      for (int r = 0; r < rows; ++r) {
        const Floats product = to_floats(_mm512_load_si512(sum + 16 * r));
        if constexpr (kSingle) {
          acc[r] = fma(scale, _mm512_mul_ps(product, fill_float(xs[r])), acc[r]);
        } else {
          t[r] = fma(product, fill_float(xs[r]), t[r]);
        }
      }
      xs += rows;
      if (!closes) continue;
      p += 16 * value_bytes;
      if constexpr (!kSingle) {
        for (int r = 0; r < rows; ++r) {
          acc[r] = fma(scale, t[r], acc[r]);
          t[r] = zero_floats();
        }
        at.left = a.blocks_per_group;
      }
      if (a.has_min) {
        const Floats min = a.scale_f32 ? load_f32(p) : load_f16(p);
        for (int r = 0; r < rows; ++r) acc[r] = fma(min, fill_float(gsum[r]), acc[r]);
        p += 16 * value_bytes;
      }
      p += std::int64_t{64} * kBits * a.blocks_per_group;
      gsum += rows;
    }
  }
  for (int r = 0; r < 16; ++r) {
    _mm512_store_ps(state->acc + 16 * r, acc[r]);
    if (!kSingle) _mm512_store_ps(state->open + 16 * r, t[r]);
  }
}

template <int kBits>
static void amx_panel(const PanelArgs& args) {
  const bool single = args.blocks_per_group == 1;
  const std::int64_t blocks = args.groups * args.blocks_per_group;
  TileState* const states = reinterpret_cast<TileState*>(args.scratch + kChunk * 512);
  __builtin_memset(states, 0, sizeof(TileState) * ((args.rows + args.tile_rows - 1) / args.tile_rows));
  Walk at{args.panel, args.blocks_per_group, 0};
  std::int64_t configured = 0;
  for (std::int64_t first = 0; first < blocks; first += kChunk) {
    const std::int64_t here = blocks - first < kChunk ? blocks - first : kChunk;
    expand_blocks<kBits>(args, at, here);
    PanelArgs a = args;
    TileState* state = states;
    for (std::int64_t done = 0; done < args.rows; done += args.tile_rows, ++state) {
      const std::int64_t left = args.rows - done, rows = left < args.tile_rows ? left : args.tile_rows;
      if (rows != configured) configure(rows);
      configured = rows;
      const std::int8_t* xq = a.xq + first * rows * 32;
      const float* xs = a.xs + first * rows;
      auto run = single ? (rows == 16 ? amx_blocks<kBits, true, true> : amx_blocks<kBits, false, true>)
                        : (rows == 16 ? amx_blocks<kBits, true, false> : amx_blocks<kBits, false, false>);
      run(a, at, here, xq, xs, a.gsum, rows, state);
      next_tile(&a, rows);
    }
    at = advance<kBits>(args, at, here);
  }
  _tile_release();
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const float* from = states[r / args.tile_rows].acc + 16 * (r % args.tile_rows);
    store(args.out + 16 * r, _mm512_load_ps(from));
  }
}
