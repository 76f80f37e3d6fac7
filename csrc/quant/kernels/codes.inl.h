// Codes of a packed block (quant/packed.h) as vectors of bytes.
#pragma once

#include "quant/kernels/simd.inl.h"

namespace gramcore::quant {
namespace GC_ISA_NS {

constexpr int kVectors = 8;  // code vectors of a block

// kWidth bits of every byte, from bit kFrom on, at bit kTo of the result.
template <int kFrom, int kTo, int kWidth>
GC_INLINE Bytes field(Bytes v) {
  const Bytes mask = fill_bytes(((1 << kWidth) - 1) << kTo);
  if constexpr (kFrom > kTo) {
    return both(right<kFrom - kTo>(v), mask);
  } else if constexpr (kFrom < kTo) {
    return both(left<kTo - kFrom>(v), mask);
  } else {
    return both(v, mask);
  }
}

// Code vector j of a block, restricted to the lanes at `p` (block start + first lane * 4).  One-bit codes come as 0 and
// 2, so that they stand for -1 and +1 once their zero, 1, is subtracted.
template <int kBits, int j>
GC_INLINE Bytes codes(const std::uint8_t* p) {
  if constexpr (kBits == 8) {
    const Bytes v = load_bytes(p + 64 * j);
    return kSigned8 ? flip(v, fill_bytes(0x80)) : v;
  } else {
    constexpr bool kNibbles = (kBits & 4) != 0, kPairs = (kBits & 2) != 0, kPlane = (kBits & 1) != 0;
    constexpr int kPairsAt = kNibbles ? 256 : 0, kPlaneAt = kPairsAt + (kPairs ? 128 : 0);
    constexpr int kPairTo = kNibbles ? 4 : 0, kPlaneTo = kBits == 1 ? 1 : kPairTo + (kPairs ? 2 : 0);
    Bytes v = fill_bytes(0);
    if constexpr (kNibbles) v = field<4 * (j / 4), 0, 4>(load_bytes(p + 64 * (j % 4)));
    if constexpr (kPairs) {
      const Bytes pair = field<2 * (j % 4), kPairTo, 2>(load_bytes(p + kPairsAt + 64 * (j / 4)));
      v = kNibbles ? either(v, pair) : pair;
    }
    if constexpr (kPlane) {
      const Bytes bit = field<j, kPlaneTo, 1>(load_bytes(p + kPlaneAt));
      v = kBits > 1 ? either(v, bit) : bit;
    }
    return v;
  }
}

template <int kBits>
GC_INLINE void unpack(const std::uint8_t* p, Bytes* v) {
  unrolled<kVectors>([&](auto j) __attribute__((always_inline)) { v[j.value] = codes<kBits, j.value>(p); });
}

}  // namespace GC_ISA_NS
}  // namespace gramcore::quant
