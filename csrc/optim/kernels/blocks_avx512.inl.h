// The maps of blocks.inl.h on sixteen lanes, where a permutation looks up sixteen or thirty-two values.  Decoding takes
// slope and offset by the exponent of 2 mag + 1; encoding takes from the exponent of |x|, of which each octave (half an
// octave at 4 bits) holds at most one boundary of the map, that boundary and what is below it.
// Included by blocks.inl.h.
#pragma once

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

GC_INLINE vf lookup16(vf table, vu index) {
  return reinterpret_cast<vf>(_mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), reinterpret_cast<__m512>(table)));
}
GC_INLINE vf lookup32(const float* table, vu index) {
  return reinterpret_cast<vf>(
      _mm512_permutex2var_ps(_mm512_load_ps(table), reinterpret_cast<__m512i>(index), _mm512_load_ps(table + 16)));
}
GC_INLINE vi nearest(vf x) {
  return reinterpret_cast<vi>(_mm512_cvtps_epi32(reinterpret_cast<__m512>(x)));
}
// 2 x in the lanes where a >= threshold.
GC_INLINE vf double_ge(vf x, vf a, vf threshold) {
  const __m512 v = reinterpret_cast<__m512>(x);
  const __mmask16 m = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(threshold), _CMP_GE_OQ);
  return reinterpret_cast<vf>(_mm512_mask_add_ps(v, m, v, v));
}
// value ^ (sign & 0x80000000)
GC_INLINE vf flip_by(vf value, vf sign) {
  return reinterpret_cast<vf>(_mm512_ternarylogic_epi32(reinterpret_cast<__m512i>(value),
                                                        reinterpret_cast<__m512i>(sign),
                                                        _mm512_set1_epi32(static_cast<int>(0x80000000u)), 0x78));
}
// 64 codes from four vectors.
GC_INLINE void store_codes4(std::uint8_t* p, const vi* code) {
  const __m512i a = _mm512_packus_epi32(reinterpret_cast<__m512i>(code[0]), reinterpret_cast<__m512i>(code[1]));
  const __m512i b = _mm512_packus_epi32(reinterpret_cast<__m512i>(code[2]), reinterpret_cast<__m512i>(code[3]));
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  _mm512_storeu_si512(p, _mm512_permutexvar_epi32(order, _mm512_packus_epi16(a, b)));
}

// `lowest` is 1 (signed) or 2 (unsigned): the smallest mag of decade 0.  With top the power of two above a decade's
// mags, the entry of the zero code has top = lowest and that of 1.0 the top after the last decade's.
struct Wide8 {
  alignas(64) float slope[16], offset[16];   // of value in t = 2 mag + 1, by the low bits of t's exponent
  alignas(64) float threshold[32], top[32];  // by the low bits of the exponent of |x|
  alignas(64) float inverse[16], shift[16];  // of mag in |x|, by the low bits of top's exponent
  float smallest;                            // no boundary of the map is below
};

constexpr Wide8 make_wide8(const Map8& map, int lowest) {
  Wide8 w{};
  for (int decade = 0; decade < 8; ++decade) {      // 7: the code of 1.0
    const int slot = (127 + decade + lowest) & 15;  // t and top have the same exponent
    w.slope[slot] = map.slope[decade] / 2;
    w.offset[slot] = map.offset[decade] - map.slope[decade] / 2;
    w.inverse[slot] = map.inverse[decade];
    w.shift[slot] = decade < 7 ? map.shift[decade] : 128.0f * static_cast<float>(lowest);
  }
  w.shift[(126 + lowest) & 15] = static_cast<float>(lowest - 1);  // zero
  const double bounds[8] = {map.zero, map.up[0], map.up[1], map.up[2], map.up[3], map.up[4], map.up[5], map.one};
  double low = 1.0;
  for (int octave = 0; octave > -32; --octave) {  // 2^octave <= |x| < 2^(octave + 1)
    double threshold = 1e30, below = lowest;
    for (const double bound : bounds) {
      if (bound <= low) below *= 2;
      if (bound > low && bound < 2 * low) threshold = bound;
    }
    w.threshold[(127 + octave) & 31] = static_cast<float>(threshold);
    w.top[(127 + octave) & 31] = static_cast<float>(below);
    low /= 2;
  }
  w.smallest = lowest == 1 ? 0x1p-22f : 0x1p-23f;
  return w;
}
constexpr Wide8 kWideSigned8 = make_wide8(kSigned8, 1), kWideUnsigned8 = make_wide8(kUnsigned8, 2);

