// out[m, r] = sum_k x[m, k] * w[r, k],  w = scale * code + (min - zero * scale)  in fp32.
//
// Four partial sums per output, over k mod 4, added pairwise at the end: one fixed order for every number of rows, so a
// row's result does not depend on its neighbours.  Few rows dequantise in registers; more expand some blocks to fp32
// (scratch, L1), add them to all rows, and go on.
#include "quant/kernels/codes.inl.h"
#include "quant/kernels/fgemm.h"

namespace gramcore::quant {
namespace GC_ISA_NS {

typedef std::uint32_t Lanes __attribute__((vector_size(4 * kLanes)));
typedef std::int32_t SignedLanes __attribute__((vector_size(4 * kLanes)));
typedef float FloatLanes __attribute__((vector_size(4 * kLanes)));

constexpr std::int64_t kExpandRows = 4;           // from this many rows on, expand first
constexpr std::int64_t kExpandBlocks = 8;         // blocks expanded at a time: 16 KiB
constexpr int kFloatRows = kLanes == 16 ? 6 : 2;  // rows per pass over an expanded panel

// Codes of one column (position i of 4) of all lanes, as floats; undoes the sign flip of unpack.
template <int kBits, int i>
GC_INLINE Floats column(Bytes v) {
  const Bytes codes = kBits == 8 && kSigned8 ? flip(v, fill_bytes(0x80)) : v;
  const Lanes shifted = (Lanes)codes >> (8 * i);
  return (Floats) __builtin_convertvector((SignedLanes)(shifted & 255u), FloatLanes);
}

struct Affine {
  Floats scale, offset;
};

GC_INLINE Affine load_affine(const FloatPanelArgs& a, const std::uint8_t* values, int first) {
  Affine out;
  out.scale = a.scale_f32 ? load_f32(values + 4 * first) : load_f16(values + 2 * first);
  const std::uint8_t* mins = values + (a.scale_f32 ? 64 : 32);
  Floats min = zero_floats();
  if (a.has_min) min = a.scale_f32 ? load_f32(mins + 4 * first) : load_f16(mins + 2 * first);
  out.offset = fma(fill_float(static_cast<float>(-a.zero)), out.scale, min);
  return out;
}

template <int kRows>
GC_INLINE void finish(Floats (*acc)[4], float* out) {
  for (int r = 0; r < kRows; ++r) {
    const FloatLanes low = (FloatLanes)acc[r][0] + (FloatLanes)acc[r][1];
    const FloatLanes high = (FloatLanes)acc[r][2] + (FloatLanes)acc[r][3];
    store(out + 16 * r, (Floats)(low + high));
  }
}

template <int kRows>
GC_INLINE void accumulate(Floats (*acc)[4], int i, Floats w, const float* x, std::int64_t stride) {
  for (int r = 0; r < kRows; ++r) acc[r][i] = fma(w, fill_float(x[r * stride]), acc[r][i]);
}

// Where a walk over the panel stands: the block to read next.
struct Cursor {
  const std::uint8_t* p;  // codes of the block
  int block;              // its index in the group
};

// fn(column of this walk, position of 4, weights) for the next `blocks` blocks of the lanes from `first`.
template <int kBits, class F>
GC_INLINE void walk(const FloatPanelArgs& a, int first, Cursor* at, std::int64_t blocks, F fn) {
  const std::int64_t block_bytes = 64 * kBits, value_bytes = 16 * (a.scale_f32 ? 4 : 2) * (a.has_min ? 2 : 1);
  Affine affine = load_affine(a, at->p + (a.blocks_per_group - at->block) * block_bytes, first);
  for (std::int64_t b = 0; b < blocks; ++b) {
    Bytes v[8];
    unpack<kBits>(at->p + 4 * first, v);
    for (int j = 0; j < 8; ++j) {
      const std::int64_t k = 32 * b + 4 * j;
      fn(k, 0, fma(affine.scale, column<kBits, 0>(v[j]), affine.offset));
      fn(k + 1, 1, fma(affine.scale, column<kBits, 1>(v[j]), affine.offset));
      fn(k + 2, 2, fma(affine.scale, column<kBits, 2>(v[j]), affine.offset));
      fn(k + 3, 3, fma(affine.scale, column<kBits, 3>(v[j]), affine.offset));
    }
    at->p += block_bytes;
    if (++at->block == a.blocks_per_group) {
      at->p += value_bytes;
      at->block = 0;
      if (b + 1 < blocks) affine = load_affine(a, at->p + a.blocks_per_group * block_bytes, first);
    }
  }
}

template <int kBits, int kRows>
static void in_registers(const FloatPanelArgs& a, std::int64_t r0) {
  const float* x = a.x + r0 * a.x_stride;
  for (int first = 0; first < 16; first += kLanes) {
    Floats acc[kRows][4];
    for (int r = 0; r < kRows; ++r) {
      for (int i = 0; i < 4; ++i) acc[r][i] = zero_floats();
    }
    Cursor at{a.panel, 0};
    walk<kBits>(a, first, &at, a.groups * a.blocks_per_group,
                [&](std::int64_t k, int i, Floats w)
                    __attribute__((always_inline)) { accumulate<kRows>(acc, i, w, x + k, a.x_stride); });
    finish<kRows>(acc, a.out + 16 * r0 + first);
  }
}

// Adds the expanded columns k0 .. k0 + columns - 1 to the partial sums [row][4][kLanes] of kRows rows.
template <int kRows>
static void from_scratch(const FloatPanelArgs& a, std::int64_t r0, std::int64_t k0, std::int64_t columns,
                         float* partial) {
  const float *x = a.x + r0 * a.x_stride + k0, *w = a.scratch;
  Floats acc[kRows][4];
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < 4; ++i) acc[r][i] = load_floats(partial + ((r0 + r) * 4 + i) * kLanes);
  }
  for (std::int64_t k = 0; k < columns; k += 4) {
    for (int i = 0; i < 4; ++i) accumulate<kRows>(acc, i, load_floats(w + kLanes * i), x + k + i, a.x_stride);
    w += 4 * kLanes;
  }
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < 4; ++i) store(partial + ((r0 + r) * 4 + i) * kLanes, acc[r][i]);
  }
}

