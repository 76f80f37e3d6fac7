// Twelve independent accumulators hide the latency of fused multiply-adds and dot products on every core in use.
#include "core/kernels/peak.h"
#include "core/tiles.h"
#include "core/vec.h"

namespace gramcore::core {
namespace GC_ISA_NS {

using namespace vec::GC_ISA_NS;
constexpr int kChains = 12;

static float fp32(std::int64_t rounds) {
  Vf acc[kChains] = {};
  Vf a = splat(0.999f), b = splat(0.001f);
  asm volatile("" : "+m"(a), "+m"(b));  // unknown to the compiler
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (int c = 0; c < kChains; ++c) acc[c] = acc[c] * a + b;
  }
  float total = 0;
  for (int c = 0; c < kChains; ++c) total += sum(acc[c]);
  return total;
}

#if defined(__AVX512BF16__)
#define GC_PEAK_BF16 (2.0 * kChains * 32)
static float bf16_dot(std::int64_t rounds) {
  __m512 acc[kChains] = {};
  __m512i raw = _mm512_set1_epi32(0x3f803f80);
  asm volatile("" : "+m"(raw));
  const auto x = reinterpret_cast<__m512bh>(raw);
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_dpbf16_ps(acc[c], x, x);
  }
  float total = 0;
  for (int c = 0; c < kChains; ++c) total += acc[c][0];
  return total;
}
#endif

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__) || defined(__ARM_FEATURE_DOTPROD)
#if defined(__AVX512VNNI__)
typedef __m512i Dot;
GC_INLINE Dot dot(Dot acc, Dot x) {
  return _mm512_dpbusd_epi32(acc, x, x);
}
#elif defined(__AVXVNNI__)
typedef __m256i Dot;
GC_INLINE Dot dot(Dot acc, Dot x) {
  return _mm256_dpbusd_avx_epi32(acc, x, x);
}
#else
typedef int32x4_t Dot;
GC_INLINE Dot dot(Dot acc, Dot x) {
  return vdotq_s32(acc, vreinterpretq_s8_s32(x), vreinterpretq_s8_s32(x));
}
#endif
#define GC_PEAK_INT8 (2.0 * kChains * sizeof(Dot))
static float int8_dot(std::int64_t rounds) {
  Dot acc[kChains] = {};
  Dot x = {};
  asm volatile("" : "+m"(x));
  for (std::int64_t i = 0; i < rounds; ++i) {
    for (int c = 0; c < kChains; ++c) acc[c] = dot(acc[c], x);
  }
  Dot total = {};
  for (int c = 0; c < kChains; ++c) total += acc[c];
  return static_cast<float>(total[0]);
}
#endif

#if defined(__AMX_INT8__)
static float int8_tiles(std::int64_t rounds) {
  tiles::GC_ISA_NS::TileConfig shapes;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = 64;
    shapes.rows[i] = 16;
  }
  tiles::GC_ISA_NS::configure(shapes);
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  for (std::int64_t i = 0; i < rounds; ++i) {
    _tile_dpbssd(0, 4, 5);
    _tile_dpbssd(1, 4, 5);
    _tile_dpbssd(2, 4, 5);
    _tile_dpbssd(3, 4, 5);
  }
  std::int32_t out[16 * 16];
  _tile_stored(0, out, 64);
  tiles::GC_ISA_NS::settle();
  _tile_release();
  return static_cast<float>(out[0]);
}
#endif

extern const PeakKernels kPeak;
const PeakKernels kPeak = {
    {fp32, 2.0 * kChains * kLanes},
#if defined(GC_PEAK_BF16)
    {bf16_dot, GC_PEAK_BF16},
#else
    {nullptr, 0},
#endif
#if defined(GC_PEAK_INT8)
    {int8_dot, GC_PEAK_INT8},
#else
    {nullptr, 0},
#endif
#if defined(__AMX_INT8__)
    {int8_tiles, 4 * 2.0 * 16 * 16 * 64},
#else
    {nullptr, 0},
#endif
};

}  // namespace GC_ISA_NS
}  // namespace gramcore::core
