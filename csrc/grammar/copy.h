// Grammars put together from parts, and their form in files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "grammar/ir.h"

namespace gramcore::grammar {

// Adds the rules and expressions of `part` to `g`; returns the expression of its start.
ExprId include(Grammar* g, const Grammar& part);

// A hash of what the grammar matches, as written: equal for grammars made in the same way.
ExprPool::Hash structure_of(const Grammar& g);

// The expressions that `g` uses, each after its parts; and the parts of one.
std::vector<ExprId> in_order(const Grammar& g);
std::vector<ExprId> parts_of(const Grammar& g, ExprId e);

// Makes the expression of kind `n` in `pool`; parts are given in the new pool.
ExprId make_expr(ExprPool* pool, const Node& n, const ByteSet& set, std::vector<ExprId> parts, std::uint32_t rule,
                 std::string_view text);

// Versioned bytes of a grammar; from_bytes checks them as hostile (FormatError, GrammarTooComplex).
std::string to_bytes(const Grammar& g);
Grammar from_bytes(std::string_view data);

}  // namespace gramcore::grammar
