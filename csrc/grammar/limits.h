// Budgets of the grammar engine and the error that reports an exceeded one.
#pragma once

#include <cstdint>

#include "core/check.h"

namespace gramcore::grammar {

// A budget of states, memory, nesting or repetition was exceeded -> gramcore.grammar.GrammarTooComplex.
struct GrammarTooComplex : LimitError {
  using LimitError::LimitError;
};

struct Limits {
  std::uint32_t max_states = 2000000;    // matcher states, regular expressions and stacks, each
  std::uint64_t max_bytes = 1ull << 30;  // memory of one compiled grammar
  double max_seconds = 0;                // of one call that makes states; 0: no bound
  std::uint32_t max_closure = 200000;    // rule expansions between two bytes
  std::uint32_t max_emptiness = 20000;   // expressions looked at to decide whether a language is empty
};

constexpr std::uint32_t kMaxNesting = 1000;  // of parentheses, arrays, objects in a grammar text

}  // namespace gramcore::grammar