GC_INLINE vf table16(const float* table) {
  return reinterpret_cast<vf>(_mm512_load_ps(table));
}

// |x| as a mag.
GC_INLINE vf magnitude_of(const Wide8& w, vf a) {
  const vu octave = bits_of(vmax(a, splat(w.smallest))) >> 23;
  const vf top = double_ge(lookup32(w.top, octave), a, lookup32(w.threshold, octave));
  const vu slot = bits_of(top) >> 23;
  return vmin(a * lookup16(table16(w.inverse), slot) + lookup16(table16(w.shift), slot), top - 1.0f);
}

struct WideSigned8 {
  vf slope, offset;
  GC_INLINE WideSigned8 scaled(float scale) {
    return {table16(kWideSigned8.slope) * scale, table16(kWideSigned8.offset) * scale};
  }
  __attribute__((always_inline)) vf decode(vi code) const {
    const vf doubled = __builtin_convertvector(code, vf) * 2.0f - 254.0f;
    const vf t = vabs(doubled) + 1.0f;
    const vu slot = bits_of(t) >> 23;
    return flip_by(lookup16(slope, slot) * t + lookup16(offset, slot), doubled);
  }
  GC_INLINE vi encode(vf x) {
    return nearest(vmax(flip_by(magnitude_of(kWideSigned8, vabs(x)), x), splat(-127.0f))) + 127;
  }
};

struct WideUnsigned8 {
  vf slope, offset;
  GC_INLINE WideUnsigned8 scaled(float scale) {
    return {table16(kWideUnsigned8.slope) * scale, table16(kWideUnsigned8.offset) * scale};
  }
  __attribute__((always_inline)) vf decode(vi code) const {
    const vf t = __builtin_convertvector(code, vf) * 2.0f + 3.0f;
    const vu slot = bits_of(t) >> 23;
    return lookup16(slope, slot) * t + lookup16(offset, slot);
  }
  GC_INLINE vi encode(vf a) { return nearest(magnitude_of(kWideUnsigned8, a)) - 1; }
};

// Signed 4-bit codes by half octaves of |x|; only 1.0 has no negative.
struct Wide4 {
  alignas(64) float value[16];                 // by code
  alignas(64) float threshold[32], below[32];  // by the low bits of |x| >> 22
};
constexpr Wide4 make_wide4() {
  Wide4 w{};
  for (int code = 0; code < 16; ++code) {
    const int index = code < 7 ? 7 - code : code - 7;
    w.value[code] = index == 8 ? 1.0f : code < 7 ? -kSteps4[index] : kSteps4[index];
  }
  double low = 1.5, next = 2.0;
  for (int half = 255; half > 223; --half) {  // 255: 1.5 <= |x| < 2
    double threshold = 1e30, below = 0;
    for (int i = 0; i < 7; ++i) {
      const double bound = (static_cast<double>(kSteps4[i]) + static_cast<double>(kSteps4[i + 1])) / 2;
      if (bound <= low) below += 1;
      if (bound > low && bound < next) threshold = bound;
    }
    w.threshold[half & 31] = static_cast<float>(threshold);
    w.below[half & 31] = static_cast<float>(below);
    next = low;
    low = half & 1 ? low / 1.5 : low * 0.75;
  }
  return w;
}
constexpr Wide4 kWide4 = make_wide4();

// n + 1 in the lanes where a >= threshold.
GC_INLINE vf add_ge(vf n, vf a, vf threshold) {
  const __m512 v = reinterpret_cast<__m512>(n);
  const __mmask16 m = _mm512_cmp_ps_mask(reinterpret_cast<__m512>(a), reinterpret_cast<__m512>(threshold), _CMP_GE_OQ);
  return reinterpret_cast<vf>(_mm512_mask_add_ps(v, m, v, _mm512_set1_ps(1.0f)));
}

struct WideSigned4 {
  vf value;
  GC_INLINE WideSigned4 scaled(float scale) { return {table16(kWide4.value) * scale}; }
  __attribute__((always_inline)) vf decode(vi code) const { return lookup16(value, reinterpret_cast<vu>(code)); }
  GC_INLINE vi encode(vf x) {
    const vf a = vabs(x);
    const vu half = bits_of(vmax(a, splat(0x1p-9f))) >> 22;
    vf index = add_ge(lookup32(kWide4.below, half), a, lookup32(kWide4.threshold, half));
    index = add_ge(index, x, splat((kSteps4[7] + 1.0f) / 2));
    return nearest(flip_by(index, x)) + 7;
  }
};

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
