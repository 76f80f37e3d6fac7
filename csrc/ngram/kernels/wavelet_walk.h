// Walks down a wavelet tree over bits in compressed blocks: the hot part of every FM-index query.
#pragma once

#include <cstdint>

namespace gramcore::ngram {

inline constexpr unsigned kHybridBlock = 256, kHybridBlocksPerGroup = 26;
inline constexpr unsigned kHybridListBytes = kHybridBlock / 8;  // lists are shorter; so many bytes may always be read
// Kinds of blocks: as they are; places of the rarer bit; places where the bit changes, from 0 or from 1.
inline constexpr std::uint16_t kHybridPlain = 0, kHybridMinority = 1, kHybridRunsFrom0 = 2, kHybridRunsFrom1 = 3;

// A cache line: ones and data bytes before 26 blocks (48 bits each) and their headers: ones in 9 bits, kind in 2,
// length of a list of changes in 5.  One more group than used must be readable.
struct alignas(64) HybridGroup {
  std::uint32_t ones, data;
  std::uint16_t ones_high, data_high, headers[kHybridBlocksPerGroup];
};
struct HybridView {
  const HybridGroup* groups;
  const std::uint8_t* data;
};

struct WaveletNode {
  std::uint64_t begin, ones;  // its first bit, and the ones before that
  std::int32_t child[2];      // a node, or ~symbol
};
struct WaveletCode {
  std::uint64_t bits;  // first step in the lowest bit
  unsigned length;
};

struct WaveletWalkKernels {
  // Ones before bit i; *bit: the bit (i below the size then), or null.
  std::uint64_t (*rank1)(const HybridView& v, std::uint64_t i, bool* bit);
  // Ones before i <= j, for the price of little more than one when both lie in one block.
  void (*rank1_pair)(const HybridView& v, std::uint64_t i, std::uint64_t j, std::uint64_t* left, std::uint64_t* right);
  // [*begin, *end) becomes the occurrences of the code's symbol before each.
  void (*descend)(const HybridView& v, const WaveletNode* nodes, WaveletCode code, std::uint64_t* begin,
                  std::uint64_t* end);
  // The symbol at `at` of a tree with nodes, *before: its occurrences before.
  std::uint32_t (*access)(const HybridView& v, const WaveletNode* nodes, std::uint64_t at, std::uint64_t* before);
};

const WaveletWalkKernels& wavelet_walk_kernels();

}  // namespace gramcore::ngram
