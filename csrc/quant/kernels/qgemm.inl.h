// out[m, r] = sum over groups g of  scale[r, g] * t + min[r, g] * gsum[g, m],
//   t = sum over the blocks b of g, in order, of  xs[b, m] * float(sum_k xq[b, m, k] * (code[r, k] - zero)).
//
// The inner sums are exact integers and the outer ones have one fixed order, so a row's result does not depend on how
// many rows are computed with it, and vector and tile (AMX) kernels give the same bits.  A panel is read once per
// some rows, or expanded once for all; activations are read from cache.  No alignment is needed; loads never pass the
// end of a panel.
#include "core/tiles.h"
#include "quant/kernels/codes.inl.h"
#include "quant/kernels/qgemm.h"

namespace gramcore::quant {
namespace GC_ISA_NS {

// A block's lines and the one that its scales reach into.  One panel: into the second-level cache, then the first;
// alone, the nearer one waits for memory with too few lines in flight.  Two have twice as many, and no time to ask
// twice.
template <int kBits, int kPanels>
GC_INLINE void prefetch_block(const std::uint8_t* p, std::int64_t panel_bytes) {
  constexpr int kFar = 8192, kNear = kPanels == 1 ? 2048 : 4096;
  for (int i = 0; i < kPanels; ++i, p += panel_bytes) {
    for (int line = 0; line <= kBits; ++line) {
      if (kPanels == 1) __builtin_prefetch(p + kFar + 64 * line, 0, 2);
      __builtin_prefetch(p + kNear + 64 * line, 0, 3);
    }
  }
}

// A few lines of the packed blocks that will be expanded after these.
template <int kPanels>
GC_INLINE void prefetch_packed(Ahead* ahead) {
  if (!ahead || ahead->next >= ahead->end) return;
  for (int i = 0; i < kPanels; ++i) {
    for (int line = 0; line < ahead->lines; ++line)
      __builtin_prefetch(ahead->next + i * ahead->apart + 64 * line, 0, 2);
  }
  ahead->next += 64 * ahead->lines;
}

#include "quant/kernels/dots.inl.h"
#include "quant/kernels/popcount.inl.h"

// Scales or minima of the lanes from `first` on.
GC_INLINE Floats load_values(const PanelArgs& a, const std::uint8_t* p, int first) {
  return a.scale_f32 ? load_f32(p + 4 * first) : load_f16(p + 2 * first);
}

// Sums so far of kPanels panels and kRows rows, kept in the result.
template <int kPanels, int kRows>
GC_INLINE void load_sums(const PanelArgs& a, const float* out, Floats (&sums)[kPanels][kRows]) {
  for (int i = 0; i < kPanels; ++i) {
    for (int r = 0; r < kRows; ++r) {
      sums[i][r] = a.go_on ? load_floats(out + 16 * (i * a.rows + r)) : zero_floats();
    }
  }
}

template <int kPanels, int kRows>
GC_INLINE void store_sums(const PanelArgs& a, const Floats (&sums)[kPanels][kRows], float* out) {
  for (int i = 0; i < kPanels; ++i) {
    for (int r = 0; r < kRows; ++r) store(out + 16 * (i * a.rows + r), sums[i][r]);
  }
}

// kRows rows of one tile that has `stride` rows, from row r0, and kPanels panels; lanes first .. first + kLanes - 1.
template <class Product, int kBits, int kPanels, int kRows>
static void lanes_times_rows(const PanelArgs& a, std::int64_t stride, std::int64_t r0, int first, float* out) {
  const std::int64_t value_bytes = a.scale_f32 ? 64 : 32, apart = a.panel_bytes;
  Product x = Product::at(a, r0);
  const float *xs = a.xs + r0, *gsum = a.gsum + r0;
  const std::int32_t* init = a.init + r0;
  const std::uint8_t* p = a.panel;
  const bool prefetch = a.prefetch && r0 == 0 && first == 0;  // other rows find it in cache
  Floats acc[kPanels][kRows], t[kPanels][kRows];
  load_sums(a, out + first, acc);
  // The next scales or minima times term(panel, row).
  const auto add = [&](auto term) __attribute__((always_inline)) {
    unrolled<kPanels>([&](auto i) __attribute__((always_inline)) {
      const Floats factor = load_values(a, p + i.value * apart, first);
      for (int r = 0; r < kRows; ++r) acc[i.value][r] = fma(factor, term(i.value, r), acc[i.value][r]);
    });
    p += value_bytes;
  };
  for (std::int64_t g = 0; g < a.groups; ++g) {
    for (int i = 0; i < kPanels; ++i) {
      for (int r = 0; r < kRows; ++r) t[i][r] = zero_floats();
    }
    for (int b = 0; b < a.blocks_per_group; ++b) {
      if (prefetch) prefetch_block<kBits, kPanels>(p, apart);
      if constexpr (kBits == 8) prefetch_packed<kPanels>(a.ahead);
      Ints sums[kPanels][kRows];
      Product::block(x, p + 4 * first, apart, init, sums);
      unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
        const Floats scale = fill_float(xs[r.value]);
        for (int i = 0; i < kPanels; ++i) t[i][r.value] = fma(to_floats(sums[i][r.value]), scale, t[i][r.value]);
      });
      p += 64 * kBits;
      Product::next(&x, stride);
      xs += stride;
      init += stride;
    }
    add([&](int i, int r) __attribute__((always_inline)) { return t[i][r]; });
    if (a.has_min) add([&](int, int r) __attribute__((always_inline)) { return fill_float(gsum[r]); });
    gsum += stride;
  }
  store_sums(a, acc, out + first);
}

