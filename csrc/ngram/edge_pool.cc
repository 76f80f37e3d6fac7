#include "ngram/edge_pool.h"

#include <algorithm>

namespace gramcore::ngram {
namespace {

constexpr Edge kEmpty{0, EdgePool::kNoEdge};

std::uint32_t capacity_of(std::uint8_t cls) {
  return 1u << (cls - 1);
}
// Cells of a block: a hash block keeps its edge count in one more.
std::uint32_t cells_of(std::uint8_t cls) {
  return capacity_of(cls) + (cls > EdgePool::kMaxFlatClass ? 1 : 0);
}

}  // namespace

EdgeRef EdgePool::allocate(std::uint8_t cls) {
  EdgeRef ref;
  ref.cls = cls;
  auto& reusable = free_[cls];
  if (!reusable.empty()) {
    ref.offset = reusable.back();
    reusable.pop_back();
    std::fill_n(cells_.begin() + ref.offset, cells_of(cls), kEmpty);
    return ref;
  }
  const std::size_t end = cells_.size() + cells_of(cls);
  GC_CHECK_AS(LimitError, end < kNoEdge, "a suffix automaton must have < 2^32 transition cells, got ", end,
              "; split the corpus into several automata");
  ref.offset = static_cast<std::uint32_t>(cells_.size());
  if (end > cells_.capacity() && end >= 65536) cells_.reserve(end + end / 8);
  cells_.resize(end, kEmpty);
  return ref;
}

void EdgePool::release(EdgeRef& ref) {
  if (ref.cls == 0) return;
  num_edges_ -= count(ref);
  free_[ref.cls].push_back(ref.offset);
  ref = {};
}

void EdgePool::place(EdgeRef ref, std::int32_t token, std::uint32_t target) {
  Edge* cells = cells_.data() + ref.offset;
  const std::uint32_t capacity = capacity_of(ref.cls);
  if (ref.cls <= kMaxFlatClass) {
    std::uint32_t i = 0;
    while (i < capacity && cells[i].target != kNoEdge) ++i;
    GC_DCHECK(i < capacity);
    cells[i] = {token, target};
  } else {
    cells[slot(ref, token)] = {token, target};
    ++cells[capacity].token;
  }
}

void EdgePool::grow(EdgeRef& ref) {
  EdgeRef larger = allocate(static_cast<std::uint8_t>(ref.cls + 1));
  for_each(ref, [&](std::int32_t token, std::uint32_t target) { place(larger, token, target); });
  free_[ref.cls].push_back(ref.offset);
  ref = larger;
}

void EdgePool::insert(EdgeRef& ref, std::int32_t token, std::uint32_t target) {
  if (ref.cls == 0) {
    ref = allocate(1);
  } else {
    const std::uint32_t capacity = capacity_of(ref.cls);
    const Edge* cells = cells_.data() + ref.offset;
    const bool full = ref.cls <= kMaxFlatClass ? cells[capacity - 1].target != kNoEdge
                                               : static_cast<std::uint32_t>(cells[capacity].token) * 4 >= capacity * 3;
    if (full) grow(ref);
  }
  place(ref, token, target);
  ++num_edges_;
}

void EdgePool::retarget(EdgeRef ref, std::int32_t token, std::uint32_t target) {
  Edge* cells = cells_.data() + ref.offset;
  std::uint32_t i = 0;
  if (ref.cls <= kMaxFlatClass) {
    while (cells[i].token != token || cells[i].target == kNoEdge) ++i;
  } else {
    i = slot(ref, token);
  }
  cells[i].target = target;
}

void EdgePool::erase(EdgeRef& ref, std::int32_t token) {
  Edge* cells = cells_.data() + ref.offset;
  const std::uint32_t capacity = capacity_of(ref.cls);
  --num_edges_;
  if (ref.cls <= kMaxFlatClass) {  // the last edge moves into the hole
    std::uint32_t hole = 0, last = 0;
    while (cells[hole].token != token || cells[hole].target == kNoEdge) ++hole;
    while (last + 1 < capacity && cells[last + 1].target != kNoEdge) ++last;
    cells[hole] = cells[last];
    cells[last] = kEmpty;
    if (last == 0) {
      free_[ref.cls].push_back(ref.offset);
      ref = {};
    }
    return;
  }
  // Linear probing: shift back every later edge of the run that may not stay behind the hole.
  const std::uint32_t mask = capacity - 1;
  std::uint32_t hole = slot(ref, token);
  cells[hole] = kEmpty;
  --cells[capacity].token;
  for (std::uint32_t i = (hole + 1) & mask; cells[i].target != kNoEdge; i = (i + 1) & mask) {
    const std::uint32_t home = (hash(cells[i].token) >> 8) & mask;
    if (((i - home) & mask) >= ((i - hole) & mask)) {
      cells[hole] = cells[i];
      cells[i] = kEmpty;
      hole = i;
    }
  }
}

EdgeRef EdgePool::copy(EdgeRef ref) {
  if (ref.cls == 0) return {};
  const EdgeRef twin = allocate(ref.cls);
  std::copy_n(cells_.begin() + ref.offset, cells_of(ref.cls), cells_.begin() + twin.offset);
  num_edges_ += count(twin);
  return twin;
}

void EdgePool::clear() {
  cells_.clear();
  for (auto& offsets : free_) offsets.clear();
  num_edges_ = 0;
}

std::uint64_t EdgePool::bytes() const {
  std::uint64_t total = cells_.capacity() * sizeof(Edge);
  for (const auto& offsets : free_) total += offsets.capacity() * sizeof(std::uint32_t);
  return total;
}

}  // namespace gramcore::ngram
