// A tile keeps its sums in registers: two vectors of columns for as many rows as the register file holds.  Packing
// transposes a vector's worth of lines at a time, or copies where the lines lie side by side.
#pragma once

#include "optim/kernels/product.h"
#include "optim/kernels/vec.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kTileRows = 12;  // of 32 registers
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif
constexpr int kTileVectors = 2, kTileColumns = kTileVectors * kLanes;
// A vector that is stored over the end of the tile's rows is mended by the next word's.
static_assert(kTileRows < kLanes || kTileRows % kLanes == 0, "only the last vector of a word may be too long");

// One element in a word, as fp32.
struct Wide {
  static constexpr int kPerWord = 1;
  template <class T>
  GC_INLINE vu load_words(const T* p) {
    return bits_of(vec::GC_ISA_NS::load_f32(p));
  }
  template <class T>
  GC_INLINE vu load_across(const T* p, std::int64_t, std::int64_t) {
    return load_words(p);
  }
  template <class T>
  GC_INLINE std::uint32_t word(const T* p, std::int64_t, std::int64_t) {
    const float x = to_f32(*p);
    std::uint32_t w;
    __builtin_memcpy(&w, &x, sizeof w);
    return w;
  }
  GC_INLINE vf multiply_add(vf sum, std::uint32_t a, vf b) {
    float x;
    __builtin_memcpy(&x, &a, sizeof x);
    return sum + splat(x) * b;
  }
};

#if defined(__AVX512BF16__)
// Two elements in a word, as bf16; the second is 0 behind the end of a line.
struct Narrow {
  static constexpr int kPerWord = 2;
  GC_INLINE vu halves(const bf16* p) {
    return reinterpret_cast<vu>(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(static_cast<const void*>(p)))));
  }
  GC_INLINE vu halves(const float* p) { return nearest_bits(load(p)); }
  GC_INLINE vu nearest_bits(vf x) {
    return reinterpret_cast<vu>(_mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(round_bf16(x))));
  }
  template <class T>
  GC_INLINE vu load_across(const T* p, std::int64_t along, std::int64_t left) {
    return left > 1 ? halves(p) | halves(p + along) << 16 : halves(p);
  }
  GC_INLINE vu load_words(const bf16* p) {
    vu w;
    __builtin_memcpy(&w, p, sizeof w);
    return w;
  }
  GC_INLINE vu load_words(const float* p) {
    const vh low = round_bf16(load(p)), high = round_bf16(load(p + kLanes));
    vu w;
    __builtin_memcpy(&w, &low, sizeof low);
    __builtin_memcpy(reinterpret_cast<char*>(&w) + sizeof low, &high, sizeof high);
    return w;
  }
  GC_INLINE std::uint32_t bits(bf16 x) { return x.bits; }
  GC_INLINE std::uint32_t bits(float x) { return to_bf16(x).bits; }
  template <class T>
  GC_INLINE std::uint32_t word(const T* p, std::int64_t along, std::int64_t left) {
    return left > 1 ? bits(p[0]) | bits(p[along]) << 16 : bits(p[0]);
  }
  GC_INLINE vf multiply_add(vf sum, std::uint32_t a, vf b) {
    const __m512i pair = _mm512_set1_epi32(static_cast<int>(a));
    return reinterpret_cast<vf>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(pair),
                                                 reinterpret_cast<__m512bh>(b)));
  }
};
#endif

GC_INLINE void store_words(std::uint32_t* to, vu words) {
  __builtin_memcpy(to, &words, sizeof words);
}

