// A block goes through three stages: decode, update and store the parameter, with moments left in the first-level cache
// and their largest magnitudes in registers; then scales; then encoding.  The encoding of a block follows the first
// stage of the next one, so that no stage waits for the reduction of a maximum.
#pragma once

// Inside member functions GCC 12 warns of the undefined vectors in its own AVX-512 header.
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "optim/kernels/block_maps.h"
#include "optim/kernels/coded.h"
#include "optim/kernels/storage.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

// These steps are bound by arithmetic: the root is left to the divider, which has nothing else to do.
namespace coded_rules {
GC_INLINE vf fast_sqrt(vf x) {
  return vsqrt(x);
}
#define GC_RULE GC_INLINE
#include "optim/rule_bodies.inl.h"
#undef GC_RULE
}  // namespace coded_rules
using namespace coded_rules;

struct Maps8 {
  using First = SignedMap8;
  using Second = UnsignedMap8;
  static constexpr std::int64_t kSize = kBlock8;
  static constexpr int kPerByte = 1;
};
struct Maps4 {
  using First = SignedMap4;
  using Second = LinearMap4;
  static constexpr std::int64_t kSize = kBlock4;
  static constexpr int kPerByte = 2;
};

// Codes of a block of bytes; `at` gives those of the elements from i.
struct Bytes {
  const std::uint8_t* codes;
  GC_INLINE Bytes of(const std::uint8_t* codes, std::int64_t) { return {codes}; }
  __attribute__((always_inline)) vi at(std::int64_t i) const { return load_codes(codes + i); }
};
#if defined(__AVX512F__)
struct Nibbles {  // a block of 128 codes is one vector
  __m512i pairs;
  GC_INLINE Nibbles of(const std::uint8_t* packed, std::int64_t count) {
    const __mmask64 mask = ~std::uint64_t{0} >> (64 - (count + 1) / 2);
    return {_mm512_maskz_loadu_epi8(mask, packed)};
  }
  __attribute__((always_inline)) vi at(std::int64_t i) const {  // higher bits of a lane are other codes: see decode()
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    const __m512i shift = _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    const __m512i word = _mm512_add_epi32(lane, _mm512_set1_epi32(static_cast<int>(i / 8)));
    return reinterpret_cast<vi>(_mm512_srlv_epi32(_mm512_permutexvar_epi32(word, pairs), shift));
  }
};
#else
struct Nibbles {
  std::uint8_t wide[kBlock4 + 2];
  GC_INLINE Nibbles of(const std::uint8_t* packed, std::int64_t count) {
    Nibbles n;
    unpack4(packed, n.wide, static_cast<unsigned>(count));
    return n;
  }
  __attribute__((always_inline)) vi at(std::int64_t i) const { return load_codes(wide + i); }
};
#endif
template <int kPerByte>
struct CodesOf {
  using Type = Bytes;
};
template <>
struct CodesOf<2> {
  using Type = Nibbles;
};

// Moments of one block between the stages.
template <std::int64_t kSize>
struct Stage {
  alignas(64) float s[2][kSize];
  float largest[2];
};

template <class Map, class Maps>
GC_INLINE void encode_slot(const float* s, float largest, std::uint8_t* codes, float* scale, std::int64_t count) {
  *scale = largest;
  if constexpr (Maps::kPerByte == 1) {
    encode_bytes<Map>(s, codes, count, inverse_of(largest));
  } else {
    encode_nibbles<Map>(s, codes, count, inverse_of(largest));
  }
}

// Whether the parameter moves while its block's moments are encoded: their arithmetic then fills the waits of the
// quotient's chain.  For rules that move it by the new moments alone.
template <class Rule>
constexpr bool kMovesLate = false;
#if defined(__AVX512F__)
template <>
constexpr bool kMovesLate<Adam> = true;
#endif

template <class Rule, class P, class Maps, bool kNoise>
struct Coded {
  static constexpr std::int64_t kSize = Maps::kSize;
  using Codes = typename CodesOf<Maps::kPerByte>::Type;
  const CodedBlock& b;
  const RoundingVectors noise;
  float c[kMaxCoefs];
  bool plain;  // no coupled decay, no decay afterwards, gradients as they are

