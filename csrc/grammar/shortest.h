// The shortest way to end a text, in tokens: what a budget of tokens needs to know of every state.
//
// The shortest text of a state (the least in dictionary order among those of fewest bytes) is cut into tokens by the
// longest match.  Dictionary order makes the choice consistent: behind a part of the text, the rest is the choice.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/vocab.h"

namespace gramcore::grammar {

class Shortest {
 public:
  static constexpr std::uint32_t kNever = 0xFFFFFFFFu;

  // token_sets: what the grammar's token sets hold in the vocabulary.
  Shortest(const Vocab* vocab, Automaton* automaton, const std::vector<Bitset>& token_sets);

  // Tokens that end the text from this state, the stop token among them; kNever: no tokens do or they are too many.
  std::uint32_t distance(StateId state) { return plan(state).distance; }
  // The first of them; kNever where the stop token is the only one.
  std::uint32_t first_token(StateId state) { return plan(state).first; }
  // For every token, the distance behind it; kNever where it may not come.  next(token): the state behind a token that
  // no trie walk finds, kDead for most.
  template <class Next>
  const std::vector<std::uint32_t>& distances(StateId state, Next next);

 private:
  // Bytes, and 256 + s for one token of set s.
  using Text = std::u32string;
  struct Found {
    bool any = false;
    Text text;
  };
  struct Plan {
    std::uint32_t distance = kNever, first = kNever;
    bool known = false;
  };

  static bool better(const Found& a, const Found& b);
  static Found joined(const Found& a, const Found& b);
  Found of(ExprId e);
  Found searched(ExprId e);
  Found of_keys(std::uint32_t set, std::uint32_t state);
  Found of_unique(const Node& n);
  Found of_stack(StackId stack);
  void find_rules();
  const Plan& plan(StateId state);
  void walk(StateId state, std::vector<std::uint32_t>* out);

  const Vocab& vocab_;
  Automaton& automaton_;
  std::vector<std::uint32_t> first_of_set_;  // its least token
  std::vector<Found> rules_;
  std::unordered_map<ExprId, Found> exprs_;
  std::unordered_map<StackId, Found> stacks_;
  std::vector<Plan> plans_;
  std::unordered_map<StateId, std::vector<std::uint32_t>> distances_;
  std::vector<StateId> at_;
};

template <class Next>
const std::vector<std::uint32_t>& Shortest::distances(StateId state, Next next) {
  constexpr std::size_t kMost = 128;  // states remembered
  const auto known = distances_.find(state);
  if (known != distances_.end()) return known->second;
  if (distances_.size() >= kMost) distances_.clear();
  std::vector<std::uint32_t> out(vocab_.size(), kNever);
  walk(state, &out);
  if (automaton_.names_tokens(state)) {
    for (std::size_t t = 0; t < out.size(); ++t) {
      const StateId behind = next(t);
      if (behind != Automaton::kDead) out[t] = distance(behind);
    }
  }
  return distances_[state] = std::move(out);
}

}  // namespace gramcore::grammar
