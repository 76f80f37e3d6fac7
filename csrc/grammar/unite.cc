// Unions of stacks: what a graph-structured stack (Tomita 1985) shares, in sets of threads.
#include <algorithm>

#include "grammar/automaton.h"

namespace gramcore::grammar {

Span<const StackId> Automaton::members(StackId stack) const {
  const std::uint32_t number = stacks_[stack].parent;
  return {members_.data() + unions_[number], static_cast<std::size_t>(unions_[number + 1] - unions_[number])};
}

// The stack that is any of these; a union of unions is one of their members.
StackId Automaton::unite(std::vector<StackId> stacks) {
  for (std::size_t i = 0, n = stacks.size(); i < n; ++i) {
    if (stacks_[stacks[i]].next != kUnion) continue;
    const Span<const StackId> inner = members(stacks[i]);
    stacks.insert(stacks.end(), inner.begin(), inner.end());
  }
  const auto is_union = [&](StackId s) { return stacks_[s].next == kUnion; };
  stacks.erase(std::remove_if(stacks.begin(), stacks.end(), is_union), stacks.end());
  std::sort(stacks.begin(), stacks.end());
  stacks.erase(std::unique(stacks.begin(), stacks.end()), stacks.end());
  if (stacks.size() == 1) return stacks[0];
  std::uint64_t h = 11;
  for (const StackId s : stacks) h = mix(h, s);
  const std::uint32_t number = union_table_.find_or_add(
      h,
      [&](std::uint32_t n) {
        return unions_[n + 1] - unions_[n] == stacks.size() &&
               std::equal(stacks.begin(), stacks.end(), members_.begin() + unions_[n]);
      },
      [&] {
        members_.insert(members_.end(), stacks.begin(), stacks.end());
        unions_.push_back(static_cast<std::uint32_t>(members_.size()));
        return static_cast<std::uint32_t>(unions_.size() - 2);
      });
  return push(kUnion, number);
}

// Makes threads with one expression one thread.
void Automaton::unite_ready() {
  const std::size_t n = ready_.size();
  if (n < 2) return;
  const auto by_top = [](const Thread& x, const Thread& y) {
    return x.top != y.top ? x.top < y.top : x.stack < y.stack;
  };
  std::sort(ready_.begin(), ready_.end(), by_top);
  std::size_t out = 0;
  for (std::size_t i = 0, j = 0; i < n; i = j) {
    while (j < n && ready_[j].top == ready_[i].top) ++j;
    Thread t = ready_[i];
    if (j > i + 1) {
      std::vector<StackId> stacks;
      for (std::size_t k = i; k < j; ++k) stacks.push_back(ready_[k].stack);
      t.stack = unite(std::move(stacks));
    }
    ready_[out++] = t;
  }
  ready_.resize(out);
}

// The state behind the end of an expression over a union: as closure() finds it, but level by level, so that stacks on
// which one expression comes next are united before it is opened.
StateId Automaton::pop_union(StackId stack) {
  begin();
  seen_.clear();
  work_.clear();
  pop(stack);
  std::vector<Thread> level;
  while (!work_.empty()) {
    level.swap(work_);
    work_.clear();
    std::sort(level.begin(), level.end(),
              [](const Thread& x, const Thread& y) { return x.top != y.top ? x.top < y.top : x.stack < y.stack; });
    for (std::size_t i = 0, j = 0; i < level.size(); i = j) {
      while (j < level.size() && level[j].top == level[i].top) ++j;
      std::vector<StackId> stacks;
      for (std::size_t k = i; k < j; ++k) stacks.push_back(level[k].stack);
      expand(j == i + 1 ? stacks[0] : unite(std::move(stacks)), level[i].top);
    }
  }
  return finish();
}

}  // namespace gramcore::grammar
