// Products of few-bit weights with activations of few bits, both as bit planes of -1 and +1: with W_i, X_j the planes
// of a block of 32 columns,
//
//   sum_k (2 w_k - Tw) x_k = n Tw Tx - 2 P,   P = sum_ij 2^(i + j) popcount(W_i ^ X_j),   T = 2^bits - 1
//
// over its n columns.  With sum_k x_k known this is the very integer sum_k (code_k - zero) x_k of the dot products, and
// `init` (see QuantizedRows) holds all of it but P.  Planes are read from the packed form: 32 bits of a row are a lane,
// columns in one of two orders, and activations (PanelArgs::planes) are stored in both.  Included by qgemm.inl.h inside
// its namespace.
#pragma once

#if defined(__AVX512VPOPCNTDQ__)

typedef Ints Counts;  // of each lane
GC_INLINE Counts count(Bytes v) {
  return _mm512_popcnt_epi32(v);
}
GC_INLINE Counts no_counts() {
  return fill_int(0);
}
GC_INLINE Counts add_counts(Counts a, Counts b) {
  return plus(a, b);
}
GC_INLINE Ints lane_counts(Counts a) {
  return a;
}

#else  // of each byte: sums of up to 15 of them, 8 each, fit a signed one

typedef Bytes Counts;
GC_INLINE Counts no_counts() {
  return fill_bytes(0);
}
GC_INLINE Ints lane_counts(Counts a) {
  return dot(fill_int(0), a, fill_int(0x01010101));
}
#if defined(__AVX512BW__)
GC_INLINE Counts add_counts(Counts a, Counts b) {
  return _mm512_add_epi8(a, b);
}
GC_INLINE Counts of_nibbles(Bytes v) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_set_epi32(0x04030302, 0x03020201, 0x03020201, 0x02010100)), v);
}
#elif defined(__AVX2__)
GC_INLINE Counts add_counts(Counts a, Counts b) {
  return _mm256_add_epi8(a, b);
}
GC_INLINE Counts of_nibbles(Bytes v) {
  const __m128i counts = _mm_set_epi32(0x04030302, 0x03020201, 0x03020201, 0x02010100);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(counts), v);
}
#else
GC_INLINE Counts add_counts(Counts a, Counts b) {
  return a + b;
}
#endif
GC_INLINE Counts count(Bytes v) {
#if defined(__AVX2__)
  return add_counts(of_nibbles(field<0, 0, 4>(v)), of_nibbles(field<4, 0, 4>(v)));
#elif defined(__aarch64__)
  return (Bytes)vcntq_u8((uint8x16_t)v);
#else
  v = v - both(right<1>(v), fill_bytes(0x55));
  v = both(v, fill_bytes(0x33)) + both(right<2>(v), fill_bytes(0x33));
  return both(v + right<4>(v), fill_bytes(0x0f));
#endif
}

#endif

constexpr int kMostPlaneProducts = 15;  // T T' of weights and activations

// By bits of a weight: the most bits of activations, and rows, for which counting is faster; timed on Zen 4 (AMX: all
// vectors, below its tiles; AVX-VNNI: taken for AVX-512 VNNI; NEON: by instructions).
constexpr std::int64_t kAnyRows = std::int64_t{1} << 40;
#if defined(GC_ISA_IS_amx)
constexpr int kMostPlanes[4] = {0, 2, 1, 1};
constexpr std::int64_t kPlanesRows[4] = {0, 4, 4, 4};
#elif defined(__AVX512VPOPCNTDQ__) || defined(GC_ISA_IS_avx2) || defined(__aarch64__)
constexpr int kMostPlanes[4] = {0, 2, 1, 1};
constexpr std::int64_t kPlanesRows[4] = {0, kAnyRows, kAnyRows, 4};
#elif defined(__AVX512VNNI__) || defined(GC_ISA_IS_avx2_vnni)
constexpr int kMostPlanes[4] = {0, 1, 0, 0};
constexpr std::int64_t kPlanesRows[4] = {0, 4, 0, 0};
#else
constexpr int kMostPlanes[4] = {0, 4, 2, 1};
constexpr std::int64_t kPlanesRows[4] = {0, kAnyRows, kAnyRows, kAnyRows};
#endif

// (a ^ b) & mask
GC_INLINE Bytes difference(Bytes a, Bytes b, Bytes mask) {
#if defined(__AVX512F__)
  return _mm512_ternarylogic_epi32(a, b, mask, 0x28);
#else
  return both(flip(a, b), mask);
#endif
}

// The planes of one block, restricted to the lanes at `p`; kPairOrder[i]: plane i has its columns in the order of
// pairs.
template <int kBits>
GC_INLINE void load_planes(const std::uint8_t* p, Bytes* w) {
  if constexpr (kBits > 1) {
    const Bytes low = load_bytes(p), high = load_bytes(p + 64);
    const Bytes even = fill_bytes(0x55), odd = fill_bytes(0xaa);
    w[0] = either(both(low, even), left<1>(both(high, even)));
    w[1] = either(both(right<1>(low), even), both(high, odd));
  }
  if constexpr (kBits != 2) w[kBits - 1] = load_bytes(p + (kBits == 3 ? 128 : 0));
}

// A product of lanes_times_rows: activations of kPlanes bits.
template <int kBits, int kRows, int kPlanes>
struct PlaneProduct {
  static constexpr int kWords = 2 * (kPlanes + 1);
  const std::uint32_t* x;

  GC_INLINE PlaneProduct at(const PanelArgs& a, std::int64_t r0) { return {a.planes + kWords * r0}; }
  GC_INLINE void next(PlaneProduct* p, std::int64_t stride) { p->x += kWords * stride; }

  GC_INLINE void block(const PlaneProduct& at, const std::uint8_t* p, std::int64_t, const std::int32_t* init,
                       Ints (*sums)[kRows]) {
    Bytes w[3];
    load_planes<kBits>(p, w);
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const std::uint32_t* const words = at.x + kWords * r.value;
      Counts total = no_counts();
      unrolled<kBits>([&](auto step) __attribute__((always_inline)) {
        constexpr int i = kBits - 1 - step.value;
        const std::uint32_t* const ordered = words + (kBits > 1 && i < 2 ? kPlanes + 1 : 0);
        const Bytes mask = (Bytes)fill_int(load_i32(ordered + kPlanes));
        Counts of_plane = no_counts();
        unrolled<kPlanes>([&](auto back) __attribute__((always_inline)) {
          constexpr int j = kPlanes - 1 - back.value;
          const Bytes bits = (Bytes)fill_int(load_i32(ordered + j));
          of_plane = add_counts(add_counts(of_plane, of_plane), count(difference(w[i], bits, mask)));
        });
        total = add_counts(add_counts(total, total), of_plane);
      });
      Ints counts = lane_counts(total);
      if (kBits == 1) counts = plus(counts, counts);  // codes stand for -1 and +1, two apart
      sums[0][r.value] = less(fill_int(init[r.value]), counts);
    });
  }
};

template <int kBits, int kPlanes>
struct ByPlanes {
  static_assert(((1 << kBits) - 1) * ((1 << kPlanes) - 1) <= kMostPlaneProducts, "counts of a byte must fit it");
  static constexpr int kPanels = 1, kMost = 4;  // panels and rows at once
  using Alone = ByPlanes;
  template <int kRows>
  using Rows = PlaneProduct<kBits, kRows, kPlanes>;
};