// The same for groups of one block, the format of one-row products that should wait for nothing but memory: the loop
// keeps what it needs in registers.
template <class Product, int kBits, int kPanels, int kRows, bool kMin>
static void single_blocks_times_rows(const PanelArgs& a, std::int64_t stride, std::int64_t r0, int first, float* out) {
  const int lane = kLanes == 16 ? 0 : first;
  const std::int64_t value_bytes = a.scale_f32 ? 64 : 32, apart = a.panel_bytes;
  Product x = Product::at(a, r0);
  const float *xs = a.xs + r0, *gsum = a.gsum + r0;
  const std::int32_t* init = a.init + r0;
  const std::uint8_t* p = a.panel;
  const bool prefetch = a.prefetch && r0 == 0 && first == 0;  // other rows find it in cache
  Floats acc[kPanels][kRows];
  load_sums(a, out + lane, acc);
  const std::int64_t groups = a.groups, end = groups * stride;
  for (std::int64_t at = 0; at < end; at += stride) {
    if (prefetch) prefetch_block<kBits, kPanels>(p, apart);
    if constexpr (kBits == 8) prefetch_packed<kPanels>(a.ahead);
    Ints sums[kPanels][kRows];
    Product::block(x, p + 4 * lane, apart, init + at, sums);
    Floats scale[kPanels], min[kPanels];
    for (int i = 0; i < kPanels; ++i) {
      const std::uint8_t* const values = p + i * apart + 64 * kBits;
      scale[i] = load_values(a, values, lane);
      if constexpr (kMin) min[i] = load_values(a, values + value_bytes, lane);
    }
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const Floats row_scale = fill_float(xs[at + r.value]);
      for (int i = 0; i < kPanels; ++i) {
        Floats& sum = acc[i][r.value];
        sum = fma(scale[i], times(to_floats(sums[i][r.value]), row_scale), sum);
        if constexpr (kMin) sum = fma(min[i], fill_float(gsum[at + r.value]), sum);
      }
    });
    p += 64 * kBits + (kMin ? 2 : 1) * value_bytes;
    Product::next(&x, stride);
  }
  store_sums(a, acc, out + lane);
}

template <class By, int kBits, int kRows>
static void rows_of_tile(const PanelArgs& a, std::int64_t stride, std::int64_t r0, float* out) {
  using Product = typename By::template Rows<kRows>;
  constexpr int kPanels = By::kPanels;
  const bool single = a.blocks_per_group == 1;
  const auto lanes = !single     ? lanes_times_rows<Product, kBits, kPanels, kRows>
                     : a.has_min ? single_blocks_times_rows<Product, kBits, kPanels, kRows, true>
                                 : single_blocks_times_rows<Product, kBits, kPanels, kRows, false>;
  for (int first = 0; first < 16; first += kLanes) lanes(a, stride, r0, first, out);
}

