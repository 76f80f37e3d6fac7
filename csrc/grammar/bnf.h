// Rule grammars in two notations, into the common representation.
//
// GBNF (llama.cpp): name ::= "text" [class] . (group) | * + ? {m} {m,} {m,n}, comments from #; the start rule is root.
// EBNF (W3C): the same operators and also 'text', #xHH characters, A - B (texts of A that B does not match; neither may
// call a rule), /* comments */ and an optional ; behind a rule; the start rule is root or else the first one.
// Rules may be left-recursive; prepare() rewrites that.
#pragma once

#include <string_view>

#include "grammar/ir.h"

namespace gramcore::grammar {

enum class BnfSyntax { kGbnf, kEbnf };

// Throws InvalidArgument with line, column, what was expected and what was found.
Grammar parse_bnf(std::string_view text, BnfSyntax syntax);

}  // namespace gramcore::grammar
