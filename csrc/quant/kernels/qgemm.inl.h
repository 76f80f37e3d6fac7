// out[m, r] = sum over groups g of  scale[r, g] * t + min[r, g] * gsum[g, m],
//   t = sum over the blocks b of g, in order, of  xs[b, m] * float(sum_k xq[b, m, k] * (code[r, k] - zero)).
//
// The inner sums are exact integers and the outer ones have one fixed order, so a row's result does not depend on how
// many rows are computed with it, and vector and tile (AMX) kernels give the same bits.  A panel is read once per
// `kMaxRows` rows; activations are read from cache.  No alignment is needed; loads never pass the panel's end.
#include "core/tiles.h"
#include "quant/kernels/qgemm.h"
#include "quant/kernels/simd.inl.h"

namespace gramcore::quant {
namespace GC_ISA_NS {

constexpr int kVectors = 8;  // code vectors of a block
// Into the second-level cache, then the first: alone, the nearer one waits for memory with too few lines in flight.
constexpr int kPrefetchFar = 8192, kPrefetchNear = 2048;

// A block's lines and the one that its scales reach into.
template <int kBits>
GC_INLINE void prefetch_block(const std::uint8_t* p) {
  for (int line = 0; line <= kBits; ++line) {
    __builtin_prefetch(p + kPrefetchFar + 64 * line, 0, 2);
    __builtin_prefetch(p + kPrefetchNear + 64 * line, 0, 3);
  }
}

// sums[r] = init[r] + the block at p times row r of x, 32 bytes apart.
template <int kBits, int kRows>
GC_INLINE void dot_block(const std::uint8_t* p, const std::int8_t* x, const std::int32_t* init, Ints* sums) {
  for (int r = 0; r < kRows; ++r) sums[r] = fill_int(kBits == 8 && kSigned8 ? 0 : init[r]);
  if constexpr (kInPlace && (kBits == 4 ? kRows <= 2 : kBits == 2 && kRows == 1)) {
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      sums[r.value] = dot_in_place<kBits>(sums[r.value], p, x + 32 * r.value);
    });
    return;
  }
  Bytes v[kVectors];
  unpack<kBits>(p, v);
  unrolled<kVectors>([&](auto j) __attribute__((always_inline)) {
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const Ints four = fill_int(load_i32(x + 32 * r.value + 4 * j.value));
      sums[r.value] = kBits == 8 ? dot8(sums[r.value], v[j.value], four) : dot(sums[r.value], v[j.value], four);
    });
  });
}

// What a panel is multiplied with, and how, in blocks of 32 columns: here kRows rows of int8, by dot products.
template <int kBits, int kRows>
struct DotProduct {
  const std::int8_t* x;

  GC_INLINE DotProduct at(const PanelArgs& a, std::int64_t r0) { return {a.xq + r0 * 32}; }
  GC_INLINE void next(DotProduct* at, std::int64_t stride) { at->x += 32 * stride; }
  GC_INLINE void block(const DotProduct& at, const std::uint8_t* p, const std::int32_t* init, Ints* sums) {
    dot_block<kBits, kRows>(p, at.x, init, sums);
  }
};

template <int kBits>
struct ByDots {
  static constexpr int kMost = kMaxRows;  // rows at once
  template <int kRows>
  using Rows = DotProduct<kBits, kRows>;
};

#include "quant/kernels/popcount.inl.h"

// kRows rows of one tile that has `stride` rows, from row r0; lanes first .. first + kLanes - 1 of the panel.
template <class Product, int kBits, int kRows>
static void lanes_times_rows(const PanelArgs& a, std::int64_t stride, std::int64_t r0, int first, float* out) {
  const std::int64_t value_bytes = a.scale_f32 ? 4 : 2;
  Product x = Product::at(a, r0);
  const float *xs = a.xs + r0, *gsum = a.gsum + r0;
  const std::int32_t* init = a.init + r0;
  const std::uint8_t* p = a.panel;
  Floats acc[kRows];
  for (int r = 0; r < kRows; ++r) acc[r] = zero_floats();
  for (std::int64_t g = 0; g < a.groups; ++g) {
    Floats t[kRows];
    for (int r = 0; r < kRows; ++r) t[r] = zero_floats();
    for (int b = 0; b < a.blocks_per_group; ++b) {
      if (first == 0 && a.prefetch) prefetch_block<kBits>(p);
      Ints sums[kRows];
      Product::block(x, p + 4 * first, init, sums);
      for (int r = 0; r < kRows; ++r) t[r] = fma(to_floats(sums[r]), fill_float(xs[r]), t[r]);
      p += 64 * kBits;
      Product::next(&x, stride);
      xs += stride;
      init += stride;
    }
    const Floats scale = a.scale_f32 ? load_f32(p + 4 * first) : load_f16(p + 2 * first);
    for (int r = 0; r < kRows; ++r) acc[r] = fma(scale, t[r], acc[r]);
    p += 16 * value_bytes;
    if (a.has_min) {
      const Floats min = a.scale_f32 ? load_f32(p + 4 * first) : load_f16(p + 2 * first);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(min, fill_float(gsum[r]), acc[r]);
      p += 16 * value_bytes;
    }
    gsum += stride;
  }
  for (int r = 0; r < kRows; ++r) store(out + 16 * r + first, acc[r]);
}