template <class Form, class T>
static void pack_along(const Lines& lines, int width, std::uint32_t* to) {
  const auto* const x = static_cast<const T*>(lines.data);
  const std::int64_t words = (lines.n + Form::kPerWord - 1) / Form::kPerWord;
  for (std::int64_t k = 0; k < words; k += kLanes) {
    const std::int64_t count = words - k < kLanes ? words - k : kLanes;
    const bool full = (k + kLanes) * Form::kPerWord <= lines.n;
    for (int first = 0; first < width; first += kLanes) {
      vi rows[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        rows[i] = vi{};
        if (first + i >= lines.count || first + i >= width) continue;
        const T* const line = x + (first + i) * lines.across + k * Form::kPerWord;
        if (full) {
          rows[i] = reinterpret_cast<vi>(Form::load_words(line));
        } else {
          std::uint32_t part[kLanes] = {};
          for (std::int64_t j = 0; j < count; ++j) {
            part[j] = Form::word(line + j * Form::kPerWord, 1, lines.n - (k + j) * Form::kPerWord);
          }
          __builtin_memcpy(&rows[i], part, sizeof part);
        }
      }
      vec::GC_ISA_NS::transpose(rows);
      for (std::int64_t j = 0; j < count; ++j) store_words(to + (k + j) * width + first, reinterpret_cast<vu>(rows[j]));
    }
  }
}

template <class Form, class T>
static void pack_across(const Lines& lines, int width, std::uint32_t* to) {
  const auto* const x = static_cast<const T*>(lines.data);
  const std::int64_t words = (lines.n + Form::kPerWord - 1) / Form::kPerWord, step = Form::kPerWord * lines.along;
  const std::int64_t end = (lines.n - 1) * lines.along + lines.count;
  for (std::int64_t k = 0; k < words; ++k) {
    const std::int64_t left = lines.n - k * Form::kPerWord;
    const std::int64_t last = k * step + (left > 1 && Form::kPerWord > 1 ? lines.along : 0);
    for (int first = 0; first < width; first += kLanes) {
      std::uint32_t* const out = to + k * width + first;
      if (last + first + kLanes <= end) {  // lanes beyond the lines hold what lies there
        store_words(out, Form::load_across(x + k * step + first, lines.along, left));
        continue;
      }
      std::uint32_t part[kLanes] = {};
      for (int i = 0; i < kLanes && first + i < lines.count; ++i) {
        part[i] = Form::word(x + k * step + first + i, lines.along, left);
      }
      __builtin_memcpy(out, part, sizeof part);
    }
  }
}

template <class Form, class T>
GC_INLINE void pack_of(const Lines& lines, int width, std::uint32_t* to) {
  if (lines.along == 1) {
    pack_along<Form, T>(lines, width, to);
  } else {
    pack_across<Form, T>(lines, width, to);
  }
}
static void pack_wide(const Lines& lines, int width, std::uint32_t* to) {
  if (lines.element == Element::f32) return pack_of<Wide, float>(lines, width, to);
  if (lines.element == Element::bf16) return pack_of<Wide, bf16>(lines, width, to);
  pack_of<Wide, f16>(lines, width, to);
}

template <class Form>
static void multiply_tile(const std::uint32_t* a, const std::uint32_t* b, std::int64_t words, float* c,
                          std::int64_t stride, bool add) {
  vf sums[kTileRows][kTileVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) sums[i][v] = add ? load(c + i * stride + v * kLanes) : vf{};
  }
  for (std::int64_t k = 0; k < words; ++k) {
    vf right[kTileVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) {
      const std::uint32_t* const at = b + k * kTileColumns + v * kLanes;
      __builtin_memcpy(&right[v], at, sizeof(vf));  // not the array at once, which would then live on the stack
      __builtin_prefetch(at + 8 * kTileColumns);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      const std::uint32_t left = a[k * kTileRows + i];
#pragma GCC unroll 2
      for (int v = 0; v < kTileVectors; ++v) sums[i][v] = Form::multiply_add(sums[i][v], left, right[v]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < kTileVectors; ++v) store(c + i * stride + v * kLanes, sums[i][v]);
  }
}

#if defined(__AVX512BF16__)
static void pack_narrow(const Lines& lines, int width, std::uint32_t* to) {
  if (lines.element == Element::f32) return pack_of<Narrow, float>(lines, width, to);
  pack_of<Narrow, bf16>(lines, width, to);
}
constexpr ProductForm kNarrow = {kTileRows, kTileColumns, 2, pack_narrow, multiply_tile<Narrow>};
#else
constexpr ProductForm kNarrow = {};
#endif

}  // namespace

extern const ProductKernels kProduct;
const ProductKernels kProduct = {{kTileRows, kTileColumns, 1, pack_wide, multiply_tile<Wide>}, kNarrow};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
