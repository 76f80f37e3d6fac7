// Acceleration of one shard, in a memory-mapped file accel.N beside the index: the rank range of every token and of
// every pair of adjacent tokens, hashed and in rank order, the tokens behind the first two of every kStride-th suffix,
// and how many tokens each suffix shares with the one before.  Complete, so a pair that is absent does not occur.
// Optional and rebuildable.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "core/file.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {

// A half-open interval of ranks.
struct RankRange {
  std::int64_t begin = 0, end = 0;
  std::int64_t size() const { return end - begin; }
};

class Shard;

class Accel {
 public:
  Accel() = default;
  // Maps accel.N if it is there; throws FormatError when it is damaged or was made for other files.
  Accel(const std::string& path, const Shard& shard);
  static void build(const Shard& shard, const std::string& path);
  // Derives the file's contents again and compares all of them; throws FormatError.  As much memory as the file.
  void verify(const Shard& shard) const;

  bool present() const { return slots_ != nullptr; }
  void load() {
    file_.load();
    if (present()) locate();
  }
  bool has_token(std::uint32_t id) const { return id < num_ids_; }
  RankRange token(std::uint32_t id) const {  // has_token(id) must hold
    return checked(singles_[id].begin, singles_[id].count);
  }
  void prefetch_pair(std::uint32_t a, std::uint32_t b) const { __builtin_prefetch(slots_ + home(a, b)); }
  RankRange pair(std::uint32_t a, std::uint32_t b) const {
    for (std::uint64_t i = home(a, b);; i = i + 1 < num_slots_ ? i + 1 : 0) {
      const Slot& s = slots_[i];
      if (s.count == 0) return {0, 0};
      if (s.first == a && s.second == b) return checked(s.begin, s.count);
    }
  }
  // fn(second, begin, end) in rank order for each pair whose ranks lie in `range`, that of one token without the suffix
  // that ends after it.
  template <class F>
  void for_each_pair_in(RankRange range, F&& fn) const {
    if (range.size() == 0) return;
    const Run* run = std::lower_bound(runs_, runs_ + num_runs_, range.begin,
                                      [](const Run& r, std::int64_t rank) { return r.begin < rank; });
    for (std::int64_t begin = range.begin; begin < range.end; ++run) {
      if (run >= runs_ + num_runs_ || run->begin != begin) [[unlikely]]
        bad();
      const std::int64_t end = run + 1 < runs_ + num_runs_ ? run[1].begin : num_tokens_;
      if (end <= begin || end > range.end) [[unlikely]]
        bad();
      fn(run->second, begin, end);
      begin = end;
    }
  }

  // Sample i is of the suffixes of ranks i * kStride to (i + 1) * kStride - 1.
  static constexpr std::int64_t kStride = 16;
  static constexpr std::size_t kMaxShared = 15;
  template <class T>
  static constexpr std::size_t kSampleTokens = sizeof(std::uint64_t) / sizeof(T);
  struct Sample {
    std::uint64_t key;  // tokens behind the first two of the first suffix, in the order of suffixes; zeros past its end
    std::uint64_t shared;  // tokens that each shares with the suffix before it, at most kMaxShared: byte i has that of
                           // suffix i in its low half, of suffix i + 8 in its high one
    // Bit i: whether suffix i shares fewer than `depth` tokens, in [1, kMaxShared], with the one before it.
    std::uint32_t heads(std::size_t depth) const {
      constexpr std::uint64_t kOnes = 0x0101010101010101ull;
      const auto fewer = [&](std::uint64_t counts) {
        const std::uint64_t reached = (counts & kOnes * 0x0f) + kOnes * (0x80 - depth);
        return static_cast<std::uint32_t>(((~reached >> 7 & kOnes) * 0x0102040810204080ull) >> 56);
      };
      return fewer(shared) | fewer(shared >> 4) << 8;
    }
  };
  const Sample* samples() const { return samples_; }

 private:
  struct Single {
    std::uint32_t begin, count;
  };
  struct Slot {
    std::uint32_t first, second, begin, count;  // count 0: empty
  };
  struct Run {  // suffixes that agree in two tokens; the one that ends after a token is a run, with second 0
    std::uint32_t second, begin;
  };
  struct Header {
    char magic[8];
    std::uint32_t version, num_ids;
    std::uint64_t num_tokens, fingerprint, num_slots, num_runs;
  };
  struct Contents;
  template <class T>
  static Contents contents(const Shard& shard);
  static std::uint64_t hash(std::uint32_t a, std::uint32_t b) {
    std::uint64_t h = (std::uint64_t{a} << 32 | b) * 0x9e3779b97f4a7c15ull;
    return (h ^ (h >> 29)) * 0xbf58476d1ce4e5b9ull;
  }
  static std::uint64_t scale(std::uint64_t h, std::uint64_t n) {
    return static_cast<std::uint64_t>((static_cast<unsigned __int128>(h) * n) >> 64);
  }
  std::uint64_t home(std::uint32_t a, std::uint32_t b) const { return scale(hash(a, b), num_slots_); }
  RankRange checked(std::uint32_t begin, std::uint32_t count) const {
    const std::int64_t end = std::int64_t{begin} + count;
    if (end > num_tokens_) [[unlikely]]
      bad();
    return {begin, end};
  }
  [[noreturn]] void bad() const;
  void locate();  // the arrays in the file
  static std::uint64_t num_samples(std::int64_t num_tokens) {
    return static_cast<std::uint64_t>((num_tokens + kStride - 1) / kStride);
  }
  static std::uint64_t fingerprint(const Shard& shard);

  MappedFile file_;
  const Single* singles_ = nullptr;
  const Slot* slots_ = nullptr;
  const Run* runs_ = nullptr;
  const Sample* samples_ = nullptr;
  std::uint64_t num_slots_ = 0, num_runs_ = 0;
  std::uint32_t num_ids_ = 0;
  std::int64_t num_tokens_ = 0;
};

}  // namespace gramcore::ngram
