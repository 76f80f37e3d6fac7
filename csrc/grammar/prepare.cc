// Checks and clean-up of a grammar before it becomes an automaton.
#include <vector>

#include "grammar/analysis.h"
#include "grammar/ir.h"

namespace gramcore::grammar {
namespace {

// Whether `e` matches something, given which rules are known to.
bool productive(Grammar& g, const Facts& rules, ExprId e) {
  while (g.pool[e].has_call && g.pool[e].kind == Kind::kCat) {
    if (!productive(g, rules, g.pool[e].a)) return false;
    e = g.pool[e].b;
  }
  const Node n = g.pool[e];
  if (!n.has_call) return !g.pool.is_empty(e);
  switch (n.kind) {
    case Kind::kRepeat: return n.min == 0 || productive(g, rules, n.a);
    case Kind::kCall: return rules[n.a];
    case Kind::kToken: return true;
    case Kind::kKeys: {
      std::vector<bool> may;
      for (std::size_t i = 0; i < g.key_sets[n.a].members.size(); ++i) {
        may.push_back(productive(g, rules, g.key_sets[n.a].members[i].e));
      }
      return g.key_sets[n.a].possible(may);
    }
    case Kind::kUnique: return g.unique_sets[n.a].least == 0 || !g.pool.is_empty(g.unique_sets[n.a].item);
    default:
      for (std::uint32_t i = 0; i < n.b; ++i) {
        if (productive(g, rules, g.pool.kids(e)[i])) return true;
      }
      return false;
  }
}

// `e` without calls of rules that match nothing.
ExprId without_dead(Grammar* g, const Facts& alive, ExprId e) {
  const Node n = g->pool[e];
  if (!n.has_call) return g->pool.is_empty(e) ? ExprPool::kEmpty : e;
  switch (n.kind) {
    case Kind::kCat: {
      const ExprId a = without_dead(g, alive, n.a), b = without_dead(g, alive, n.b);
      return a == n.a && b == n.b ? e : g->pool.cat(a, b);
    }
    case Kind::kRepeat: return g->pool.repeat(without_dead(g, alive, n.a), n.min, n.max);
    case Kind::kCall: return alive[n.a] ? e : ExprPool::kEmpty;
    case Kind::kToken: return e;
    case Kind::kUnique:
    case Kind::kKeys: return productive(*g, alive, e) ? e : ExprPool::kEmpty;
    default: {
      std::vector<ExprId> kids(g->pool.kids(e).begin(), g->pool.kids(e).end());
      bool changed = false;
      for (ExprId& k : kids) {
        const ExprId left = without_dead(g, alive, k);
        changed |= left != k;
        k = left;
      }
      return changed ? g->pool.alt(std::move(kids)) : e;
    }
  }
}

// Whether nothing reachable from `e` calls a rule that matches nothing or is itself such a part.
bool all_alive(Grammar* g, const Facts& alive, ExprId e, std::vector<std::uint8_t>* seen) {
  if (e == ExprPool::kEmpty) return false;
  for (;;) {
    if ((*seen)[e]) return true;
    (*seen)[e] = 1;
    const Node n = g->pool[e];
    if (!n.has_call) return !g->pool.is_empty(e);
    switch (n.kind) {
      case Kind::kCat:
        if (!all_alive(g, alive, n.a, seen)) return false;
        e = n.b;
        break;
      case Kind::kRepeat: e = n.a; break;
      case Kind::kCall: return alive[n.a];
      case Kind::kUnique:
      case Kind::kKeys: return productive(*g, alive, e);
      default:
        for (std::uint32_t i = 0; i < n.b; ++i) {
          if (!all_alive(g, alive, g->pool.kids(e)[i], seen)) return false;
        }
        return true;
    }
  }
}

bool all_alive(Grammar* g, const Facts& alive) {
  std::vector<std::uint8_t> seen(g->pool.size(), 0);
  for (const Rule& rule : g->rules) {
    if (!all_alive(g, alive, rule.body, &seen)) return false;
  }
  for (std::size_t k = 0; k < g->key_sets.size(); ++k) {
    for (std::size_t i = 0; i < g->key_sets[k].members.size(); ++i) {
      const ExprId e = g->key_sets[k].members[i].e;
      if (e != ExprPool::kEmpty && !all_alive(g, alive, e, &seen)) return false;
    }
  }
  return all_alive(g, alive, g->start, &seen);
}

void remove_dead(Grammar* g, const Facts& alive) {
  for (Rule& rule : g->rules) rule.body = without_dead(g, alive, rule.body);
  g->start = without_dead(g, alive, g->start);
  for (std::size_t k = 0; k < g->key_sets.size(); ++k) {
    for (std::size_t i = 0; i < g->key_sets[k].members.size(); ++i) {
      const ExprId member = without_dead(g, alive, g->key_sets[k].members[i].e);
      g->key_sets[k].members[i].e = member;
    }
  }
}

void check_calls(const Grammar& g, ExprId e) {
  const Node& n = g.pool[e];
  if (n.kind == Kind::kCall) {
    GC_CHECK(n.a < g.rules.size(), "rule must exist, got number ", n.a, " of ", g.rules.size());
  }
}

}  // namespace

bool matches_nothing(Grammar g) {
  return !productive(g, fixpoint(g, productive), g.start);
}

void prepare(Grammar* g) {
  for (std::uint32_t e = 0; e < g->pool.size(); ++e) check_calls(*g, e);
  const Facts alive = fixpoint(*g, productive);
  if (!all_alive(g, alive)) remove_dead(g, alive);
  const Node& n = g->pool[g->start];
  GC_CHECK(n.has_call ? g->start != ExprPool::kEmpty : !g->pool.is_empty(g->start),
           "grammar must match at least one text, got one that matches none");
  remove_left_recursion(g);
}

}  // namespace gramcore::grammar
