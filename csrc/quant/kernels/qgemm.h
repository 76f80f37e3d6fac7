// Products of int8 activations with one packed panel of 16 weight rows.
#pragma once

#include "quant/kernels/panels.h"

namespace gramcore::quant {

// Bytes to ask for while others are multiplied, `lines` of 64 with every block, of panels that lie `apart`.
struct Ahead {
  const std::uint8_t *next, *end;
  std::int64_t apart, lines;
};

// Activations come in tiles of `rows` <= 16 rows: xq[block][row][32] int8, xs[block][row] their scales,
// init[block][row] = -zero * sum(xq), gsum[group][row] = sum over the group of xs * sum(xq).
struct PanelArgs : PanelsBase {      // out: (panels, rows, 16)
  std::int64_t panels, panel_bytes;  // consecutive panels to multiply
  const std::int8_t* xq;
  const float* xs;
  const std::int32_t* init;
  const float* gsum;
  std::int64_t x_blocks;   // blocks of a tile: at least groups * blocks_per_group
  std::int64_t tile_rows;  // rows of every tile but the last
  std::uint8_t* scratch;   // 20 KiB, or 10 KiB and 2 KiB per tile; 64-byte aligned
  int prefetch;            // whether asking for weights ahead of time pays on this processor
  int go_on;               // out has sums so far, of columns before these
  Ahead* ahead;            // or null
  // Tables of build_tables for [block][row], or null: one-bit weights by table, rows <= table_rows.
  const std::uint8_t* tables;
  // Of popcount: bit planes of [block][row], plane_words = 2 (bits + 1) of 32 columns each: planes from the lowest and
  // the mask of real columns, first in the order of one-bit weights, then in that of two-bit ones.
  const std::uint32_t* planes;
  std::int64_t plane_words;
  const std::uint8_t* second;  // of pair1: panels of the same format without minima
  std::int64_t second_bytes;
};

struct QgemmKernels {
  void (*panel[9])(const PanelArgs&);  // by bits of a code
  // One row of k floats -> blocks of 32 int8 at stride `x_stride` bytes, scales and sums at stride `s_stride`;
  // columns from k to 32 * blocks count as zero.  A block with a NaN or infinity gets scale NaN.  bits: 8, or 1 to 7
  // for the odd numbers that have as many bits of -1 and +1.
  void (*quantize_row)(const float* x, std::int64_t k, int bits, std::int64_t blocks, std::int8_t* xq,
                       std::int64_t x_stride, float* xs, std::int32_t* xsum, std::int64_t s_stride);
  // For one-bit weights: 256 bytes for every 32 int8 of x.  Null, with table_rows 0, where tables do not pay.
  void (*build_tables)(const std::int8_t* x, std::int64_t blocks, std::uint8_t* tables);
  std::int64_t table_rows;
  // The sum of two one-bit weights' products; only with tables.  Each is added up as panel[1] does it.
  void (*pair1)(const PanelArgs&);
  // By bits of a weight and of activations: products by counting bits, to the bit those of panel[]; null where they are
  // not faster.  By bits of a weight: up to how many rows of x they are.
  void (*popcount[4][5])(const PanelArgs&);
  std::int64_t popcount_rows[4];
};

const QgemmKernels& qgemm_kernels();

}  // namespace gramcore::quant
