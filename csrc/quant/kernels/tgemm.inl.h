// out[m, r] = sum over groups g of  scale[r, g] * t,   t = sum over k in g of  x[m, k] * value[code[r, k]]  in fp32.
//
// t has four partial sums, over k mod 4, added pairwise at the end of a group: one fixed order for every number of
// rows, so a row's result does not depend on its neighbours.  Few rows look values up in registers; more expand some
// blocks to fp32 (scratch, L1), add them to all rows, and go on.
#include "quant/kernels/codes.inl.h"
#include "quant/kernels/tgemm.h"

namespace gramcore::quant {
namespace GC_ISA_NS {

typedef std::uint32_t Lanes __attribute__((vector_size(4 * kLanes)));
typedef float FloatLanes __attribute__((vector_size(4 * kLanes)));

constexpr std::int64_t kExpandRows = 3;           // from this many rows on, expand first
constexpr std::int64_t kExpandBlocks = 8;         // blocks expanded at most at a time: 16 KiB
constexpr int kTableRows = kLanes == 16 ? 6 : 2;  // rows per pass over expanded columns
constexpr std::int64_t kAheadBytes = 4096;

#if defined(__AVX512VBMI__)
template <int kBits>
constexpr bool kByBytes = kBits > 5;  // bytes of values by byte shuffles
#endif

// The table as far as registers hold it.
struct Held {
  const float* table;
#if defined(__AVX512VBMI__)
  Bytes planes[2][2];
#endif
#if defined(GC_ISA_IS_avx2) || defined(__AVX512VNNI__)
  Floats values[2];
#endif
};

GC_INLINE Held hold(const ValueTable& t) {
  Held h;
  h.table = t.values;
#if defined(__AVX512VBMI__)
  for (int i = 0; i < 4; ++i) h.planes[i / 2][i % 2] = load_bytes(t.planes[i / 2] + 64 * (i % 2));
#endif
#if defined(GC_ISA_IS_avx2) || defined(__AVX512VNNI__)
  for (int i = 0; i < 2; ++i) h.values[i] = load_floats(t.values + kLanes * i);
#endif
  return h;
}

// What column() needs of a vector of codes: the codes, or low and high bytes of their values.
struct Looked {
  Bytes low, high;
};

template <int kBits>
GC_INLINE Looked look([[maybe_unused]] const Held& h, Bytes v) {
#if defined(__AVX512VBMI__)
  if constexpr (kByBytes<kBits>) {
    const Bytes low = _mm512_permutex2var_epi8(h.planes[0][0], v, h.planes[0][1]);
    const Bytes high = _mm512_permutex2var_epi8(h.planes[1][0], v, h.planes[1][1]);
    // high ^ (v & sign)
    return {low, kBits == 8 ? _mm512_ternarylogic_epi32(high, v, fill_bytes(0x80), 0x78) : high};
  }
#endif
  return {kBits == 8 && kSigned8 ? flip(v, fill_bytes(0x80)) : v, v};
}

// Values of column i of 4 of all lanes.
template <int kBits, int i>
GC_INLINE Floats column(const Held& h, const Looked& at) {
#if defined(__AVX512VBMI__)
  if constexpr (kByBytes<kBits>) {  // byte i of both to bytes 2 and 3 of the lane
    const __m128i lane = _mm_add_epi8(_mm_set1_epi8(i), _mm_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0));
    const __m512i from = _mm512_broadcast_i32x4(lane);
    const __m512i low = _mm512_maskz_shuffle_epi8(0x4444444444444444u, at.low, from);
    return _mm512_castsi512_ps(_mm512_mask_shuffle_epi8(low, 0x8888888888888888u, at.high, from));
  }
#endif
  const Lanes places = (Lanes)at.low >> (8 * i);
#if defined(__AVX512VNNI__)
  if constexpr (kBits <= 4) return _mm512_permutexvar_ps((__m512i)places, h.values[0]);
  if constexpr (kBits == 5) return _mm512_permutex2var_ps(h.values[0], (__m512i)places, h.values[1]);
  return _mm512_mask_i32gather_ps(zero_floats(), kAll, (__m512i)(places & 255u), h.table, 4);
#elif defined(GC_ISA_IS_avx2)
  if constexpr (kBits <= 3) return _mm256_permutevar8x32_ps(h.values[0], (__m256i)places);
  if constexpr (kBits == 4) {
    const Floats low = _mm256_permutevar8x32_ps(h.values[0], (__m256i)places);
    const Floats high = _mm256_permutevar8x32_ps(h.values[1], (__m256i)places);
    return _mm256_blendv_ps(low, high, (__m256)(places << 28));
  }
  return _mm256_i32gather_ps(h.table, (__m256i)(places & 255u), 4);
#else
  Floats out = zero_floats();
  for (int lane = 0; lane < kLanes; ++lane) out[lane] = h.table[places[lane] & 255u];
  return out;
#endif
}

// Adds scale * (sum of the partial sums) and starts them anew; `which`: the scale of the first or last half.
template <int kRows>
GC_INLINE void close(const TablePanelArgs& a, const std::uint8_t* scales, int which, int first, Floats (*t)[4],
                     Floats* acc) {
  const Floats scale =
      a.scale_f32 ? load_f32(scales + 64 * which + 4 * first) : load_f16(scales + 32 * which + 2 * first);
  for (int r = 0; r < kRows; ++r) {
    const FloatLanes low = (FloatLanes)t[r][0] + (FloatLanes)t[r][1];
    const FloatLanes high = (FloatLanes)t[r][2] + (FloatLanes)t[r][3];
    acc[r] = fma(scale, (Floats)(low + high), acc[r]);
    for (int i = 0; i < 4; ++i) t[r][i] = zero_floats();
  }
}

GC_INLINE std::int64_t scale_bytes(const TablePanelArgs& a) {
  return (a.scale_f32 ? 64 : 32) * (a.has_min ? 2 : 1);
}

template <int kBits, int kRows, bool kHalves>
static void in_registers(const TablePanelArgs& a, std::int64_t r0) {
  const Held held = hold(*a.table);
  for (int first = 0; first < 16; first += kLanes) {
    const float* x = a.x + r0 * a.x_stride;
    const std::uint8_t* p = a.panel;
    Floats acc[kRows], t[kRows][4];
    for (int r = 0; r < kRows; ++r) {
      acc[r] = zero_floats();
      for (int i = 0; i < 4; ++i) t[r][i] = zero_floats();
    }
    for (std::int64_t g = 0; g < a.groups; ++g) {
      for (int b = 0; b < (kHalves ? 1 : a.blocks_per_group); ++b) {
        for (std::int64_t line = 0; line < kBits; ++line) __builtin_prefetch(p + kAheadBytes + 64 * line);
        Bytes v[8];
        unpack<kBits>(p + 4 * first, v);
        unrolled<8>([&](auto j) __attribute__((always_inline)) {
          const Looked looked = look<kBits>(held, v[j.value]);
          unrolled<4>([&](auto i) __attribute__((always_inline)) {
            const Floats w = column<kBits, i.value>(held, looked);
            for (int r = 0; r < kRows; ++r) {
              t[r][i.value] = fma(w, fill_float(x[r * a.x_stride + 4 * j.value + i.value]), t[r][i.value]);
            }
          });
          if (kHalves && j.value == 3) close<kRows>(a, p + 64 * kBits, 0, first, t, acc);
        });
        p += 64 * kBits;
        x += 32;
      }
      close<kRows>(a, p, kHalves, first, t, acc);
      p += scale_bytes(a);
    }
    for (int r = 0; r < kRows; ++r) store(a.out + 16 * (r0 + r) + first, acc[r]);
  }
}

// A run of expanded columns: where they start in x, how many they are, and what scales follow if a sum ends with them.
struct Piece {
  std::int64_t k0, columns;
  const std::uint8_t* scales;  // or null
  int which;
};

// Adds the expanded columns to kRows rows, whose partial sums [row][4][kLanes] and then totals [row][kLanes] are kept
// in memory.
template <int kRows>
static void from_scratch(const TablePanelArgs& a, const float* w, std::int64_t r0, Piece piece, int first,
                         float* partial) {
  const float* x = a.x + r0 * a.x_stride + piece.k0;
  float* const kept = partial + r0 * 4 * kLanes;
  float* const total = partial + (a.rows * 4 + r0) * kLanes;
  Floats t[kRows][4], acc[kRows];
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < 4; ++i) t[r][i] = load_floats(kept + (4 * r + i) * kLanes);
  }
  for (std::int64_t k = 0; k < piece.columns; k += 4) {
    for (int i = 0; i < 4; ++i) {
      const Floats value = load_floats(w + kLanes * (k + i));
      for (int r = 0; r < kRows; ++r) t[r][i] = fma(value, fill_float(x[r * a.x_stride + k + i]), t[r][i]);
    }
  }
  if (piece.scales) {
    for (int r = 0; r < kRows; ++r) acc[r] = load_floats(total + r * kLanes);
    close<kRows>(a, piece.scales, piece.which, first, t, acc);
    for (int r = 0; r < kRows; ++r) store(total + r * kLanes, acc[r]);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < 4; ++i) store(kept + (4 * r + i) * kLanes, t[r][i]);
  }
}

