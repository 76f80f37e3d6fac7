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
  own_groups_ = make_big_array<HybridGroup>(num_groups_ + 1);
  own_data_ = make_big_array<std::uint8_t>(num_data_);
  std::copy(made_groups_.begin(), made_groups_.end(), own_groups_.get());
  own_groups_[num_groups_] = {};
  std::copy(made_data_.begin(), made_data_.end(), own_data_.get());
  groups_ = own_groups_.get();
  data_ = own_data_.get();
  made_groups_ = {};
  made_data_ = {};
}

void HybridBits::save(SectionWriter& file) const {
  file.add(Span<const HybridGroup>(groups_, num_groups_ + 1));
  file.add(Span<const std::uint8_t>(data_, num_data_));
}

HybridBits HybridBits::map(SectionReader& file, std::uint64_t size, std::uint64_t num_data) {
  HybridBits bits;
  const std::uint64_t blocks = size / kHybridBlock + 1;  // the last one is partly filled or empty
  bits.size_ = size;
  bits.blocks_ = blocks;
  bits.num_groups_ = (blocks + kHybridBlocksPerGroup - 1) / kHybridBlocksPerGroup;
  bits.num_data_ = num_data;
  bits.groups_ = file.take<HybridGroup>(bits.num_groups_ + 1).data();
  bits.data_ = file.take<std::uint8_t>(num_data).data();
  bits.check(file);
  return bits;
}

namespace {

bool ascends(const std::uint8_t* list, unsigned length) {
  bool holds = true;
  for (unsigned t = 1; t < length; ++t) holds &= list[t - 1] < list[t];
  return holds;
}

// Ones before bit `end` of a block.
unsigned ones_before(unsigned kind, bool rare, const std::uint8_t* list, unsigned length, unsigned end) {
  unsigned ones = 0;
  if (kind == kHybridPlain) {
    for (unsigned w = 0; w < kHybridBlock / 64; ++w) {
      std::uint64_t word;
      std::memcpy(&word, list + 8 * w, 8);
      const unsigned first = 64 * w, bits = end <= first ? 0 : std::min(end - first, 64u);
      if (bits < 64) word &= (std::uint64_t{1} << bits) - 1;
      ones += static_cast<unsigned>(__builtin_popcountll(word));
    }
    return ones;
  }
  const auto before = static_cast<unsigned>(std::lower_bound(list, list + length, end) - list);
  if (kind == kHybridMinority) return rare ? before : end - before;
  unsigned from = 0;
  bool value = kind == kHybridRunsFrom1;
  for (unsigned t = 0; t < before; ++t, value = !value) {
    ones += value ? list[t] - from : 0;
    from = list[t];
  }
  return ones + (value ? end - from : 0);
}

}  // namespace

void HybridBits::check(const SectionReader& file) const {
  file.require(num_data_ >= kHybridListBytes, "bits must have room behind their lists");
  const std::uint64_t room = num_data_ - kHybridListBytes;
  std::uint64_t ones = 0, data = 0;
  for (std::uint64_t block = 0; block < blocks_; ++block) {
    const HybridGroup& group = groups_[block / kHybridBlocksPerGroup];
    if (block % kHybridBlocksPerGroup == 0) {
      file.require((group.ones | std::uint64_t{group.ones_high} << 32) == ones &&
                       (group.data | std::uint64_t{group.data_high} << 32) == data,
                   "a group of bits must begin with the sums before it");
    }
    const unsigned header = group.headers[block % kHybridBlocksPerGroup], count = header & 511u;
    const unsigned kind = (header >> 9) & 3u, zeros = kHybridBlock - count;
    file.require(count <= kHybridBlock, "a block of bits must hold at most 256 ones");
    const bool rare = count <= zeros;
    const unsigned length = kind == kHybridPlain      ? kHybridListBytes
                            : kind == kHybridMinority ? (rare ? count : zeros)
                                                      : header >> 11;
    file.require((kind == kHybridPlain || length < kHybridListBytes) && length <= room - data,
                 "a block of bits must lie inside its lists");
    const std::uint8_t* const list = data_ + data;
    file.require(kind == kHybridPlain || ascends(list, length), "a list of bits must ascend");
    const auto tail = static_cast<unsigned>(size_ % kHybridBlock);  // nothing may stand behind the end
    file.require(ones_before(kind, rare, list, length, kHybridBlock) == count &&
                     (block + 1 < blocks_ || ones_before(kind, rare, list, length, tail) == count),
                 "a block of bits must hold the ones its header says");
    ones += count;
    data += length;
  }
  file.require(data == room, "lists of bits must end with the last block");
}

}  // namespace gramcore::ngram
