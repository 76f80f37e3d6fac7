// Arrays of different scalar items.  What was written is known by its value, so that no spelling of it comes again.
//
//   U(written) = close, if they are enough  |  comma I(written)         (no comma before the first item)
//
// where I is a trace: what is left of an item that is none of `written`, with its text so far.  Where the item can end,
// U of `written` and its value follows.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "grammar/expr.h"

namespace gramcore::grammar {

struct Grammar;

struct UniqueSet {
  ExprId item = ExprPool::kEmpty;  // the texts of one item, scalars of JSON; without calls
  ExprId comma = ExprPool::kEpsilon, close = ExprPool::kEpsilon;
  std::uint32_t least = 0, most = kUnbounded;  // number of items
  std::uint32_t places = 40;                   // digits of a number with an exponent, before and behind the point

  using State = std::vector<std::uint32_t>;  // numbers of the values written, ascending
  std::unordered_map<std::string, std::uint32_t> values;
  std::vector<ExprId> spellings;  // of each value
  std::vector<State> states;
  std::map<State, std::uint32_t> numbers;
  std::vector<ExprId> bodies;  // per state; kEmpty: not made yet

  std::uint32_t number_of(State state);
};

// Adds the set to the grammar; the expression of its first state.
ExprId add_unique_set(Grammar* g, UniqueSet set);
// U of a state of a set.
ExprId unique_set_body(Grammar* g, std::uint32_t set, std::uint32_t state);
// U behind an item with this text; kEmpty where its value was written before.
ExprId behind_item(Grammar* g, std::uint32_t set, std::uint32_t state, std::string_view text);
// Whether the items have so many different values.
bool has_values(ExprPool* pool, const UniqueSet& set, std::uint32_t count);
// All spellings in JSON of the scalar that this text spells; numbers with an exponent have so many places at most.
ExprId spellings(ExprPool* pool, std::string_view text, std::uint32_t places);
// The same for all spellings of a scalar, and for no other text.
std::string value_of(std::string_view text);

}  // namespace gramcore::grammar
