// One-bit weights by table: for four columns of x a table holds the sum +-x0 +-x1 +-x2 +-x3 of every choice of signs,
// so one byte shuffle adds up four columns of 64 rows.  A block of 32 columns has eight tables of 16 sums: table (h, p)
// for columns 4 j + p, j = 4 h .. 4 h + 3, whose signs are half h of byte p of each row's four.  Sums, within +-508,
// are split into seven low bits and the rest: 64 bytes each per h, in the order h0 low, h0 rest, h1 low, h1 rest.
// Exact, like the dot products it replaces.  Tables of a whole row of x may fill the first-level cache, so several
// panels share what is read of them.  Included by qgemm.inl.h inside its namespace; needs AVX-512 VBMI.
#pragma once

constexpr std::int64_t kTableBytes = 256;  // per block and row
constexpr std::int64_t kLutRows = 2;       // above, unpacking once for all rows is faster

// Tables of `blocks` consecutive blocks of 32 int8 of x.
static void build_tables(const std::int8_t* x, std::int64_t blocks, std::uint8_t* tables) {
  const __m512i spread = _mm512_set_epi64(0x0303030303030303, 0x0303030303030303, 0x0202020202020202,
                                          0x0202020202020202, 0x0101010101010101, 0x0101010101010101, 0, 0);
  // Bit t of the index of every table entry: entries whose sign of column t is minus.
  constexpr unsigned kMinus[4] = {0x5555, 0x3333, 0x0f0f, 0x00ff};
  for (std::int64_t b = 0; b < blocks; ++b, x += 32, tables += kTableBytes) {
    for (int h = 0; h < 2; ++h) {
      __m512i low = _mm512_setzero_si512(), high = low;  // int16 sums of tables 0, 1 and 2, 3
      for (int t = 0; t < 4; ++t) {
        const __m512i four = _mm512_shuffle_epi8(_mm512_set1_epi32(load_i32(x + 16 * h + 4 * t)), spread);
        const __mmask64 minus = 0x0001000100010001u * static_cast<std::uint64_t>(kMinus[t]);
        const __m512i signed_four = _mm512_mask_sub_epi8(four, minus, _mm512_setzero_si512(), four);
        low = _mm512_add_epi16(low, _mm512_cvtepi8_epi16(_mm512_castsi512_si256(signed_four)));
        high = _mm512_add_epi16(high, _mm512_cvtepi8_epi16(_mm512_extracti64x4_epi64(signed_four, 1)));
      }
      const __m512i seven = _mm512_set1_epi16(127);
      std::uint8_t* const to = tables + 128 * h;
      const __mmask32 all = 0xffffffffu;
      _mm512_mask_cvtepi16_storeu_epi8(to, all, _mm512_and_si512(low, seven));
      _mm512_mask_cvtepi16_storeu_epi8(to + 32, all, _mm512_and_si512(high, seven));
      _mm512_mask_cvtepi16_storeu_epi8(to + 64, all, _mm512_srai_epi16(low, 7));
      _mm512_mask_cvtepi16_storeu_epi8(to + 96, all, _mm512_srai_epi16(high, 7));
    }
  }
}

// Signed sums of 32 columns of all 16 rows, from the indices into the tables of both halves.  Low parts of two halves
// are within 254, the rest within -8 .. 6.
GC_INLINE Ints look_up(const Bytes (&index)[2], const Bytes (&tables)[4]) {
  const Bytes low =
      _mm512_add_epi8(_mm512_permutexvar_epi8(index[0], tables[0]), _mm512_permutexvar_epi8(index[1], tables[2]));
  const Bytes rest =
      _mm512_add_epi8(_mm512_permutexvar_epi8(index[0], tables[1]), _mm512_permutexvar_epi8(index[1], tables[3]));
  const Ints sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, fill_bytes(1));
  return _mm512_dpbusd_epi32(sum, fill_bytes(128), rest);
}

// Panels that are read together, and the sums so far of kRows rows of x.
template <int kRows, int kStreams>
struct LutStreams {
  const std::uint8_t* p[kStreams];
  const std::uint8_t* ahead[2];  // of either weight: what to prefetch, from the first panel to be read next on
  Floats acc[kStreams][kRows], t[kStreams][kRows];
};

// `lines` for every weight: memory is read in its order, whatever the number of streams.
template <int kRows, int kStreams, int kWeights, int kLines>
GC_INLINE void prefetch_next(LutStreams<kRows, kStreams>* s) {
  unrolled<kWeights>([&](auto i) __attribute__((always_inline)) {
    for (int line = 0; line < kLines; ++line) __builtin_prefetch(s->ahead[i.value] + 64 * line, 0, 2);
    s->ahead[i.value] += 64 * kLines;
  });
}

