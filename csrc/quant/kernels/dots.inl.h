// Four-way byte dot products of int8 rows with the codes of kPanels panels at once, `panel_bytes` apart: what is read
// of a row serves all of them.  Included by qgemm.inl.h inside its namespace.
#pragma once

// Registers hold the sums of so many panels, and of rows beside them; portable code has little to gain.
#if defined(GC_ISA_IS_base)
constexpr int kDotPanels = 1, kDotRows = 2;
#else
constexpr int kDotPanels = kLanes == 16 ? 2 : 1, kDotRows = kLanes == 16 ? 6 : 4;
#endif

// Vectors that share bytes one after the other: few are held at a time.
template <int kBits>
constexpr int in_order(int step) {
  return (kBits & 4) != 0 ? step / 2 + 4 * (step % 2) : step;
}

template <int kBits, int kPanels, int kRows>
GC_INLINE void dots(const std::uint8_t* p, std::int64_t panel_bytes, const std::int8_t* x, Ints (*sums)[kRows]) {
  unrolled<kVectors>([&](auto step) __attribute__((always_inline)) {
    constexpr int j = in_order<kBits>(step.value);
    Bytes w[kPanels];
    unrolled<kPanels>([&](auto i)
                          __attribute__((always_inline)) { w[i.value] = codes<kBits, j>(p + i.value * panel_bytes); });
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const Ints four = fill_int(load_i32(x + 32 * r.value + 4 * j));
      unrolled<kPanels>([&](auto i) __attribute__((always_inline)) {
        Ints& sum = sums[i.value][r.value];
        sum = kBits == 8 ? dot8(sum, w[i.value], four) : dot(sum, w[i.value], four);
      });
    });
  });
}

// The same for one row, codes multiplied where they lie in their bytes: sums of codes at bit s come out 2^s times as
// large and are divided exactly, one shift for all vectors in place of one for each.  Needs dot products that take any
// unsigned bytes (kInPlace).
template <int kBits, int kPanels>
GC_INLINE void dots_in_place(const std::uint8_t* p, std::int64_t panel_bytes, const std::int8_t* x, Ints (*sums)[1]) {
  static_assert(kBits == 2 || kBits == 4, "two, four bits: 4, 2 codes in a byte");
  constexpr int kCodes = 8 / kBits;
  Ints upper[kPanels];
  unrolled<kPanels>([&](auto i) __attribute__((always_inline)) { upper[i.value] = fill_int(0); });
  unrolled<kCodes>([&](auto step) __attribute__((always_inline)) {
    constexpr int at = kCodes - 1 - step.value;
    const Bytes mask = fill_bytes(((1 << kBits) - 1) << (kBits * at));
    unrolled<kBits>([&](auto line) __attribute__((always_inline)) {
      constexpr int j = kBits == 4 ? line.value + 4 * at : 4 * line.value + at;
      const Ints four = fill_int(load_i32(x + 4 * j));
      unrolled<kPanels>([&](auto i) __attribute__((always_inline)) {
        const Bytes w = both(load_bytes(p + i.value * panel_bytes + 64 * line.value), mask);
        Ints& sum = at == 0 ? sums[i.value][0] : upper[i.value];
        sum = dot(sum, w, four);
      });
    });
    unrolled<kPanels>([&](auto i) __attribute__((always_inline)) {
      if constexpr (at > 0) {
        upper[i.value] = divided<kBits>(upper[i.value]);
      } else {
        sums[i.value][0] = plus(sums[i.value][0], upper[i.value]);
      }
    });
  });
}

// What panels are multiplied with, and how, in blocks of 32 columns: here kRows rows of int8.
template <int kBits, int kPanels, int kRows>
struct DotProduct {
  const std::int8_t* x;

  GC_INLINE DotProduct at(const PanelArgs& a, std::int64_t r0) { return {a.xq + r0 * 32}; }
  GC_INLINE void next(DotProduct* at, std::int64_t stride) { at->x += 32 * stride; }
  // sums[i][r] = init[r] + the block of panel i times row r.
  GC_INLINE void block(const DotProduct& at, const std::uint8_t* p, std::int64_t panel_bytes, const std::int32_t* init,
                       Ints (*sums)[kRows]) {
    unrolled<kRows>([&](auto r) __attribute__((always_inline)) {
      const Ints start = fill_int(kBits == 8 && kSigned8 ? 0 : init[r.value]);
      unrolled<kPanels>([&](auto i) __attribute__((always_inline)) { sums[i.value][r.value] = start; });
    });
    if constexpr (kInPlace && kRows == 1 && (kBits == 2 || kBits == 4)) {
      dots_in_place<kBits, kPanels>(p, panel_bytes, at.x, sums);
    } else {
      dots<kBits, kPanels, kRows>(p, panel_bytes, at.x, sums);
    }
  }
};

template <int kBits, int kAtOnce = kDotPanels>
struct ByDots {
  static constexpr int kPanels = kAtOnce, kMost = kAtOnce < kDotPanels ? 4 : kDotRows;  // panels and rows at once
  using Alone = ByDots<kBits, 1>;                                                       // for a last panel
  template <int kRows>
  using Rows = DotProduct<kBits, kPanels, kRows>;
};
