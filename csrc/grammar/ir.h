// The one representation all front ends produce: rules whose bodies are expressions over bytes and rule calls.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "grammar/expr.h"
#include "grammar/key_set.h"
#include "grammar/token_set.h"
#include "grammar/unique_set.h"

namespace gramcore::grammar {

struct Rule {
  std::string name;  // for messages
  ExprId body = ExprPool::kEmpty;
};

struct Grammar {
  ExprPool pool;
  std::vector<Rule> rules;
  std::vector<KeySet> key_sets;
  std::vector<UniqueSet> unique_sets;
  std::vector<TokenSet> token_sets;
  ExprId start = ExprPool::kEmpty;

  std::uint32_t add_rule(std::string name, ExprId body = ExprPool::kEmpty) {
    rules.push_back({std::move(name), body});
    return static_cast<std::uint32_t>(rules.size() - 1);
  }
};

// Makes a grammar fit for the automaton: removes calls of rules that can never finish, checks that every call names
// a rule, and rewrites left recursion (a rule that can call itself before any byte).
// Throws InvalidArgument: the grammar matches nothing.  GrammarTooComplex: too many rules.
void prepare(Grammar* grammar);

// Whether the grammar matches no text at all.
bool matches_nothing(Grammar grammar);

}  // namespace gramcore::grammar
