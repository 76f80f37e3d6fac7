// Facts about the rules of a grammar, found by iteration to a fixed point.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/ir.h"

namespace gramcore::grammar {

using Facts = std::vector<std::uint8_t>;  // one flag per rule

// The smallest set of rules with test(g, set, body) for each.  Rules are gone through to and fro, since front ends
// write some parts before and some behind what is made of them.
template <class Test>
Facts fixpoint(Grammar& g, Test test) {
  Facts facts(g.rules.size(), 0);
  const std::size_t n = g.rules.size();
  bool forth = false;
  for (bool changed = true; changed;) {
    changed = false;
    forth = !forth;
    for (std::size_t i = 0; i < n; ++i) {
      const std::size_t r = forth ? i : n - 1 - i;
      if (!facts[r] && test(g, facts, g.rules[r].body)) facts[r] = changed = true;
    }
  }
  return facts;
}

// Whether `e` matches the empty text, given which rules do.
bool nullable(Grammar& g, const Facts& rules, ExprId e);

// Rules that `e` can call before any byte.
void left_calls(Grammar& g, const Facts& nulls, ExprId e, std::vector<std::uint32_t>* out);

// Rewrites rules that can call themselves before any byte into ones that cannot; the texts stay the same.
// Throws GrammarTooComplex when that would take too many rules.
void remove_left_recursion(Grammar* g);

}  // namespace gramcore::grammar