template <int kBits>
static void expanded(const FloatPanelArgs& a, int first) {
  float* partial = a.scratch + kExpandBlocks * 32 * kLanes;
  for (std::int64_t i = 0; i < a.rows * 4 * kLanes; ++i) partial[i] = 0;
  const std::int64_t blocks = a.groups * a.blocks_per_group;
  Cursor at{a.panel, 0};
  for (std::int64_t b = 0; b < blocks; b += kExpandBlocks) {
    const std::int64_t here = blocks - b < kExpandBlocks ? blocks - b : kExpandBlocks;
    float* to = a.scratch;
    walk<kBits>(a, first, &at, here,
                [&](std::int64_t k, int, Floats w) __attribute__((always_inline)) { store(to + kLanes * k, w); });
    std::int64_t r = 0;
    for (; r + kFloatRows <= a.rows; r += kFloatRows) from_scratch<kFloatRows>(a, r, 32 * b, 32 * here, partial);
    for (; r + 2 <= a.rows; r += 2) from_scratch<2>(a, r, 32 * b, 32 * here, partial);
    if (r < a.rows) from_scratch<1>(a, r, 32 * b, 32 * here, partial);
  }
  for (std::int64_t r = 0; r < a.rows; ++r) {
    Floats acc[1][4];
    for (int i = 0; i < 4; ++i) acc[0][i] = load_floats(partial + (r * 4 + i) * kLanes);
    finish<1>(acc, a.out + 16 * r + first);
  }
}

template <int kBits>
static void float_panel(const FloatPanelArgs& a) {
  if (a.rows >= kExpandRows) {
    for (int first = 0; first < 16; first += kLanes) expanded<kBits>(a, first);
    return;
  }
  std::int64_t r = 0;
  for (; r + 2 <= a.rows; r += 2) in_registers<kBits, 2>(a, r);
  if (r < a.rows) in_registers<kBits, 1>(a, r);
}

extern const FgemmKernels kFgemm;
const FgemmKernels kFgemm = {{nullptr, float_panel<1>, float_panel<2>, float_panel<3>, float_panel<4>, float_panel<5>,
                              float_panel<6>, float_panel<7>, float_panel<8>}};

}  // namespace GC_ISA_NS
}  // namespace gramcore::quant
