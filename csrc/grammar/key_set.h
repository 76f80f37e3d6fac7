// Objects whose keys come in any order.  Which keys were written is a bit set; what may follow each set is made when a
// text gets there, so n keys cost n and not 2^n.
//
//   K(used, c) = close, if all required keys are used and c is large enough
//              | comma member_i K(used + i, c + 1), for each key i that is not used
//              | comma open K(used, c + 1)                                            (no comma before the first)
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "grammar/expr.h"

namespace gramcore::grammar {

struct Grammar;

struct KeySet {
  std::vector<ExprId> members;  // key, colon and value; kEmpty: never
  std::vector<bool> required;
  ExprId open = ExprPool::kEmpty;  // any other member
  ExprId comma = ExprPool::kEpsilon, close = ExprPool::kEpsilon;
  std::uint32_t least = 0, most = kUnbounded;  // number of members

  struct State {
    std::vector<std::uint64_t> used;
    std::uint32_t count;  // members written, counted as far as it matters
    bool operator<(const State& o) const { return count != o.count ? count < o.count : used < o.used; }
  };
  std::vector<State> states;
  std::map<State, std::uint32_t> numbers;
  std::vector<ExprId> bodies;  // per state; kEmpty: not made yet

  std::uint32_t number_of(State state);
};

// Adds the set to the grammar; the expression of its first state.
ExprId add_key_set(Grammar* g, KeySet set);
// K of a state of a set.
ExprId key_set_body(Grammar* g, std::uint32_t set, std::uint32_t state);

}  // namespace gramcore::grammar
