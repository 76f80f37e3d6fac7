// The maps of block_maps.h on sixteen lanes, where a permutation looks up sixteen or thirty-two values.  Decoding takes
// slope and offset by the exponent of the mag.  Encoding takes, by the exponent of |x|, what to add to the bits of |x|
// so that they say on which side of a boundary it lies: an octave (half an octave at 4 bits) holds at most one.
// Included by block_maps.h.
#pragma once

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

GC_INLINE vf lookup16(vf table, vu index) {
  return reinterpret_cast<vf>(_mm512_permutexvar_ps(reinterpret_cast<__m512i>(index), reinterpret_cast<__m512>(table)));
}
GC_INLINE vu lookup32(const std::uint32_t* table, vu index) {
  return reinterpret_cast<vu>(_mm512_permutex2var_epi32(_mm512_load_si512(table), reinterpret_cast<__m512i>(index),
                                                        _mm512_load_si512(table + 16)));
}
GC_INLINE vi nearest(vf x) {
  return reinterpret_cast<vi>(_mm512_cvtps_epi32(reinterpret_cast<__m512>(x)));
}
// The larger of |x| and `least`, which is >= 0; `least` for a NaN.
GC_INLINE vf magnitude_at_least(vf x, vf least) {
  return reinterpret_cast<vf>(_mm512_range_ps(reinterpret_cast<__m512>(x), reinterpret_cast<__m512>(least), 11));
}
// value ^ (sign & 0x80000000)
GC_INLINE vf flip_by(vf value, vf sign) {
  return reinterpret_cast<vf>(_mm512_ternarylogic_epi32(reinterpret_cast<__m512i>(value),
                                                        reinterpret_cast<__m512i>(sign),
                                                        _mm512_set1_epi32(static_cast<int>(0x80000000u)), 0x78));
}
// 64 codes in order.
template <class Map>
GC_INLINE __m512i encode64(const float* from, vf inverse) {
  __m512i code[4];
  for (int k = 0; k < 4; ++k) code[k] = reinterpret_cast<__m512i>(Map::encode(load(from + k * kLanes), inverse));
  const __m512i bias = _mm512_set1_epi16(Map::kBias);
  const __m512i a = _mm512_add_epi16(_mm512_packs_epi32(code[0], code[1]), bias);
  const __m512i b = _mm512_add_epi16(_mm512_packs_epi32(code[2], code[3]), bias);
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(a, b));  // saturates below 0
}

// The bits of x plus this, shifted right by `width`, are `below`, or `below` + 1 where x is at or above `bound`; for x
// whose bits above `width` are those of `low`, which starts the interval of the bound, or bound 0 for none there.
constexpr std::uint32_t step_at(double low, double bound, std::uint32_t below, int width) {
  std::uint32_t exponent = 127;
  double x = low;
  for (; x < 1.0; x *= 2) --exponent;
  for (; x >= 2.0; x /= 2) ++exponent;
  const std::uint32_t first = (exponent << 23) + static_cast<std::uint32_t>((x - 1.0) * 8388608.0);
  const double rounded = static_cast<double>(static_cast<float>(bound));
  std::uint32_t lift = 0;  // 2^width less the distance of the bound in units of the last place
  if (bound > 0) lift = (1u << width) - static_cast<std::uint32_t>((rounded - low) / low * x * 8388608.0);
  return (below << width) + lift - first;
}

// `lowest` is 1 (signed) or 2 (unsigned): the smallest mag of decade 0.  Slots of encoding: 0 for the code of zero, 1
// to 7 the decades, 8 for 1.0.
struct Wide8 {
  alignas(64) float slope[16], offset[16];  // of value, by the low bits of the exponent of what decode() forms
  alignas(64) std::uint32_t step[32];       // by the low bits of the exponent of |x|, see step_at()
  alignas(64) float inverse[16], shift[16], cap[16];  // of mag in |x|, and its largest value, by slot
  float smallest;                                     // no boundary of the map is below
};

