// logits[r, t] = -inf where bit t of bitmask row r is 0.
//
// Mapping: blockIdx.x = row, blockIdx.y = tile of kTileVectors 16-byte vectors of that row; thread i of a block owns
// vectors i, i + kThreads, ... of the tile, so neighbouring threads store to neighbouring addresses.
// Alignment: a row may start anywhere (odd strides); vector 0 begins at the last 16-byte boundary at or before it, and
// the parts of the first and last vector outside the row are skipped.
// Logits are never read: a fully masked vector is one 16-byte store, a mixed one single stores, an allowed one nothing.
// Bytes moved: V/8 read per row plus 16 per vector with a masked token.  Deterministic; repeated rows are harmless.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "grammar/cuda/apply_bitmask.h"
#include "grammar/cuda/apply_bitmask_policy.h"

namespace gramcore::grammar {

// Word is an unsigned integer of the element's size; kMinusInf its bit pattern of -inf.
template <class Word, Word kMinusInf>
__global__ void __launch_bounds__(ApplyBitmaskPolicy::kThreads) apply_bitmask_kernel(const ApplyBitmaskArgs args) {
  constexpr int kWidth = 16 / sizeof(Word);  // elements per vector
  constexpr unsigned kAll = (1u << kWidth) - 1u;
  static_assert(kWidth <= 8, "the tokens of a vector lie in at most two bitmask words");
  constexpr std::uint32_t kFill = sizeof(Word) == 4 ? kMinusInf : kMinusInf * 0x10001u;

  const std::int64_t row = args.row_index != nullptr ? args.row_index[blockIdx.x] : blockIdx.x;
  Word* const logits = static_cast<Word*>(args.logits) + row * args.logits_stride;
  const std::int32_t* const mask = args.bitmask + row * args.bitmask_stride;
  const std::int64_t lead = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(logits) % 16 / sizeof(Word));

#pragma unroll
  for (int i = 0; i < ApplyBitmaskPolicy::kVectorsPerThread; ++i) {
    const std::int64_t tile = std::int64_t{blockIdx.y} * ApplyBitmaskPolicy::kVectorsPerThread + i;
    const std::int64_t vector = tile * ApplyBitmaskPolicy::kThreads + threadIdx.x;
    const std::int64_t first = vector * kWidth - lead;  // token of the vector's first element
    const std::int64_t begin = first < 0 ? 0 : first;
    const std::int64_t end = first + kWidth < args.vocab_size ? first + kWidth : args.vocab_size;
    if (begin >= end) continue;

    const int shift = static_cast<int>(begin & 31), count = static_cast<int>(end - begin);
    std::uint32_t allowed = static_cast<std::uint32_t>(__ldg(mask + (begin >> 5))) >> shift;
    if (shift + count > 32) allowed |= static_cast<std::uint32_t>(__ldg(mask + (begin >> 5) + 1)) << (32 - shift);
    const unsigned masked = ~allowed & ((1u << count) - 1u);

    if (masked == kAll) {
      *reinterpret_cast<uint4*>(logits + begin) = make_uint4(kFill, kFill, kFill, kFill);
    } else {
      for (int j = 0; j < count; ++j) {
        if ((masked >> j & 1u) != 0) logits[begin + j] = kMinusInf;
      }
    }
  }
}

}  // namespace gramcore::grammar
