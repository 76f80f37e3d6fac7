// Many rows at once with AMX: the panel is expanded to signed bytes once (L2), then every block of 32 columns is one
// tile product of 16 rows by 16 outputs whose exact int32 result is scaled as in the vector kernel.
// Included by qgemm.inl.h inside its namespace.
#pragma once

constexpr std::int64_t kAmxMinRows = 8;

struct TileConfig {
  std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// Tile 0: 16 x 16 sums; tile 1: activations, rows x 32 bytes; tile 2: weights, 8 x 64 bytes.
GC_INLINE void configure(std::int64_t rows) {
  TileConfig c;
  c.row_bytes[0] = 64;
  c.row_bytes[1] = 32;
  c.row_bytes[2] = 64;
  c.rows[0] = c.rows[1] = static_cast<std::uint8_t>(rows);
  c.rows[2] = 8;
  _tile_loadconfig(&c);
}

template <int kBits>
GC_INLINE void expand_panel(const PanelArgs& a) {
  const std::int64_t values = 16 * (a.scale_f32 ? 4 : 2) * (a.has_min ? 2 : 1);
  const Bytes zero = fill_bytes(a.zero);
  const std::uint8_t* p = a.panel;
  std::uint8_t* out = a.scratch;
  for (std::int64_t g = 0; g < a.groups; ++g) {
    for (int b = 0; b < a.blocks_per_group; ++b) {
      Bytes v[kVectors];
      unpack<kBits>(p, v);
      for (int j = 0; j < kVectors; ++j) _mm512_store_si512(out + 64 * j, minus(v[j], zero));
      p += 64 * kBits;
      out += 512;
    }
    p += values;
  }
}

// One tile of rows times the expanded panel.  kFull: 16 rows, so that loops unroll and sums stay in registers; kSingle:
// groups of one block, where the sum t of a group needs no register of its own.
template <int kBits, bool kFull, bool kSingle>
static void amx_tile(const PanelArgs& a, std::int64_t tile_rows, float* out) {
  alignas(64) std::int32_t sums[2][256];
  const std::int64_t rows = kFull ? 16 : tile_rows;
  const std::int64_t group_codes = std::int64_t{64} * kBits * a.blocks_per_group, value_bytes = a.scale_f32 ? 4 : 2;
  const std::int8_t* xq = a.xq;
  const float *xs = a.xs, *gsum = a.gsum;
  const std::uint8_t *p = a.panel, *codes = a.scratch;
  Floats acc[16];
  for (int r = 0; r < 16; ++r) acc[r] = zero_floats();
  for (std::int64_t g = 0; g < a.groups; ++g) {
    p += group_codes;
    const Floats scale = a.scale_f32 ? load_f32(p) : load_f16(p);
    p += 16 * value_bytes;
    Floats t[16];
    for (int r = 0; r < 16; ++r) t[r] = zero_floats();
    for (int b = 0; b < (kSingle ? 1 : a.blocks_per_group); ++b) {
      std::int32_t* sum = sums[b & 1];
      _tile_zero(0);
      _tile_loadd(1, xq, 32);
      _tile_loadd(2, codes, 64);
      _tile_dpbssd(0, 1, 2);
      _tile_stored(0, sum, 64);
      for (int r = 0; r < rows; ++r) {
        const Floats product = to_floats(_mm512_load_si512(sum + 16 * r));
        if constexpr (kSingle) {
          acc[r] = fma(scale, _mm512_mul_ps(product, fill_float(xs[r])), acc[r]);
        } else {
          t[r] = fma(product, fill_float(xs[r]), t[r]);
        }
      }
      xq += 32 * rows;
      xs += rows;
      codes += 512;
    }
    if constexpr (!kSingle) {
      for (int r = 0; r < rows; ++r) acc[r] = fma(scale, t[r], acc[r]);
    }
    if (a.has_min) {
      const Floats min = a.scale_f32 ? load_f32(p) : load_f16(p);
      for (int r = 0; r < rows; ++r) acc[r] = fma(min, fill_float(gsum[r]), acc[r]);
      p += 16 * value_bytes;
    }
    gsum += rows;
  }
  for (int r = 0; r < rows; ++r) store(out + 16 * r, acc[r]);
}

template <int kBits>
static void amx_tile_times_panel(const PanelArgs& a, std::int64_t rows, float* out) {
  const bool single = a.blocks_per_group == 1;
  if (rows == 16)
    return single ? amx_tile<kBits, true, true>(a, rows, out) : amx_tile<kBits, true, false>(a, rows, out);
  return single ? amx_tile<kBits, false, true>(a, rows, out) : amx_tile<kBits, false, false>(a, rows, out);
}

template <int kBits>
static void amx_panel(const PanelArgs& args) {
  expand_panel<kBits>(args);
  PanelArgs a = args;
  std::int64_t configured = 0;
  for (std::int64_t done = 0; done < args.rows; done += args.tile_rows) {
    const std::int64_t left = args.rows - done, rows = left < args.tile_rows ? left : args.tile_rows;
    if (rows != configured) configure(rows);
    configured = rows;
    amx_tile_times_panel<kBits>(a, rows, args.out + 16 * done);
    next_tile(&a, rows);
  }
  _tile_release();
}
