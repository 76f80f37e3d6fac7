// One-bit weights by table: for four columns of x a table holds the sum +-x0 +-x1 +-x2 +-x3 of every choice of signs,
// so one byte shuffle adds up four columns of 64 rows.  A block of 32 columns has eight tables of 16 sums: table (h, p)
// for columns 4 j + p, j = 4 h .. 4 h + 3, whose signs are half h of byte p of each row's four.  Sums, within +-508,
// are split into seven low bits and the rest: 64 bytes each per h, in the order h0 low, h0 rest, h1 low, h1 rest.
// Exact, like the dot products it replaces.  Included by qgemm.inl.h inside its namespace; needs AVX-512 VBMI.
#pragma once

constexpr std::int64_t kTableBytes = 256;  // per block and row
constexpr std::int64_t kPrefetchBytes = 4096;
constexpr std::int64_t kLutRows = 2;  // above, unpacking once for all rows is faster

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

// Signed sums of 32 columns of all 16 rows, from the indices into the tables of both halves.
GC_INLINE Ints look_up(const __m512i (&index)[2], const std::uint8_t* tables) {
  const __m512i ones = _mm512_set1_epi8(1), unit = _mm512_set1_epi8(static_cast<char>(128));
  __m512i sum = _mm512_setzero_si512(), rest = sum;
  for (int h = 0; h < 2; ++h) {
    sum = _mm512_dpbusd_epi32(sum, _mm512_permutexvar_epi8(index[h], load_bytes(tables + 128 * h)), ones);
    rest = _mm512_dpbusd_epi32(rest, unit, _mm512_permutexvar_epi8(index[h], load_bytes(tables + 128 * h + 64)));
  }
  return _mm512_add_epi32(sum, rest);
}

// One weight of the panels at hand: what is read and the sums so far.
template <int kRows>
struct LutSums {
  const std::uint8_t* p;
  int has_min;
  Floats acc[kRows], t[kRows];
};

template <int kRows>
GC_INLINE void lut_block(LutSums<kRows>* s, const std::uint8_t* tables, const float* xs) {
  const __m512i nibble = _mm512_set1_epi8(15), position = _mm512_set1_epi32(0x30201000);
  __builtin_prefetch(s->p + kPrefetchBytes);
  const __m512i bits = load_bytes(s->p);
  // (bits & nibble) | position
  const __m512i index[2] = {_mm512_ternarylogic_epi32(bits, nibble, position, 0xea),
                            _mm512_ternarylogic_epi32(_mm512_srli_epi16(bits, 4), nibble, position, 0xea)};
  for (int r = 0; r < kRows; ++r) {
    s->t[r] = fma(to_floats(look_up(index, tables + kTableBytes * r)), fill_float(xs[r]), s->t[r]);
  }
  s->p += 64;
}

template <int kRows>
GC_INLINE void lut_group_ends(LutSums<kRows>* s, int scale_f32, const float* gsum) {
  const std::int64_t bytes = scale_f32 ? 64 : 32;
  const Floats scale = scale_f32 ? load_f32(s->p) : load_f16(s->p);
  for (int r = 0; r < kRows; ++r) s->acc[r] = fma(scale, s->t[r], s->acc[r]);
  for (int r = 0; r < kRows; ++r) s->t[r] = zero_floats();
  s->p += bytes;
  if (!s->has_min) return;
  const Floats min = scale_f32 ? load_f32(s->p) : load_f16(s->p);
  for (int r = 0; r < kRows; ++r) s->acc[r] = fma(min, fill_float(gsum[r]), s->acc[r]);
  s->p += bytes;
}

// kWeights: 1, or 2 weights of one shape whose products are added (a.second); tables are then read once for both.
template <int kRows, int kWeights>
static void lut_panel(const PanelArgs& a) {
  const std::uint8_t* tables = a.tables;
  const float *xs = a.xs, *gsum = a.gsum;
  LutSums<kRows> sums[kWeights];
  for (int i = 0; i < kWeights; ++i) {
    sums[i].p = i == 0 ? a.panel : a.second;
    sums[i].has_min = i == 0 ? a.has_min : 0;
    for (int r = 0; r < kRows; ++r) sums[i].acc[r] = sums[i].t[r] = zero_floats();
  }
  for (std::int64_t g = 0; g < a.groups; ++g) {
    for (int b = 0; b < a.blocks_per_group; ++b) {
      for (int i = 0; i < kWeights; ++i) lut_block<kRows>(&sums[i], tables, xs);
      tables += kTableBytes * kRows;
      xs += kRows;
    }
    for (int i = 0; i < kWeights; ++i) lut_group_ends<kRows>(&sums[i], a.scale_f32, gsum);
    gsum += kRows;
  }
  for (int r = 0; r < kRows; ++r) {
    Floats total = sums[0].acc[r];
    if (kWeights == 2) total = _mm512_add_ps(total, sums[kWeights - 1].acc[r]);
    store(a.out + 16 * r, total);
  }
}

static void pair_by_table(const PanelArgs& a) {
  return a.rows == 1 ? lut_panel<1, 2>(a) : lut_panel<2, 2>(a);
}
