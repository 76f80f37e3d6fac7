// Acceleration of one shard: the rank range of every token and of every pair of adjacent tokens, in a memory-mapped
// file accel.N beside the index.  Complete, so a pair that is absent does not occur.  Optional and rebuildable.
#pragma once

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

 private:
  struct Single {
    std::uint32_t begin, count;
  };
  struct Slot {
    std::uint32_t first, second, begin, count;  // count 0: empty
  };
  struct Header {
    char magic[8];
    std::uint32_t version, num_ids;
    std::uint64_t num_tokens, fingerprint, num_slots, checksum;
  };
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
  static std::uint64_t fingerprint(const Shard& shard);

  MappedFile file_;
  const Single* singles_ = nullptr;
  const Slot* slots_ = nullptr;
  std::uint64_t num_slots_ = 0;
  std::uint32_t num_ids_ = 0;
  std::int64_t num_tokens_ = 0;
};

}  // namespace gramcore::ngram