template <class By, int kBits>
static void tile_times_panels(const PanelArgs& a, std::int64_t rows, float* out) {
  std::int64_t r = 0;
  for (; r + By::kMost <= rows; r += By::kMost) rows_of_tile<By, kBits, By::kMost>(a, rows, r, out + 16 * r);
  unrolled<By::kMost - 1>([&](auto i) __attribute__((always_inline)) {
    if (rows - r == i.value + 1) rows_of_tile<By, kBits, i.value + 1>(a, rows, r, out + 16 * r);
  });
}

// The same panel with the activations moved on by one tile of `rows` rows.
GC_INLINE void next_tile(PanelArgs* a, std::int64_t rows) {
  a->xq += a->x_blocks * rows * 32;
  a->xs += a->x_blocks * rows;
  a->init += a->x_blocks * rows;
  a->planes += a->x_blocks * rows * a->plane_words;
  a->gsum += a->groups * rows;
}

#if defined(GC_ISA_IS_amx)
#include "quant/kernels/amx.inl.h"
#endif
#if defined(__AVX512VBMI__)
#include "quant/kernels/lut.inl.h"
#endif

#if defined(__AVX512VNNI__)
#include "quant/kernels/expand.inl.h"
#endif

template <class By, int kBits>
static void panels_times_rows(PanelArgs a) {
  float* out = a.out;
  for (std::int64_t left = a.rows; left > 0; left -= a.tile_rows) {
    const std::int64_t rows = left < a.tile_rows ? left : a.tile_rows;
    tile_times_panels<By, kBits>(a, rows, out);
    next_tile(&a, rows);
    a.prefetch = 0;
    out += 16 * rows;
  }
}

template <class By, int kBits>
static void each_panel(const PanelArgs& args) {
  PanelArgs a = args;
  for (std::int64_t left = args.panels, here; left > 0; left -= here) {
    here = left < By::kPanels ? 1 : By::kPanels;
    (here == By::kPanels ? panels_times_rows<By, kBits> : panels_times_rows<typename By::Alone, kBits>)(a);
    a.panel += here * a.panel_bytes;
    a.out += here * 16 * a.rows;
  }
}

template <int kBits>
static void panel(const PanelArgs& args) {
#if defined(GC_ISA_IS_amx)
  if (tiles_pay<kBits>(args.rows)) return amx_panels<kBits>(args);
#endif
#if defined(__AVX512VBMI__)
  if (kBits == 1 && args.tables) return lut<false>(args);
#endif
#if defined(__AVX512VNNI__)
  if (args.rows >= kExpandRows<kBits> && args.blocks_per_group <= kExpandBlocks) {
    return expanded<kBits>(args);
  }
#endif
  each_panel<ByDots<kBits>, kBits>(args);
}

// The kernel where counting bits is faster, else null.
template <int kBits, int kPlanes>
constexpr void (*by_planes())(const PanelArgs&) {
  if constexpr (kPlanes <= kMostPlanes[kBits]) return each_panel<ByPlanes<kBits, kPlanes>, kBits>;
  return nullptr;
}

// Codes of a finite block of magnitudes up to absmax >= 1e-30, integers within 127; returns their scale.
GC_INLINE float even_codes(const float* v, float absmax, std::int8_t* q) {
  const float inverse = 127.0f / absmax;
  for (int i = 0; i < 32; ++i) {
    // Adding 1.5 * 2^23 rounds to the nearest even integer.
    const float scaled = v[i] * inverse;
    q[i] = static_cast<std::int8_t>(static_cast<std::int32_t>(bits::of(scaled + 12582912.0f)) - 0x4b400000);
  }
  return absmax / 127.0f;
}

