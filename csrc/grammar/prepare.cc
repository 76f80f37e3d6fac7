// Checks and clean-up of a grammar before it becomes an automaton.
#include <vector>

#include "grammar/ir.h"

namespace gramcore::grammar {
namespace {

using Facts = std::vector<std::uint8_t>;  // one flag per rule

// Whether `e` matches something, given which rules are known to.
bool productive(Grammar& g, const Facts& rules, ExprId e) {
  const Node n = g.pool[e];
  if (!n.has_call) return !g.pool.is_empty(e);
  switch (n.kind) {
    case Kind::kCat: return productive(g, rules, n.a) && productive(g, rules, n.b);
    case Kind::kRepeat: return n.min == 0 || productive(g, rules, n.a);
    case Kind::kCall: return rules[n.a];
    default:
      for (std::uint32_t i = 0; i < n.b; ++i) {
        if (productive(g, rules, g.pool.kids(e)[i])) return true;
      }
      return false;
  }
}

bool nullable(Grammar& g, const Facts& rules, ExprId e) {
  const Node& n = g.pool[e];
  if (!n.has_call) return n.nullable;
  switch (n.kind) {
    case Kind::kCat: return nullable(g, rules, n.a) && nullable(g, rules, n.b);
    case Kind::kRepeat: return n.min == 0 || nullable(g, rules, n.a);
    case Kind::kCall: return rules[n.a];
    default:
      for (const ExprId k : g.pool.kids(e)) {
        if (nullable(g, rules, k)) return true;
      }
      return false;
  }
}

template <class Test>
Facts fixpoint(Grammar& g, Test test) {
  Facts facts(g.rules.size(), 0);
  for (bool changed = true; changed;) {
    changed = false;
    for (std::size_t r = 0; r < g.rules.size(); ++r) {
      if (!facts[r] && test(g, facts, g.rules[r].body)) facts[r] = changed = true;
    }
  }
  return facts;
}

// `e` without calls of rules that match nothing.
ExprId without_dead(Grammar* g, const Facts& alive, ExprId e) {
  const Node n = g->pool[e];
  if (!n.has_call) return g->pool.is_empty(e) ? ExprPool::kEmpty : e;
  switch (n.kind) {
    case Kind::kCat: {
      const ExprId a = without_dead(g, alive, n.a);
      return g->pool.cat(a, without_dead(g, alive, n.b));
    }
    case Kind::kRepeat: return g->pool.repeat(without_dead(g, alive, n.a), n.min, n.max);
    case Kind::kCall: return alive[n.a] ? e : ExprPool::kEmpty;
    default: {
      std::vector<ExprId> kids(g->pool.kids(e).begin(), g->pool.kids(e).end());
      for (ExprId& k : kids) k = without_dead(g, alive, k);
      return g->pool.alt(std::move(kids));
    }
  }
}

// Rules that `e` can call before any byte.
void left_calls(Grammar& g, const Facts& nulls, ExprId e, std::vector<std::uint32_t>* out) {
  const Node& n = g.pool[e];
  if (!n.has_call) return;
  switch (n.kind) {
    case Kind::kCat:
      left_calls(g, nulls, n.a, out);
      if (nullable(g, nulls, n.a)) left_calls(g, nulls, n.b, out);
      return;
    case Kind::kRepeat: left_calls(g, nulls, n.a, out); return;
    case Kind::kCall: out->push_back(n.a); return;
    default:
      for (const ExprId k : g.pool.kids(e)) left_calls(g, nulls, k, out);
  }
}

void check_calls(const Grammar& g, ExprId e) {
  const Node& n = g.pool[e];
  if (n.kind == Kind::kCall) {
    GC_CHECK(n.a < g.rules.size(), "rule must exist, got number ", n.a, " of ", g.rules.size());
  }
}

void refuse_left_recursion(Grammar& g) {
  const Facts nulls = fixpoint(g, nullable);
  std::vector<std::vector<std::uint32_t>> next(g.rules.size());
  for (std::size_t r = 0; r < g.rules.size(); ++r) left_calls(g, nulls, g.rules[r].body, &next[r]);
  std::vector<std::uint8_t> color(g.rules.size(), 0);  // 0 new, 1 on the path, 2 done
  for (std::uint32_t root = 0; root < g.rules.size(); ++root) {
    std::vector<std::pair<std::uint32_t, std::size_t>> path;
    if (color[root] == 0) path.push_back({root, 0});
    while (!path.empty()) {
      auto& [r, i] = path.back();
      color[r] = 1;
      if (i == next[r].size()) {
        color[r] = 2;
        path.pop_back();
        continue;
      }
      const std::uint32_t to = next[r][i++];
      GC_CHECK(color[to] != 1, "grammar must not be left-recursive, got rule '", g.rules[to].name,
               "' that can call itself before any text; write the repetition with * or right recursion");
      if (color[to] == 0) path.push_back({to, 0});
    }
  }
}

}  // namespace

void prepare(Grammar* g) {
  for (std::uint32_t e = 0; e < g->pool.size(); ++e) check_calls(*g, e);
  const Facts alive = fixpoint(*g, productive);
  for (Rule& rule : g->rules) rule.body = without_dead(g, alive, rule.body);
  g->start = without_dead(g, alive, g->start);
  const Node& n = g->pool[g->start];
  GC_CHECK(n.has_call ? g->start != ExprPool::kEmpty : !g->pool.is_empty(g->start),
           "grammar must match at least one text, got one that matches none");
  refuse_left_recursion(*g);
}

}  // namespace gramcore::grammar