  explicit Coded(const CodedBlock& block)
      : b(block), noise(kNoise ? RoundingVectors::of(block.key) : RoundingVectors{}) {
    for (int i = 0; i < kMaxCoefs; ++i) c[i] = block.c[i];
    plain = c[0] == 1.0f && c[2] == 0.0f && c[3] == 0.0f;
  }

  // `update` of rule_bodies.inl.h, less what multiplies by 1 or adds 0.
  template <bool kPlain>
  __attribute__((always_inline)) void apply(vf& p, vf g, vf* s) const {
    if (kPlain) {
      p += c[1] * p;
      Rule::apply(c, p, g, s);
    } else {
      update<Rule>(c, p, g, s);
    }
  }

  // kLate: whole blocks whose parameters `move_and_encode` will move.
  template <bool kPlain, bool kLate = false>
  __attribute__((always_inline)) void first(std::int64_t begin, std::int64_t count, Stage<kSize>& stage) const {
    auto* const p = static_cast<typename P::T*>(b.p) + begin;
    const auto* const g = static_cast<const typename P::T*>(b.g) + begin;
    const std::int64_t block = begin / kSize;
    const Codes first_codes = Codes::of(b.codes[0] + begin / Maps::kPerByte, count);
    const Codes second_codes = Rule::kSlots > 1 ? Codes::of(b.codes[1] + begin / Maps::kPerByte, count) : first_codes;
    const auto first_map = Maps::First::scaled(b.scales[0][block]);
    const auto second_map = Maps::Second::scaled(Rule::kSlots > 1 ? b.scales[1][block] : 0.0f);
    vf largest[2] = {};
    std::int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) {
      constexpr std::int64_t kAhead = 512;
      __builtin_prefetch(p + i + kAhead, 1);
      __builtin_prefetch(g + i + kAhead, 0);
      vf s[2] = {first_map.decode(first_codes.at(i)), vf{}};
      if (Rule::kSlots > 1) s[1] = second_map.decode(second_codes.at(i));
      if constexpr (kLate) {
        Rule::fold(c, P::load(g + i), s);
        keep(s, largest, i, stage);
        continue;
      }
      vf x = P::load(p + i);
      apply<kPlain>(x, P::load(g + i), s);
      const vu words = kNoise ? noise.words(begin + i) : vu{};
      P::store(p + i, x, kNoise ? &words : nullptr, 0);
      keep(s, largest, i, stage);
    }
    if (i < count) rest<kPlain>(p + i, g + i, begin + i, i, static_cast<int>(count - i), largest, stage);
    stage.largest[0] = reduce_max(largest[0]);
    if (Rule::kSlots > 1) stage.largest[1] = reduce_max(largest[1]);
  }

  __attribute__((always_inline)) void keep(const vf* s, vf* largest, std::int64_t i, Stage<kSize>& stage) const {
    store(stage.s[0] + i, s[0]);
    largest[0] = vmax(vabs(s[0]), largest[0]);
    if (Rule::kSlots < 2) return;
    store(stage.s[1] + i, s[1]);
    largest[1] = vmax(s[1], largest[1]);
  }

  // The last lanes of a tensor: codes beyond its end are not looked at.
  template <bool kPlain>
  __attribute__((noinline)) void rest(typename P::T* p, const typename P::T* g, std::int64_t at, std::int64_t i,
                                      int count, vf* largest, Stage<kSize>& stage) const {
    const std::int64_t block = at / kSize;
    vf x = P::load_part(p, count), s[2] = {};
    for (int k = 0; k < Rule::kSlots; ++k) {
      std::uint8_t wide[kLanes] = {};
      for (int j = 0; j < count; ++j) {
        const std::uint8_t byte = b.codes[k][(at + j) / Maps::kPerByte];
        wide[j] = Maps::kPerByte == 1 ? byte : static_cast<std::uint8_t>((at + j) % 2 ? byte >> 4 : byte & 15u);
      }
      const float scale = b.scales[k][block];
      s[k] = k == 0 ? Maps::First::scaled(scale).decode(load_codes(wide))
                    : Maps::Second::scaled(scale).decode(load_codes(wide));
    }
    apply<kPlain>(x, P::load_part(g, count), s);
    const vu words = kNoise ? noise.words(at) : vu{};
    P::store_part(p, x, count, kNoise ? &words : nullptr, 0);
    for (int k = 0; k < Rule::kSlots; ++k) {
      for (int j = count; j < kLanes; ++j) s[k][j] = 0.0f;
    }
    keep(s, largest, i, stage);
  }

  __attribute__((always_inline)) void last(std::int64_t begin, std::int64_t count, const Stage<kSize>& stage) const {
    const std::int64_t block = begin / kSize, at = begin / Maps::kPerByte;
    encode_slot<typename Maps::First, Maps>(stage.s[0], stage.largest[0], b.codes[0] + at, b.scales[0] + block, count);
    if (Rule::kSlots < 2) return;
    encode_slot<typename Maps::Second, Maps>(stage.s[1], stage.largest[1], b.codes[1] + at, b.scales[1] + block, count);
  }

