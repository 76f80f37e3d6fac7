// Regular expressions in the common syntax of Python `re` and ECMAScript, over Unicode text, as byte expressions.
//
// Literals, escapes, classes, groups, alternation, greedy and lazy repetition (the same language), anchors ^ $ at the
// ends.  \d \w \s mean ASCII sets.  With `boolean_operators`, `&` intersects and a prefix `~` complements.
// Look-around is resolved by intersection and complement (look_around.h says where it may stand).
// Back references, \b and inline flags are refused.
#pragma once

#include <string_view>

#include "grammar/expr.h"

namespace gramcore::grammar {

class JsonText;

struct RegexOptions {
  bool search = false;             // match anywhere (JSON Schema `pattern`) instead of the whole text
  bool boolean_operators = false;  // & and ~
  bool dot_all = false;            // . matches a line feed too
  bool ignore_case = false;        // of ASCII letters
  bool look_around = true;         // the expression stands alone: nothing is around its texts
  JsonText* json = nullptr;        // spell every code point as inside a JSON string
};

// Throws InvalidArgument with line and column where the text is not such an expression.
ExprId parse_regex(std::string_view text, const RegexOptions& options, ExprPool* pool);

// Any sequence of code points.
ExprId any_text(ExprPool* pool);

}  // namespace gramcore::grammar
