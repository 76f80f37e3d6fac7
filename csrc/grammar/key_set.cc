#include "grammar/key_set.h"

#include <algorithm>

#include "grammar/ir.h"

namespace gramcore::grammar {
namespace {

bool has(const KeySet::State& s, std::size_t i) {
  return (s.used[i / 64] >> (i % 64)) & 1u;
}

}  // namespace

std::uint32_t KeySet::number_of(State state) {
  const auto [at, fresh] = numbers.try_emplace(std::move(state), static_cast<std::uint32_t>(states.size()));
  if (fresh) {
    states.push_back(at->first);
    bodies.push_back(ExprPool::kEmpty);
  }
  return at->second;
}

ExprId add_key_set(Grammar* g, KeySet set) {
  const auto number = static_cast<std::uint32_t>(g->key_sets.size());
  const std::uint32_t first = set.number_of({std::vector<std::uint64_t>(set.members.size() / 64 + 1, 0), 0});
  g->key_sets.push_back(std::move(set));
  return g->pool.keys(number, first);
}

ExprId key_set_body(Grammar* g, std::uint32_t number, std::uint32_t state) {
  if (g->key_sets[number].bodies[state] != ExprPool::kEmpty) return g->key_sets[number].bodies[state];
  ExprPool& pool = g->pool;
  KeySet& set = g->key_sets[number];
  const KeySet::State here = set.states[state];
  const std::uint32_t cap = std::max({set.least, set.most == kUnbounded ? 0 : set.most, 1u});
  const std::uint32_t next_count = std::min(here.count + 1, cap);
  std::uint32_t missing = 0;
  for (std::size_t i = 0; i < set.members.size(); ++i) missing += set.required[i] && !has(here, i);
  const auto room_for = [&](bool required) {  // the required ones must still fit
    return set.most == kUnbounded || here.count + missing + (required ? 0 : 1) <= set.most;
  };
  std::vector<ExprId> members;
  for (std::size_t i = 0; i < set.members.size(); ++i) {
    if (has(here, i) || set.members[i] == ExprPool::kEmpty || !room_for(set.required[i])) continue;
    KeySet::State next{here.used, next_count};
    next.used[i / 64] |= std::uint64_t{1} << (i % 64);
    members.push_back(pool.cat(set.members[i], pool.keys(number, set.number_of(std::move(next)))));
  }
  if (set.open != ExprPool::kEmpty && room_for(false)) {
    members.push_back(pool.cat(set.open, pool.keys(number, set.number_of({here.used, next_count}))));
  }
  ExprId more = pool.alt(std::move(members));
  if (here.count > 0) more = pool.cat(set.comma, more);
  const bool may_end = missing == 0 && here.count >= set.least;
  const ExprId body = may_end ? pool.alt({set.close, more}) : more;
  set.bodies[state] = body;
  return body;
}

}  // namespace gramcore::grammar