#if defined(__AVX512F__)
  // As `last`, of a whole block, moving the parameter too.
  __attribute__((always_inline)) void move_and_encode(std::int64_t begin, const Stage<kSize>& stage) const {
    const std::int64_t block = begin / kSize;
    const vf inverse[2] = {splat(inverse_of(stage.largest[0])), splat(inverse_of(stage.largest[1]))};
    auto* const p = static_cast<typename P::T*>(b.p) + begin;
    for (int k = 0; k < 2; ++k) b.scales[k][block] = stage.largest[k];
    for (std::int64_t i = 0; i < kSize; i += 4 * kLanes) {
      for (std::int64_t j = i; j < i + 4 * kLanes; j += kLanes) {
        vf x = P::load(p + j);
        const vf s[2] = {load(stage.s[0] + j), load(stage.s[1] + j)};
        x += c[1] * x;
        Rule::move(c, x, s);
        const vu words = kNoise ? noise.words(begin + j) : vu{};
        P::store(p + j, x, kNoise ? &words : nullptr, 0);
      }
      const std::int64_t at = (begin + i) / Maps::kPerByte;
      store64<typename Maps::First, Maps::kPerByte>(stage.s[0] + i, b.codes[0] + at, inverse[0]);
      store64<typename Maps::Second, Maps::kPerByte>(stage.s[1] + i, b.codes[1] + at, inverse[1]);
    }
  }
#endif

  template <bool kLate>
  __attribute__((always_inline)) void finish(std::int64_t begin, const Stage<kSize>& stage) const {
    if constexpr (kLate) {
      move_and_encode(begin, stage);
    } else {
      last(begin, kSize, stage);
    }
  }

  template <bool kPlain>
  void run() const {
    constexpr bool kLate = kPlain && kMovesLate<Rule>;
    Stage<kSize> stage[2];
    std::int64_t begin = 0;
    for (; begin + kSize <= b.n; begin += kSize) {
      first<kPlain, kLate>(begin, kSize, stage[begin / kSize % 2]);
      if (begin > 0) finish<kLate>(begin - kSize, stage[(begin / kSize + 1) % 2]);
    }
    if (begin > 0) finish<kLate>(begin - kSize, stage[(begin / kSize + 1) % 2]);
    if (begin == b.n) return;
    first<kPlain>(begin, b.n - begin, stage[0]);
    last(begin, b.n - begin, stage[0]);
  }
};

template <class Rule, class P, class Maps, bool kNoise>
static void run_coded(const CodedBlock& block) {
  const Coded<Rule, P, Maps, kNoise> coded(block);
  if (coded.plain) {
    coded.template run<true>();
  } else {
    coded.template run<false>();
  }
}

}  // namespace

extern const CodedKernels kCoded;
#define GC_FORM(P, Maps, noise)            \
  {run_coded<Adam, P, Maps, noise>,        \
   run_coded<Grams, P, Maps, noise>,       \
   run_coded<Lion, P, Maps, noise>,        \
   nullptr,                                \
   run_coded<SgdMomentum, P, Maps, noise>, \
   nullptr,                                \
   nullptr}
const CodedKernels kCoded = {{{GC_FORM(F32, Maps8, false), GC_FORM(Bf16, Maps8, false), GC_FORM(Bf16, Maps8, true)},
                              {GC_FORM(F32, Maps4, false), GC_FORM(Bf16, Maps4, false), GC_FORM(Bf16, Maps4, true)}}};
#undef GC_FORM

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