static void all_rows(const TablePanelArgs& a, const float* w, Piece piece, int first, float* partial) {
  std::int64_t r = 0;
  for (; r + kTableRows <= a.rows; r += kTableRows) from_scratch<kTableRows>(a, w, r, piece, first, partial);
  for (; r + 2 <= a.rows; r += 2) from_scratch<2>(a, w, r, piece, first, partial);
  if (r < a.rows) from_scratch<1>(a, w, r, piece, first, partial);
}

template <int kBits>
static void expanded(const TablePanelArgs& a, int first) {
  const Held held = hold(*a.table);
  float* const partial = a.scratch + kExpandBlocks * 32 * kLanes;
  for (std::int64_t i = 0; i < a.rows * 5 * kLanes; ++i) partial[i] = 0;
  const std::uint8_t* p = a.panel;
  std::int64_t k = 0;
  for (std::int64_t g = 0; g < a.groups; ++g) {
    for (std::int64_t left = a.blocks_per_group, here; left > 0; left -= here) {
      here = left < kExpandBlocks ? left : kExpandBlocks;
      float* to = a.scratch;
      for (std::int64_t b = 0; b < here; ++b, p += 64 * kBits, to += 32 * kLanes) {
        Bytes v[8];
        unpack<kBits>(p + 4 * first, v);
        unrolled<8>([&](auto j) __attribute__((always_inline)) {
          const Looked looked = look<kBits>(held, v[j.value]);
          unrolled<4>([&](auto i) __attribute__((always_inline)) {
            store(to + kLanes * (4 * j.value + i.value), column<kBits, i.value>(held, looked));
          });
        });
      }
      if (a.has_min) {
        all_rows(a, a.scratch, {k, 16, p, 0}, first, partial);
        all_rows(a, a.scratch + 16 * kLanes, {k + 16, 16, p, 1}, first, partial);
      } else {
        all_rows(a, a.scratch, {k, 32 * here, left == here ? p : nullptr, 0}, first, partial);
      }
      k += 32 * here;
    }
    p += scale_bytes(a);
  }
  for (std::int64_t r = 0; r < a.rows; ++r) {
    store(a.out + 16 * r + first, load_floats(partial + (a.rows * 4 + r) * kLanes));
  }
}

template <int kBits>
static void table_panel(const TablePanelArgs& a) {
  if (a.rows >= kExpandRows) {
    for (int first = 0; first < 16; first += kLanes) expanded<kBits>(a, first);
  } else if (a.has_min) {
    a.rows == 2 ? in_registers<kBits, 2, true>(a, 0) : in_registers<kBits, 1, true>(a, 0);
  } else {
    a.rows == 2 ? in_registers<kBits, 2, false>(a, 0) : in_registers<kBits, 1, false>(a, 0);
  }
}

extern const TgemmKernels kTgemm;
const TgemmKernels kTgemm = {{nullptr, nullptr, table_panel<2>, table_panel<3>, table_panel<4>, table_panel<5>,
                              table_panel<6>, table_panel<7>, table_panel<8>}};

}  // namespace GC_ISA_NS
}  // namespace gramcore::quant
