// Many rows: the codes of some blocks of two panels are expanded to bytes (L1), multiplied with every row as eight-bit
// ones are (which lie better that way themselves), and so on along the columns; sums wait in the result meanwhile.
// Included by qgemm.inl.h inside its namespace.
#pragma once

// From so many rows on: below, unpacking costs less than the way of codes and sums to memory and back.
template <int kBits>
constexpr std::int64_t kExpandRows = kBits == 2 || kBits == 4 || kBits == 8 ? 17 : 16;
constexpr std::int64_t kExpandBlocks = 16;  // at a time, in whole groups

// `groups` groups at p as groups of eight-bit codes with fp32 values, all aligned to 64 bytes.
template <int kBits>
GC_INLINE void expand_groups(const PanelArgs& a, const std::uint8_t* p, std::int64_t groups, std::uint8_t* to) {
  for (std::int64_t g = 0; g < groups; ++g) {
    for (int b = 0; b < a.blocks_per_group; ++b, p += 64 * kBits, to += 512) {
      unrolled<kVectors>([&](auto j) __attribute__((always_inline)) {
        _mm512_store_si512(to + 64 * j.value, codes<kBits, j.value>(p));
      });
    }
    for (int i = 0; i <= a.has_min; ++i, p += a.scale_f32 ? 64 : 32, to += 64) {
      _mm512_store_ps(to, load_values(a, p, 0));
    }
  }
}

// kPanels panels from group `first` on, `groups` groups.
template <int kBits, int kPanels>
static void expanded_groups(const PanelArgs& args, std::int64_t first, std::int64_t groups) {
  const std::int64_t value_bytes = (args.scale_f32 ? 64 : 32) * (args.has_min ? 2 : 1), blocks = args.blocks_per_group;
  const std::int64_t packed_group = 64 * kBits * blocks + value_bytes;
  PanelArgs a = args;
  a.groups = groups;
  a.panel = args.scratch;
  a.panel_bytes = groups * (512 * blocks + (args.has_min ? 128 : 64));
  a.scale_f32 = 1;
  a.prefetch = 0;
  a.go_on = first > 0;
  const std::uint8_t* const packed = args.panel + first * packed_group;
  for (int i = 0; i < kPanels; ++i) {
    expand_groups<kBits>(args, packed + i * args.panel_bytes, groups, args.scratch + i * a.panel_bytes);
  }
  // Spread over all rows: they are multiplied in the time that memory takes.
  const std::uint8_t* const next = packed + groups * packed_group;
  const std::int64_t bytes = groups * packed_group, asked = 64 * groups * blocks * (args.rows / kDotRows);
  Ahead ahead{next, next + bytes, args.panel_bytes, bytes / asked + 1};
  a.ahead = &ahead;
  PanelArgs tile = args;  // at its first block
  float* out = args.out;
  for (std::int64_t left = args.rows; left > 0; left -= args.tile_rows) {
    const std::int64_t rows = left < args.tile_rows ? left : args.tile_rows;
    a.xq = tile.xq + first * blocks * rows * 32;
    a.xs = tile.xs + first * blocks * rows;
    a.init = tile.init + first * blocks * rows;
    a.gsum = tile.gsum + first * rows;
    tile_times_panels<ByDots<8, kPanels>, 8>(a, rows, out);
    next_tile(&tile, rows);
    out += 16 * rows;
  }
}

template <int kBits>
static void expanded(const PanelArgs& args) {
  const std::int64_t most = kExpandBlocks / args.blocks_per_group;
  PanelArgs a = args;
  for (std::int64_t left = args.panels, here; left > 0; left -= here) {
    here = left < kDotPanels ? 1 : kDotPanels;
    for (std::int64_t first = 0; first < args.groups; first += most) {
      const std::int64_t groups = args.groups - first < most ? args.groups - first : most;
      (here == kDotPanels ? expanded_groups<kBits, kDotPanels> : expanded_groups<kBits, 1>)(a, first, groups);
    }
    a.panel += here * a.panel_bytes;
    a.out += here * 16 * a.rows;
  }
}