// The same with odd numbers within 2^bits - 1, 2 <= bits <= 7, for the first `count` columns and 0 for others.
GC_INLINE float odd_codes(const float* v, float absmax, int bits, int count, std::int8_t* q) {
  const float top = static_cast<float>((1 << bits) - 1), inverse = 0.5f * top / absmax;
  std::int32_t code[32];
  for (int i = 0; i < 32; ++i) {
    const float half = v[i] * inverse;
    const std::int32_t cut = static_cast<std::int32_t>(half), above = static_cast<float>(cut) > half;
    code[i] = 2 * (cut - above) + 1;
  }
  for (int i = 0; i < 32; ++i) q[i] = static_cast<std::int8_t>(code[i] & (i < count ? -1 : 0));
  return absmax / top;
}

// Signs, under the mean magnitude.
GC_INLINE float sign_codes(const float* v, int count, std::int8_t* q) {
  float sum = 0;
  for (int i = 0; i < 32; ++i) {
    q[i] = static_cast<std::int8_t>(i < count ? (v[i] >= 0 ? 1 : -1) : 0);
    sum += (v[i] < 0 ? -v[i] : v[i]) * 0.03125f;
  }
  return sum * (32.0f / static_cast<float>(count));
}

static void quantize_row(const float* x, std::int64_t k, int bits, std::int64_t blocks, std::int8_t* xq,
                         std::int64_t x_stride, float* xs, std::int32_t* xsum, std::int64_t s_stride) {
  for (std::int64_t b = 0; b < blocks; ++b) {
    float v[32];
    const int count = static_cast<int>(k - 32 * b < 32 ? (k < 32 * b ? 0 : k - 32 * b) : 32);
    if (count == 32) {
      for (int i = 0; i < 32; ++i) v[i] = x[32 * b + i];
    } else {
      for (int i = 0; i < 32; ++i) v[i] = i < count ? x[32 * b + i] : 0.0f;
    }
    std::uint32_t largest = 0;  // magnitudes compare like their bit patterns, NaN above all
    for (int i = 0; i < 32; ++i) {
      const std::uint32_t magnitude = gramcore::bits::of(v[i]) & 0x7fffffffu;
      largest = magnitude > largest ? magnitude : largest;
    }
    const float absmax = gramcore::bits::to_float(largest);
    const bool finite = largest < 0x7f800000u, tiny = absmax < 1e-30f;
    std::int8_t* const q = xq + b * x_stride;
    float scale = finite ? 0.0f : gramcore::bits::to_float(0x7fc00000u);
    if (!finite || tiny) {
      for (int i = 0; i < 32; ++i) q[i] = static_cast<std::int8_t>(bits < 8 && i < count ? 1 : 0);
    } else {
      scale = bits == 8   ? even_codes(v, absmax, q)
              : bits == 1 ? sign_codes(v, count, q)
                          : odd_codes(v, absmax, bits, count, q);
    }
    std::int32_t sum = 0;
    for (int i = 0; i < 32; ++i) sum += q[i];
    xs[b * s_stride] = scale;
    xsum[b * s_stride] = sum;
  }
}

#if defined(__AVX512VBMI__)
constexpr void (*pair_by_table)(const PanelArgs&) = lut<true>;
#else
constexpr void (*build_tables)(const std::int8_t*, std::int64_t, std::uint8_t*) = nullptr;
constexpr void (*pair_by_table)(const PanelArgs&) = nullptr;
constexpr std::int64_t kLutRows = 0;
#endif

extern const QgemmKernels kQgemm;
const QgemmKernels kQgemm = {{nullptr, panel<1>, panel<2>, panel<3>, panel<4>, panel<5>, panel<6>, panel<7>, panel<8>},
                             quantize_row,
                             build_tables,
                             kLutRows,
                             pair_by_table,
                             {{},
                              {nullptr, by_planes<1, 1>(), by_planes<1, 2>(), by_planes<1, 3>(), by_planes<1, 4>()},
                              {nullptr, by_planes<2, 1>(), by_planes<2, 2>()},
                              {nullptr, by_planes<3, 1>()}},
                             {0, kPlanesRows[1], kPlanesRows[2], kPlanesRows[3]}};

}  // namespace GC_ISA_NS
}  // namespace gramcore::quant
