// Tile products (AMX): 16 rows by 16 keys (or dimensions) at a time, 32 reduced elements per product.  Included by
// tree_attention.inl.h inside its namespace.
#pragma once

using tiles::GC_ISA_NS::TileConfig;

constexpr std::int64_t kTilePair = 32;  // rows of a product: of tiles 0, 1, 4 and of tiles 2, 3, 5

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

// Pairs of bf16 multiplied by tiles; see attend_online.
class TilePairs {
 public:
  static constexpr std::int64_t kFetchRows = 128;  // with fewer rows asking for slots costs more than it saves
  static std::int64_t fetches(std::int64_t rows, std::int64_t lanes, std::int64_t) {
    return round_up(rows, kTilePair) / kTilePair * (lanes / 32);
  }
  void multiply(float* out, std::int64_t out_stride, bool add, const std::int32_t* a, std::int64_t a_stride,
                std::int64_t rows, const std::int32_t* b, std::int64_t b_stride, std::int64_t lanes, std::int64_t steps,
                Fetch* fetch) {
    for (std::int64_t r = 0; r < rows; r += kTilePair) {
      const std::int64_t here = rows - r < kTilePair ? rows - r : kTilePair;
      tiles_.configure(here);
      const auto block = here > 16 ? multiply_tiles<true> : multiply_tiles<false>;
      for (std::int64_t l = 0; l < lanes; l += 32) {
        Fetch::some(fetch);
        block(out + r * out_stride + l, out_stride, add, a + r * a_stride, a_stride, b + l, b_stride, steps);
      }
    }
  }

 private:
  Tiles tiles_;
};