// The same for groups of one block with fp16 values, the format of one-row products that should wait for nothing but
// memory: the loop keeps what it needs in registers.
template <class Product, int kBits, int kRows, bool kMin>
static void single_blocks_times_rows(const PanelArgs& a, std::int64_t stride, std::int64_t r0, int first, float* out) {
  const int lane = kLanes == 16 ? 0 : first;
  Product x = Product::at(a, r0);
  const float *xs = a.xs + r0, *gsum = a.gsum + r0;
  const std::int32_t* init = a.init + r0;
  const std::uint8_t* p = a.panel;
  Floats acc[kRows];
  for (int r = 0; r < kRows; ++r) acc[r] = zero_floats();
  const std::int64_t groups = a.groups, end = groups * stride;
  for (std::int64_t at = 0; at < end; at += stride) {
    if (lane == 0 && a.prefetch) prefetch_block<kBits>(p);
    Ints sums[kRows];
    Product::block(x, p + 4 * lane, init + at, sums);
    const Floats scale = load_f16(p + 64 * kBits + 2 * lane);
    for (int r = 0; r < kRows; ++r) acc[r] = fma(scale, times(to_floats(sums[r]), fill_float(xs[at + r])), acc[r]);
    if constexpr (kMin) {
      const Floats min = load_f16(p + 64 * kBits + 32 + 2 * lane);
      for (int r = 0; r < kRows; ++r) acc[r] = fma(min, fill_float(gsum[at + r]), acc[r]);
    }
    p += 64 * kBits + (kMin ? 64 : 32);
    Product::next(&x, stride);
  }
  for (int r = 0; r < kRows; ++r) store(out + 16 * r + lane, acc[r]);
}

template <class By, int kBits, int kRows>
static void rows_of_tile(const PanelArgs& a, std::int64_t stride, std::int64_t r0, float* out) {
  using Product = typename By::template Rows<kRows>;
  const bool single = a.blocks_per_group == 1 && !a.scale_f32;
  const auto lanes = !single     ? lanes_times_rows<Product, kBits, kRows>
                     : a.has_min ? single_blocks_times_rows<Product, kBits, kRows, true>
                                 : single_blocks_times_rows<Product, kBits, kRows, false>;
  for (int first = 0; first < 16; first += kLanes) lanes(a, stride, r0, first, out);
}

template <class By, int kBits>
static void tile_times_panel(const PanelArgs& a, std::int64_t rows, float* out) {
  std::int64_t r = 0;
  if constexpr (By::kMost >= 8) {
    for (; r + 8 <= rows; r += 8) rows_of_tile<By, kBits, 8>(a, rows, r, out + 16 * r);
  }
  for (; r + 4 <= rows; r += 4) rows_of_tile<By, kBits, 4>(a, rows, r, out + 16 * r);
  if (r + 2 <= rows) {
    rows_of_tile<By, kBits, 2>(a, rows, r, out + 16 * r);
    r += 2;
  }
  if (r < rows) rows_of_tile<By, kBits, 1>(a, rows, r, out + 16 * r);
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

template <class By, int kBits>
static void one_panel(const PanelArgs& args) {
  PanelArgs a = args;
  for (std::int64_t done = 0; done < args.rows; done += args.tile_rows) {
    const std::int64_t left = args.rows - done, rows = left < args.tile_rows ? left : args.tile_rows;
    tile_times_panel<By, kBits>(a, rows, args.out + 16 * done);
    next_tile(&a, rows);
  }
}

template <class By, int kBits>
static void each_panel(const PanelArgs& args) {
  PanelArgs a = args;
  for (std::int64_t p = 0; p < args.panels; ++p) {
    one_panel<By, kBits>(a);
    a.panel += a.panel_bytes;
    a.out += 16 * a.rows;
  }
}

template <int kBits>
static void panel(const PanelArgs& args) {
#if defined(GC_ISA_IS_amx)
  if (args.rows >= kAmxMinRows<kBits>) return amx_panels<kBits>(args);
#endif
#if defined(__AVX512VBMI__)
  if (kBits == 1 && args.tables) return lut<false>(args);
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

// The same with odd numbers within 2^bits - 1, bits <= 7, for the first `count` columns and 0 for others.  One bit:
// signs, under the mean magnitude.
GC_INLINE float odd_codes(const float* v, float absmax, int bits, std::int64_t count, std::int8_t* q) {
  const float top = static_cast<float>((1 << bits) - 1), inverse = 0.5f * top / absmax;
  float sum = 0;
  for (int i = 0; i < 32; ++i) {
    const float half = bits > 1 ? v[i] * inverse : (v[i] >= 0 ? 0.0f : -1.0f);
    const std::int32_t cut = static_cast<std::int32_t>(half), floor = cut - (static_cast<float>(cut) > half ? 1 : 0);
    q[i] = static_cast<std::int8_t>(i < count ? 2 * floor + 1 : 0);
    sum += (v[i] < 0 ? -v[i] : v[i]) * 0.03125f;
  }
  return bits > 1 ? absmax / top : sum * (32.0f / static_cast<float>(count));
}

static void quantize_row(const float* x, std::int64_t k, int bits, std::int64_t blocks, std::int8_t* xq,
                         std::int64_t x_stride, float* xs, std::int32_t* xsum, std::int64_t s_stride) {
  for (std::int64_t b = 0; b < blocks; ++b) {
    float v[32];
    const std::int64_t left = k - 32 * b;
    for (int i = 0; i < 32; ++i) v[i] = i < left ? x[32 * b + i] : 0.0f;
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
      for (int i = 0; i < 32; ++i) q[i] = static_cast<std::int8_t>(bits < 8 && i < left ? 1 : 0);
    } else {
      scale = bits < 8 ? odd_codes(v, absmax, bits, left < 32 ? left : 32, q) : even_codes(v, absmax, q);
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
