// A hash table of dense ids whose keys live elsewhere: the caller hashes, compares and appends.
#pragma once

#include <cstdint>
#include <vector>

namespace gramcore::grammar {

inline std::uint64_t mix(std::uint64_t h, std::uint64_t v) {
  h = (h ^ v) * 0x9E3779B97F4A7C15ull;
  return h ^ (h >> 29);
}

class InternTable {
 public:
  // The id in the table for which `same(id)` holds, else the id returned by `make()`, remembered under `hash`.
  template <class Same, class Make>
  std::uint32_t find_or_add(std::uint64_t hash, Same&& same, Make&& make) {
    if (2 * (size_ + 1) > slots_.size()) grow();
    const std::size_t mask = slots_.size() - 1;
    const auto tag = static_cast<std::uint32_t>(hash ^ (hash >> 32));
    std::size_t at = tag & mask;
    while (slots_[at].id_plus_1 != 0) {
      if (slots_[at].tag == tag && same(slots_[at].id_plus_1 - 1)) return slots_[at].id_plus_1 - 1;
      at = (at + 1) & mask;
    }
    const std::uint32_t id = make();
    slots_[at] = {tag, id + 1};
    ++size_;
    return id;
  }
  void clear() {
    slots_.assign(slots_.size(), Slot{0, 0});
    size_ = 0;
  }
  // Makes room for so many ids.
  void reserve(std::size_t ids) {
    if (2 * (ids + 1) > slots_.size()) resize(2 * (ids + 1));
  }
  std::size_t bytes() const { return slots_.capacity() * sizeof(Slot); }

 private:
  struct Slot {
    std::uint32_t tag;        // where the search begins; tables stay below 2^32 slots
    std::uint32_t id_plus_1;  // 0 = free
  };
  void grow() { resize(2 * slots_.size()); }
  void resize(std::size_t least) {
    std::size_t size = 64;
    while (size < least) size *= 2;
    std::vector<Slot> old = std::move(slots_);
    slots_.assign(size, Slot{0, 0});
    const std::size_t mask = slots_.size() - 1;
    for (const Slot& s : old) {
      if (s.id_plus_1 == 0) continue;
      std::size_t at = s.tag & mask;
      while (slots_[at].id_plus_1 != 0) at = (at + 1) & mask;
      slots_[at] = s;
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

}  // namespace gramcore::grammar