template <int kRows, int kStreams, int kWeights>
GC_INLINE void lut_block(LutStreams<kRows, kStreams>* s, const std::uint8_t* tables, const float* xs) {
  const Bytes nibble = fill_bytes(15), position = _mm512_set1_epi32(0x30201000);
  Bytes index[kStreams][2];
  prefetch_next<kRows, kStreams, kWeights, kStreams / kWeights>(s);
  unrolled<kStreams>([&](auto i) __attribute__((always_inline)) {
    const std::uint8_t* const p = s->p[i.value];
    const Bytes bits = load_bytes(p);
    // (bits & nibble) | position
    index[i.value][0] = _mm512_ternarylogic_epi32(bits, nibble, position, 0xea);
    index[i.value][1] = _mm512_ternarylogic_epi32(right<4>(bits), nibble, position, 0xea);
    s->p[i.value] += 64;
  });
  unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
    const std::uint8_t* const at = tables + kTableBytes * r.value;
    const Bytes four[4] = {load_bytes(at), load_bytes(at + 64), load_bytes(at + 128), load_bytes(at + 192)};
    const Floats scale = fill_float(xs[r.value]);
    unrolled<kStreams>([&](auto i) __attribute__((always_inline)) {
      Floats& t = s->t[i.value][r.value];
      t = fma(to_floats(look_up(index[i.value], four)), scale, t);
    });
  });
}

// kPair: every other stream is of a weight without minima.
template <int kRows, int kStreams, bool kPair>
GC_INLINE void lut_group_ends(LutStreams<kRows, kStreams>* s, const PanelArgs& a, const float* gsum) {
  const std::int64_t bytes = a.scale_f32 ? 64 : 32;
  unrolled<kStreams>([&](auto i) __attribute__((always_inline)) {
    const std::uint8_t*& p = s->p[i.value];
    const Floats scale = a.scale_f32 ? load_f32(p) : load_f16(p);
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      Floats& t = s->t[i.value][r.value];
      s->acc[i.value][r.value] = fma(scale, t, s->acc[i.value][r.value]);
      t = zero_floats();
    });
    p += bytes;
    if ((kPair && i.value % 2 == 1) || !a.has_min) return;
    const Floats min = a.scale_f32 ? load_f32(p) : load_f16(p);
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      Floats& acc = s->acc[i.value][r.value];
      acc = fma(min, fill_float(gsum[r.value]), acc);
    });
    p += bytes;
  });
}

// Rows r0 .. r0 + kRows - 1 of the first kPanels panels.  kPair: two weights whose products are added; tables are then
// read once for both.
template <int kRows, int kPanels, bool kPair>
static void lut_panels(const PanelArgs& a, std::int64_t r0) {
  constexpr int kWeights = kPair ? 2 : 1, kStreams = kPanels * kWeights;
  const std::uint8_t* tables = a.tables + kTableBytes * r0;
  const float *xs = a.xs + r0, *gsum = a.gsum + r0;
  LutStreams<kRows, kStreams> s;
  for (int i = 0; i < kStreams; ++i) {
    const bool second = i % kWeights == 1;
    const std::int64_t bytes = second ? a.second_bytes : a.panel_bytes;
    s.p[i] = (second ? a.second : a.panel) + i / kWeights * bytes;
    if (i < kWeights) s.ahead[i] = s.p[i] + kPanels * bytes;
    for (int r = 0; r < kRows; ++r) s.acc[i][r] = s.t[i][r] = zero_floats();
  }
  for (std::int64_t g = 0; g < a.groups; ++g) {
    for (int b = 0; b < a.blocks_per_group; ++b) {
      lut_block<kRows, kStreams, kWeights>(&s, tables, xs);
      tables += kTableBytes * a.rows;
      xs += a.rows;
    }
    prefetch_next<kRows, kStreams, kWeights, kPanels / 2>(&s);  // what follows the codes, 32 bytes or more a panel
    lut_group_ends<kRows, kStreams, kPair>(&s, a, gsum);
    gsum += a.rows;
  }
  for (int i = 0; i < kPanels; ++i) {
    for (int r = 0; r < kRows; ++r) {
      Floats total = s.acc[i * kWeights][r];
      if constexpr (kPair) total = _mm512_add_ps(total, s.acc[2 * i + 1][r]);
      store(a.out + 16 * (i * a.rows + r0 + r), total);
    }
  }
}

template <int kRows, int kPanels, bool kPair>
GC_INLINE void lut_rows(const PanelArgs& a) {
  std::int64_t r = 0;
  for (; r + kRows <= a.rows; r += kRows) lut_panels<kRows, kPanels, kPair>(a, r);
  if (r < a.rows) lut_panels<1, kPanels, kPair>(a, r);
}

template <bool kPair>
static void lut(const PanelArgs& args) {
  constexpr int kPanels = kPair ? 2 : 4;  // at once
  PanelArgs a = args;
  const auto run = a.rows == 1 ? lut_rows<1, kPanels, kPair> : lut_rows<2, kPanels, kPair>;
  const auto last = a.rows == 1 ? lut_rows<1, 1, kPair> : lut_rows<2, 1, kPair>;
  for (std::int64_t left = args.panels; left > 0;) {
    const std::int64_t here = left >= kPanels ? kPanels : 1;
    (here == kPanels ? run : last)(a);
    a.panel += here * a.panel_bytes;
    a.second += here * a.second_bytes;
    a.out += here * 16 * a.rows;
    left -= here;
  }
}
