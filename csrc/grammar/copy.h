// Grammars put together from parts, and their form in files.
#pragma once

#include <string>
#include <string_view>

#include "grammar/ir.h"

namespace gramcore::grammar {

// Adds the rules and expressions of `part` to `g`; returns the expression of its start.
ExprId include(Grammar* g, const Grammar& part);

// A hash of what the grammar matches, as written: equal for grammars made in the same way.
ExprPool::Hash structure_of(const Grammar& g);

// Versioned bytes of a grammar; from_bytes checks them as hostile (FormatError, GrammarTooComplex).
std::string to_bytes(const Grammar& g);
Grammar from_bytes(std::string_view data);

}  // namespace gramcore::grammar
