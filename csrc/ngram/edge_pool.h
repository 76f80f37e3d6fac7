// Transition sets of automaton states, in one pool: a set of up to kMaxFlat edges is a short array, a larger one an
// open-addressed hash table with one more cell for the number of edges in it.  Capacities are powers of two; freed
// blocks are reused by capacity class.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "core/check.h"

namespace gramcore::ngram {

struct Edge {
  std::int32_t token;
  std::uint32_t target;  // kNoEdge: the cell is empty
};

// Where a state's explicit edges are: `cls` 0 = none, else a block of capacity 2^(cls-1) at `offset`.
struct EdgeRef {
  std::uint32_t offset = 0;
  std::uint8_t cls = 0;
};

class EdgePool {
 public:
  static constexpr std::uint32_t kNoEdge = 0xffffffffu;
  static constexpr int kMaxFlatClass = 4;  // arrays of 1, 2, 4, 8 cells; hash tables from 16

  // Target of `token`, or kNoEdge.
  std::uint32_t find(EdgeRef ref, std::int32_t token) const {
    if (ref.cls == 0) return kNoEdge;
    const Edge* cells = cells_.data() + ref.offset;
    if (ref.cls <= kMaxFlatClass) {
      const std::uint32_t capacity = 1u << (ref.cls - 1);
      for (std::uint32_t i = 0; i < capacity && cells[i].target != kNoEdge; ++i) {
        if (cells[i].token == token) return cells[i].target;
      }
      return kNoEdge;
    }
    return cells[slot(ref, token)].target;
  }

  void insert(EdgeRef& ref, std::int32_t token, std::uint32_t target);   // `token` must be absent
  void retarget(EdgeRef ref, std::int32_t token, std::uint32_t target);  // `token` must be present
  void erase(EdgeRef& ref, std::int32_t token);                          // `token` must be present
  EdgeRef copy(EdgeRef ref);
  void release(EdgeRef& ref);
  void clear();

  template <class F>
  void for_each(EdgeRef ref, F&& fn) const {  // fn(token, target)
    if (ref.cls == 0) return;
    const std::uint32_t capacity = 1u << (ref.cls - 1);
    for (std::uint32_t i = 0; i < capacity; ++i) {
      const Edge& e = cells_[ref.offset + i];
      if (e.target != kNoEdge) fn(e.token, e.target);
    }
  }
  std::uint32_t count(EdgeRef ref) const {
    std::uint32_t n = 0;
    for_each(ref, [&](std::int32_t, std::uint32_t) { ++n; });
    return n;
  }

  std::uint64_t bytes() const;
  std::uint64_t num_edges() const { return num_edges_; }

 private:
  static std::uint32_t hash(std::int32_t token) {
    return (static_cast<std::uint32_t>(token) * 0x9e3779b1u) ^ (static_cast<std::uint32_t>(token) >> 15);
  }
  // Cell of `token` in a hash block, or the empty cell where it would go.
  std::uint32_t slot(EdgeRef ref, std::int32_t token) const {
    const std::uint32_t mask = (1u << (ref.cls - 1)) - 1;
    const Edge* cells = cells_.data() + ref.offset;
    std::uint32_t i = (hash(token) >> 8) & mask;
    while (cells[i].target != kNoEdge && cells[i].token != token) i = (i + 1) & mask;
    return i;
  }
  EdgeRef allocate(std::uint8_t cls);
  void grow(EdgeRef& ref);
  void place(EdgeRef ref, std::int32_t token, std::uint32_t target);

  std::vector<Edge> cells_;
  std::array<std::vector<std::uint32_t>, 33> free_;  // by class: offsets of blocks to reuse
  std::uint64_t num_edges_ = 0;
};

// Appends with growth by a quarter once the vector is large: memory stays near what is used.
template <class T>
void push_tight(std::vector<T>& v, T value) {
  if (v.size() == v.capacity() && v.size() >= 65536) v.reserve(v.size() + v.size() / 8);
  v.push_back(std::move(value));
}

}  // namespace gramcore::ngram
