#include "grammar/key_set.h"

#include <algorithm>

#include "grammar/ir.h"

namespace gramcore::grammar {
namespace {

bool has(const KeySet::State& s, std::size_t i) {
  return (s.used[i / 64] >> (i % 64)) & 1u;
}

}  // namespace

bool KeySet::fits(const State& s, const Member& m) {
  return (m.key == kOpen || !has(s, m.key)) && (s.marks & m.marks) == 0;
}

KeySet::State KeySet::after(State s, const Member& m) {
  s.marks |= m.marks;
  if (m.key != kOpen) s.used[m.key / 64] |= std::uint64_t{1} << (m.key % 64);
  return s;
}

std::uint32_t KeySet::number_of(State state) {
  const auto [at, fresh] = numbers.try_emplace(std::move(state), static_cast<std::uint32_t>(states.size()));
  if (fresh) {
    states.push_back(at->first);
    bodies.push_back(ExprPool::kEmpty);
  }
  return at->second;
}

std::uint32_t KeySet::need(const State& state, const std::vector<bool>& alive) const {
  const std::uint32_t all = (1u << num_marks) - 1, missing = all & ~state.marks;
  if (missing == 0) {
    std::uint32_t count = 0;
    for (std::size_t i = 0; i < required.size(); ++i) count += required[i] && !has(state, i);
    return count;
  }
  std::uint32_t best = kUnbounded;
  for (std::size_t i = 0; i < members.size(); ++i) {  // which one sets the first mark that is missing
    const Member& m = members[i];
    if (!alive[i] || (m.marks & missing & ~(missing - 1)) == 0 || !fits(state, m)) continue;
    const std::uint32_t more = need(after(state, m), alive);
    if (more != kUnbounded) best = std::min(best, more + 1);
  }
  return best;
}

bool KeySet::possible(const std::vector<bool>& alive) const {
  std::vector<bool> may(required.size(), false);
  bool open = false;
  for (std::size_t i = 0; i < members.size(); ++i) {
    if (!alive[i] || members[i].marks != 0) continue;
    if (members[i].key == kOpen) {
      open = true;
    } else {
      may[members[i].key] = true;
    }
  }
  std::uint32_t count = 0;
  for (std::size_t i = 0; i < required.size(); ++i) {
    if (required[i] && !may[i]) return false;
    count += may[i];
  }
  const std::uint32_t least_members = need(first(), alive);
  return least_members != kUnbounded && least_members <= most && (open || count >= least);
}

ExprId add_key_set(Grammar* g, KeySet set) {
  const auto number = static_cast<std::uint32_t>(g->key_sets.size());
  const std::uint32_t first = set.number_of(set.first());
  g->key_sets.push_back(std::move(set));
  return g->pool.keys(number, first);
}

ExprId key_set_body(Grammar* g, std::uint32_t number, std::uint32_t state) {
  if (g->key_sets[number].bodies[state] != ExprPool::kEmpty) return g->key_sets[number].bodies[state];
  ExprPool& pool = g->pool;
  KeySet& set = g->key_sets[number];
  const KeySet::State here = set.states[state];
  const std::uint32_t cap = std::max({set.least, set.most == kUnbounded ? 0 : set.most, 1u});
  std::vector<bool> alive;
  for (const KeySet::Member& m : set.members) alive.push_back(m.e != ExprPool::kEmpty);
  const bool free = set.most == kUnbounded && set.num_marks == 0;  // no member can be one too many
  std::vector<ExprId> members;
  for (const KeySet::Member& m : set.members) {
    if (m.e == ExprPool::kEmpty || !KeySet::fits(here, m)) continue;
    KeySet::State next = KeySet::after(here, m);
    next.count = std::min(here.count + 1, cap);
    if (!free) {
      const std::uint32_t need = set.need(next, alive);
      if (need == kUnbounded || (set.most != kUnbounded && here.count + 1 + need > set.most)) continue;
    }
    members.push_back(pool.cat(m.e, pool.keys(number, set.number_of(std::move(next)))));
  }
  ExprId more = pool.alt(std::move(members));
  if (here.count > 0) more = pool.cat(set.comma, more);
  const bool may_end = here.count >= set.least && set.need(here, alive) == 0;
  const ExprId body = may_end ? pool.alt({set.close, more}) : more;
  set.bodies[state] = body;
  return body;
}

}  // namespace gramcore::grammar
