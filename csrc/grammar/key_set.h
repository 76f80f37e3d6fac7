// Objects whose keys come in any order.  Which keys were written is a bit set; what may follow each set is made when a
// text gets there, so n keys cost n and not 2^n.
//
//   K(used, c) = close, if all required keys are used and c is large enough
//              | comma member_i K(used + i, c + 1), for each key i that is not used
//              | comma open K(used, c + 1)                                            (no comma before the first)
//
// A member can also set marks, of which each is set exactly once before the end: "some member satisfies ...".
#pragma once

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "grammar/expr.h"

namespace gramcore::grammar {

struct Grammar;

struct KeySet {
  static constexpr std::uint32_t kOpen = 0xFFFFFFFFu;
  static constexpr std::uint32_t kMaxMarks = 5;

  struct Member {
    ExprId e;             // key, colon and value; kEmpty: never
    std::uint32_t key;    // its number; kOpen: any number of times
    std::uint32_t marks;  // bits that it sets, of which none is set before
  };
  std::vector<Member> members;
  std::vector<bool> required;  // per key
  std::uint32_t num_marks = 0;
  ExprId comma = ExprPool::kEpsilon, close = ExprPool::kEpsilon;
  std::uint32_t least = 0, most = kUnbounded;  // number of members

  struct State {
    std::vector<std::uint64_t> used;
    std::uint32_t marks;
    std::uint32_t count;  // members written, counted as far as it matters
    bool operator<(const State& o) const {
      return count != o.count ? count < o.count : marks != o.marks ? marks < o.marks : used < o.used;
    }
  };
  std::vector<State> states;
  std::map<State, std::uint32_t> numbers;
  std::vector<ExprId> bodies;  // per state; kEmpty: not made yet

  State first() const { return {std::vector<std::uint64_t>(required.size() / 64 + 1, 0), 0, 0}; }
  std::uint32_t number_of(State state);
  // Whether a member may come next as far as keys and marks go, and the state behind it (its count is left).
  static bool fits(const State& state, const Member& member);
  static State after(State state, const Member& member);
  // Members that must still follow a state so that keys and marks are complete; kUnbounded: impossible.  alive: per
  // member, whether it matches something.
  std::uint32_t need(const State& state, const std::vector<bool>& alive) const;
  // Whether some whole text exists.
  bool possible(const std::vector<bool>& alive) const;
};

// Adds the set to the grammar; the expression of its first state.
ExprId add_key_set(Grammar* g, KeySet set);
// K of a state of a set.
ExprId key_set_body(Grammar* g, std::uint32_t set, std::uint32_t state);

}  // namespace gramcore::grammar
