#include "ngram/hybrid_bits.h"

#include <algorithm>
#include <cstring>

namespace gramcore::ngram {

void HybridBits::encode() {
  if (blocks_ % kHybridBlocksPerGroup == 0) {
    const std::uint64_t data = made_data_.size();
    made_groups_.push_back({static_cast<std::uint32_t>(ones_),
                            static_cast<std::uint32_t>(data),
                            static_cast<std::uint16_t>(ones_ >> 32),
                            static_cast<std::uint16_t>(data >> 32),
                            {}});
  }
  unsigned ones = 0, changes = 0;
  std::uint8_t change_at[kHybridBlock / 8];
  const auto bit = [&](unsigned j) { return (words_[j >> 6] >> (j & 63)) & 1u; };
  for (const std::uint64_t w : words_) ones += static_cast<unsigned>(__builtin_popcountll(w));
  for (unsigned j = 1; j < kHybridBlock && changes < kHybridBlock / 8; ++j) {
    if (bit(j) != bit(j - 1)) change_at[changes++] = static_cast<std::uint8_t>(j);
  }
  const unsigned minority = ones < kHybridBlock - ones ? ones : kHybridBlock - ones;
  unsigned header = ones;
  if (minority <= changes && minority < kHybridBlock / 8) {
    header |= unsigned{kHybridMinority} << 9;
    const unsigned rare = ones <= kHybridBlock - ones ? 1 : 0;
    for (unsigned j = 0; j < kHybridBlock && minority > 0; ++j) {
      if (bit(j) == rare) made_data_.push_back(static_cast<std::uint8_t>(j));
    }
  } else if (changes < kHybridBlock / 8) {
    header |= (bit(0) ? unsigned{kHybridRunsFrom1} : unsigned{kHybridRunsFrom0}) << 9 | changes << 11;
    made_data_.insert(made_data_.end(), change_at, change_at + changes);
  } else {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(words_);
    made_data_.insert(made_data_.end(), bytes, bytes + sizeof(words_));
  }
  made_groups_.back().headers[blocks_++ % kHybridBlocksPerGroup] = static_cast<std::uint16_t>(header);
  ones_ += ones;
  size_ += fill_;
  std::memset(words_, 0, sizeof(words_));
  fill_ = 0;
}

void HybridBits::finish() {
  encode();  // also when empty: rank1(size()) then finds a block
  made_data_.insert(made_data_.end(), kHybridListBytes, 0);
  num_groups_ = made_groups_.size();
  num_data_ = made_data_.size();
  groups_ = make_big_array<HybridGroup>(num_groups_ + 1);
  data_ = make_big_array<std::uint8_t>(num_data_);
  std::copy(made_groups_.begin(), made_groups_.end(), groups_.get());
  std::copy(made_data_.begin(), made_data_.end(), data_.get());
  made_groups_ = {};
  made_data_ = {};
}

}  // namespace gramcore::ngram
