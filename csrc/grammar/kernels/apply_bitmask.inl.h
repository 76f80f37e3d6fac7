// logits[t] = -inf where bit t of the mask is 0.  Works on 32 tokens per mask word: an allowed word touches no logits,
// a forbidden one is stores alone, a mixed one is a masked store (AVX-512), a select (AVX2) or a walk over its zero
// bits.  Logits need no alignment and are never read except by the AVX2 select of 16-bit elements.
// Bytes moved: count / 8 read plus the cache lines that hold a forbidden token.
#include "grammar/kernels/apply_bitmask.h"

namespace gramcore::grammar {
namespace GC_ISA_NS {

static constexpr std::uint32_t kMinusInf32 = 0xff800000u;

template <class Word>
GC_INLINE void mask_bits(Word* logits, std::uint32_t forbidden, Word minus_inf) {
  for (; forbidden != 0; forbidden &= forbidden - 1) logits[__builtin_ctz(forbidden)] = minus_inf;
}

#if defined(__AVX512BW__)

GC_INLINE void mask_word(std::uint32_t* logits, std::uint32_t forbidden, std::uint32_t minus_inf) {
  const __m512i fill = _mm512_set1_epi32(static_cast<int>(minus_inf));
  _mm512_mask_storeu_epi32(logits, static_cast<__mmask16>(forbidden), fill);
  _mm512_mask_storeu_epi32(logits + 16, static_cast<__mmask16>(forbidden >> 16), fill);
}
GC_INLINE void mask_word(std::uint16_t* logits, std::uint32_t forbidden, std::uint16_t minus_inf) {
  _mm512_mask_storeu_epi16(logits, forbidden, _mm512_set1_epi16(static_cast<short>(minus_inf)));
}

#elif defined(__AVX2__)

GC_INLINE void mask_word(std::uint32_t* logits, std::uint32_t forbidden, std::uint32_t minus_inf) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i fill = _mm256_set1_epi32(static_cast<int>(minus_inf));
  for (int part = 0; part < 4; ++part) {
    const __m256i bits = _mm256_and_si256(_mm256_set1_epi32(static_cast<int>(forbidden >> (8 * part))), bit);
    _mm256_maskstore_epi32(reinterpret_cast<int*>(logits) + 8 * part, _mm256_cmpeq_epi32(bits, bit), fill);
  }
}
GC_INLINE void mask_word(std::uint16_t* logits, std::uint32_t forbidden, std::uint16_t minus_inf) {
  const __m256i bit = _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
                                        static_cast<short>(0x8000));
  const __m256i fill = _mm256_set1_epi16(static_cast<short>(minus_inf));
  for (int part = 0; part < 2; ++part) {
    auto* at = reinterpret_cast<__m256i*>(logits + 16 * part);
    const __m256i bits = _mm256_and_si256(_mm256_set1_epi16(static_cast<short>(forbidden >> (16 * part))), bit);
    const __m256i select = _mm256_cmpeq_epi16(bits, bit);
    _mm256_storeu_si256(at, _mm256_blendv_epi8(_mm256_loadu_si256(at), fill, select));
  }
}

#else

template <class Word>
GC_INLINE void mask_word(Word* logits, std::uint32_t forbidden, Word minus_inf) {
  if (forbidden == 0xffffffffu) {
    for (int i = 0; i < 32; ++i) logits[i] = minus_inf;
  } else {
    mask_bits(logits, forbidden, minus_inf);
  }
}

#endif

template <class Word>
GC_INLINE void mask_row(Word* logits, const std::int32_t* mask, std::int64_t count, Word minus_inf) {
  std::int64_t t = 0;
  for (; t + 32 <= count; t += 32) {
    const std::uint32_t forbidden = ~static_cast<std::uint32_t>(mask[t >> 5]);
    if (forbidden != 0) mask_word(logits + t, forbidden, minus_inf);
  }
  if (t < count) {
    const std::uint32_t tail = (1u << (count - t)) - 1u;
    mask_bits(logits + t, ~static_cast<std::uint32_t>(mask[t >> 5]) & tail, minus_inf);
  }
}

static void mask32(std::uint32_t* logits, const std::int32_t* mask, std::int64_t count) {
  mask_row(logits, mask, count, kMinusInf32);
}
static void mask16(std::uint16_t* logits, const std::int32_t* mask, std::int64_t count, std::uint16_t minus_inf) {
  mask_row(logits, mask, count, minus_inf);
}

extern const ApplyBitmaskKernels kApplyBitmask;
const ApplyBitmaskKernels kApplyBitmask = {mask32, mask16};

}  // namespace GC_ISA_NS
}  // namespace gramcore::grammar
