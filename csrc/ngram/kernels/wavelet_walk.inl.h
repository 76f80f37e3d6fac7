// Block headers of a group are summed with vectors and without branches; lists of up to 31 places are compared whole.
// Everything is exact, so all levels agree.
#include "ngram/kernels/wavelet_walk.h"

namespace gramcore::ngram {
namespace GC_ISA_NS {

GC_INLINE unsigned ones_of(unsigned header) {
  return header & 511u;
}
GC_INLINE unsigned length_of(unsigned header) {
  const unsigned ones = ones_of(header), kind = (header >> 9) & 3u;
  const unsigned minority = ones < kHybridBlock - ones ? ones : kHybridBlock - ones;
  return kind == kHybridPlain ? kHybridBlock / 8 : kind == kHybridMinority ? minority : header >> 11;
}
GC_INLINE std::uint64_t load_word(const std::uint8_t* p) {
  std::uint64_t w;
  __builtin_memcpy(&w, p, 8);
  return w;
}

#if defined(__AVX2__)
constexpr unsigned kLaneCount = 16;
#else
constexpr unsigned kLaneCount = 8;
#endif
typedef std::uint16_t Lanes __attribute__((vector_size(2 * kLaneCount)));
typedef std::uint8_t Bytes __attribute__((vector_size(2 * kLaneCount)));

GC_INLINE Lanes lane_index() {
  Lanes v;
  for (unsigned i = 0; i < kLaneCount; ++i) v[i] = static_cast<std::uint16_t>(i);
  return v;
}

// Adds the ones and the data bytes of the first `blocks` headers; what is read behind the group is masked away.
GC_INLINE void skip(const std::uint16_t* headers, unsigned blocks, std::uint64_t* ones, std::uint64_t* data) {
  Lanes sum_ones = {}, sum_data = {};
  for (unsigned first = 0; first < kHybridBlocksPerGroup; first += kLaneCount) {
    Lanes h;
    __builtin_memcpy(&h, headers + first, sizeof(h));
    const Lanes index = lane_index() + static_cast<std::uint16_t>(first);
    const Lanes in = reinterpret_cast<Lanes>(index < static_cast<std::uint16_t>(blocks));
    const Lanes count = h & 511, kind = (h >> 9) & 3, other = kHybridBlock - count;
    const Lanes minority = count < other ? count : other;
    const Lanes length = kind == kHybridPlain      ? Lanes{} + kHybridBlock / 8
                         : kind == kHybridMinority ? minority
                                                   : h >> 11;
    sum_ones += count & in;
    sum_data += length & in;
  }
#if defined(__AVX2__)
  // Two sums in one: lanes are below 2^15, pairs are added to 32 bits and then across.
  const __m256i one = _mm256_set1_epi16(1);
  const __m256i a = _mm256_madd_epi16(reinterpret_cast<__m256i>(sum_ones), one);
  const __m256i b = _mm256_madd_epi16(reinterpret_cast<__m256i>(sum_data), one);
  const __m256i ab = _mm256_hadd_epi32(a, b);
  const __m128i s = _mm_add_epi32(_mm256_castsi256_si128(ab), _mm256_extracti128_si256(ab, 1));
  const __m128i t = _mm_hadd_epi32(s, s);
  *ones += static_cast<std::uint32_t>(_mm_cvtsi128_si32(t));
  *data += static_cast<std::uint32_t>(_mm_extract_epi32(t, 1));
#else
  for (unsigned i = 0; i < kLaneCount; ++i) *ones += sum_ones[i], *data += sum_data[i];
#endif
}

struct Block {
  unsigned header, length;
  std::uint64_t ones;  // before it
  const std::uint8_t* data;
};

GC_INLINE Block find_block(const HybridView& v, std::uint64_t block) {
  const HybridGroup& group = v.groups[block / kHybridBlocksPerGroup];
  const unsigned at = static_cast<unsigned>(block % kHybridBlocksPerGroup);
  std::uint64_t data = group.data | static_cast<std::uint64_t>(group.data_high) << 32;
  Block b;
  b.ones = group.ones | static_cast<std::uint64_t>(group.ones_high) << 32;
  b.header = group.headers[at];
  b.length = length_of(b.header);
  skip(group.headers, at, &b.ones, &data);
  b.data = v.data + data;
  return b;
}

// Bit t: entry t of a list compares so with j.
GC_INLINE std::uint32_t compare_list(const std::uint8_t* list, std::uint8_t j, bool equal) {
  std::uint32_t mask = 0;
  for (unsigned first = 0; first < kHybridListBytes; first += sizeof(Bytes)) {
    Bytes x;
    __builtin_memcpy(&x, list + first, sizeof(x));
    const Bytes hit = reinterpret_cast<Bytes>(equal ? x == j : x < j);
#if defined(__AVX2__)
    mask |= static_cast<std::uint32_t>(_mm256_movemask_epi8(reinterpret_cast<__m256i>(hit)));
#elif defined(__SSE2__)
    mask |= static_cast<std::uint32_t>(_mm_movemask_epi8(reinterpret_cast<__m128i>(hit))) << first;
#else
    for (unsigned t = 0; t < sizeof(Bytes); ++t) mask |= (hit[t] & 1u) << (first + t);
#endif
  }
  return mask;
}

// Ones before bit j of a block, and the bit.
GC_INLINE unsigned look(const Block& b, unsigned j, bool* bit) {
  const unsigned kind = (b.header >> 9) & 3u;
  if (kind == kHybridPlain) {
    const unsigned last = j >> 6;
    unsigned ones = 0;
    for (unsigned w = 0; w < 4; ++w) {  // words behind the bit count as zero
      const std::uint64_t keep = w < last ? ~std::uint64_t{0} : w == last ? (std::uint64_t{1} << (j & 63)) - 1 : 0;
      ones += static_cast<unsigned>(__builtin_popcountll(load_word(b.data + 8 * w) & keep));
    }
    if (bit) *bit = (load_word(b.data + 8 * last) >> (j & 63)) & 1u;
    return ones;
  }
  const std::uint32_t valid = (1u << b.length) - 1;  // length < 32
  const std::uint8_t place = static_cast<std::uint8_t>(j);
  const unsigned before = static_cast<unsigned>(__builtin_popcount(compare_list(b.data, place, false) & valid));
  const bool here = bit && (compare_list(b.data, place, true) & valid) != 0;
  if (kind == kHybridMinority) {
    const bool rare = ones_of(b.header) <= kHybridBlock - ones_of(b.header);
    if (bit) *bit = here == rare;
    return rare ? before : j - before;
  }
  const bool first = kind == kHybridRunsFrom1;
  if (bit) *bit = (((before + here) & 1u) != 0) != first;
  unsigned ones = 0, from = 0;
  bool value = first;
  for (unsigned t = 0; t < before; ++t, value = !value) {
    ones += value ? b.data[t] - from : 0;
    from = b.data[t];
  }
  return ones + (value ? j - from : 0);
}

GC_INLINE std::uint64_t one_rank(const HybridView& v, std::uint64_t i, bool* bit) {
  const Block b = find_block(v, i / kHybridBlock);
  return b.ones + look(b, static_cast<unsigned>(i % kHybridBlock), bit);
}
GC_INLINE void two_ranks(const HybridView& v, std::uint64_t i, std::uint64_t j, std::uint64_t* left,
                         std::uint64_t* right) {
  Block b = find_block(v, i / kHybridBlock);
  *left = b.ones + look(b, static_cast<unsigned>(i % kHybridBlock), nullptr);
  if (j / kHybridBlock != i / kHybridBlock) b = find_block(v, j / kHybridBlock);
  *right = b.ones + look(b, static_cast<unsigned>(j % kHybridBlock), nullptr);
}

static std::uint64_t rank1(const HybridView& v, std::uint64_t i, bool* bit) {
  return one_rank(v, i, bit);
}
static void rank1_pair(const HybridView& v, std::uint64_t i, std::uint64_t j, std::uint64_t* left,
                       std::uint64_t* right) {
  two_ranks(v, i, j, left, right);
}

static void descend(const HybridView& v, const WaveletNode* nodes, WaveletCode code, std::uint64_t* begin,
                    std::uint64_t* end) {
  std::uint64_t low = *begin, high = *end;
  std::int32_t n = 0;
  for (; code.length > 0 && low < high; --code.length, code.bits >>= 1) {
    const WaveletNode& node = nodes[n];
    const unsigned bit = code.bits & 1u;
    std::uint64_t left, right;
    two_ranks(v, node.begin + low, node.begin + high, &left, &right);
    left -= node.ones;
    right -= node.ones;
    low = bit ? left : low - left;
    high = bit ? right : high - right;
    n = node.child[bit];
  }
  *begin = low;
  *end = high;
}

static std::uint32_t access(const HybridView& v, const WaveletNode* nodes, std::uint64_t at, std::uint64_t* before) {
  std::int32_t n = 0;
  while (n >= 0) {
    const WaveletNode& node = nodes[n];
    bool bit;
    const std::uint64_t ones = one_rank(v, node.begin + at, &bit) - node.ones;
    at = bit ? ones : at - ones;
    n = node.child[bit];
  }
  *before = at;
  return static_cast<std::uint32_t>(~n);
}

extern const WaveletWalkKernels kWaveletWalk;
const WaveletWalkKernels kWaveletWalk = {rank1, rank1_pair, descend, access};

}  // namespace GC_ISA_NS
}  // namespace gramcore::ngram