constexpr Wide8 make_wide8(const Map8& map, int lowest) {
  Wide8 w{};
  const double first = lowest;
  for (int decade = 0; decade < 8; ++decade) {  // 7: the code of 1.0
    // Signed: of 4 mag, whose exponent is 2 + decade.  Unsigned: of t = 2 mag + 1, whose exponent is 2 + decade too.
    const int slot = (129 + decade) & 15;
    w.slope[slot] = map.slope[decade] / (lowest == 1 ? 4 : 2);
    w.offset[slot] = map.offset[decade] - (lowest == 1 ? 0 : map.slope[decade] / 2);
    w.inverse[1 + decade] = map.inverse[decade];
    w.shift[1 + decade] = decade < 7 ? map.shift[decade] : 128.0f * static_cast<float>(first);
    w.cap[1 + decade] = decade < 7 ? static_cast<float>((2 << decade) * first - 1) : 1e9f;
  }
  w.shift[0] = static_cast<float>(first - 1);
  w.cap[0] = 1e9f;
  const double bounds[8] = {map.zero, map.up[0], map.up[1], map.up[2], map.up[3], map.up[4], map.up[5], map.one};
  double low = 1.0;
  for (int octave = 0; octave > -32; --octave) {  // 2^octave <= |x| < 2^(octave + 1)
    double inside = 0;
    std::uint32_t below = 0;
    for (const double bound : bounds) {
      if (bound <= low) ++below;
      if (bound > low && bound < 2 * low) inside = bound;
    }
    w.step[(127 + octave) & 31] = step_at(low, inside, below, 23);
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
  const vu slot = (bits_of(a) + lookup32(w.step, bits_of(a) >> 23)) >> 23;
  return vmin(a * lookup16(table16(w.inverse), slot) + lookup16(table16(w.shift), slot),
              lookup16(table16(w.cap), slot));
}

struct WideSigned8 {
  static constexpr int kBias = 127;
  vf slope, offset;
  GC_INLINE WideSigned8 scaled(float scale) {
    return {table16(kWideSigned8.slope) * scale, table16(kWideSigned8.offset) * scale};
  }
  __attribute__((always_inline)) vf decode(vi code) const {
    const vf mags = __builtin_convertvector(code, vf) * 4.0f - 508.0f;
    const vu slot = bits_of(mags) >> 23;
    return lookup16(slope, slot) * mags + flip_by(lookup16(offset, slot), mags);
  }
  GC_INLINE vi encode(vf value, vf inverse) {
    const vf x = value * inverse;
    return nearest(flip_by(magnitude_of(kWideSigned8, magnitude_at_least(x, splat(kWideSigned8.smallest))), x));
  }
};

struct WideUnsigned8 {
  static constexpr int kBias = -1;
  vf slope, offset;
  GC_INLINE WideUnsigned8 scaled(float scale) {
    return {table16(kWideUnsigned8.slope) * scale, table16(kWideUnsigned8.offset) * scale};
  }
  __attribute__((always_inline)) vf decode(vi code) const {
    const vf t = __builtin_convertvector(code, vf) * 2.0f + 3.0f;
    const vu slot = bits_of(t) >> 23;
    return lookup16(slope, slot) * t + lookup16(offset, slot);
  }
  GC_INLINE vi encode(vf value, vf inverse) {
    return nearest(magnitude_of(kWideUnsigned8, vmax(value * inverse, splat(kWideUnsigned8.smallest))));
  }
};

// Signed 4-bit codes by half octaves of |x|; only 1.0 has no negative.
struct Wide4 {
  alignas(64) float value[16];         // by code
  alignas(64) float linear[16];        // of codes that are linear, by code
  alignas(64) std::uint32_t step[32];  // by the low bits of |x| >> 22, see step_at()
};
constexpr Wide4 make_wide4() {
  Wide4 w{};
  for (int code = 0; code < 16; ++code) {
    const int index = code < 7 ? 7 - code : code - 7;
    w.value[code] = index == 8 ? 1.0f : code < 7 ? -kSteps4[index] : kSteps4[index];
    w.linear[code] = static_cast<float>(code + 1) / 16.0f;
  }
  double low = 1.5, next = 2.0;
  for (int half = 255; half > 223; --half) {  // 255: 1.5 <= |x| < 2
    double inside = 0;
    std::uint32_t below = 0;
    for (int i = 0; i < 7; ++i) {
      const double bound = (static_cast<double>(kSteps4[i]) + static_cast<double>(kSteps4[i + 1])) / 2;
      if (bound <= low) ++below;
      if (bound > low && bound < next) inside = bound;
    }
    w.step[half & 31] = step_at(low, inside, below, 22);
    next = low;
    low = half & 1 ? low / 1.5 : low * 0.75;
  }
  return w;
}
constexpr Wide4 kWide4 = make_wide4();

struct WideSigned4 {
  static constexpr int kBias = 7;
  vf value;
  GC_INLINE WideSigned4 scaled(float scale) { return {table16(kWide4.value) * scale}; }
  __attribute__((always_inline)) vf decode(vi code) const { return lookup16(value, reinterpret_cast<vu>(code)); }
  GC_INLINE vi encode(vf value, vf inverse) {
    const vf x = value * inverse, a = magnitude_at_least(x, splat(0x1p-9f));
    const vu index = (bits_of(a) + lookup32(kWide4.step, bits_of(a) >> 22)) >> 22;
    const __m512i mag = _mm512_and_si512(reinterpret_cast<__m512i>(index), _mm512_set1_epi32(15));
    // 1.0 is an index of its own, above zero only.
    const __m512 v = reinterpret_cast<__m512>(x), one = _mm512_set1_ps((kSteps4[7] + 1.0f) / 2);
    const __mmask16 top = _mm512_cmp_ps_mask(v, one, _CMP_GE_OQ),
                    negative = _mm512_movepi32_mask(_mm512_castps_si512(v));
    const __m512i most = _mm512_mask_add_epi32(mag, top, mag, _mm512_set1_epi32(1));
    return reinterpret_cast<vi>(_mm512_mask_sub_epi32(most, negative, _mm512_setzero_si512(), mag));
  }
};

struct WideLinear4 {
  static constexpr int kBias = 0;
  vf value;
  GC_INLINE WideLinear4 scaled(float scale) { return {table16(kWide4.linear) * scale}; }
  __attribute__((always_inline)) vf decode(vi code) const { return lookup16(value, reinterpret_cast<vu>(code)); }
  GC_INLINE vi encode(vf value, vf inverse) {
    return nearest(vmin(splat(15.0f), vmax(value * (inverse * 16.0f) - 1.0f, vf{})));
  }
};

}  // namespace
}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
