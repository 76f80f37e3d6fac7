// The tokens that a state of an automaton accepts, found by walking a trie of tokens.
#pragma once

#include <vector>

#include "grammar/automaton.h"
#include "grammar/vocab.h"

namespace gramcore::grammar {

// found(token, state behind it) for the tokens of trie nodes [first, end) that `automaton` accepts, where the parents
// of these nodes, at `depth`, stand in `state`.  at: scratch, one more than the longest token.
template <class Found>
void walk_trie(Automaton* automaton, const Trie& trie, std::uint32_t first, std::uint32_t end, std::size_t depth,
               StateId state, std::vector<StateId>* at, Found&& found) {
  (*at)[depth] = state;
  for (std::uint32_t i = first; i < end;) {
    const Trie::Node& node = trie.nodes[i];
    const StateId next = automaton->step((*at)[node.depth - 1], node.byte);
    if (next == Automaton::kDead) {
      i = node.end;
      continue;
    }
    (*at)[node.depth] = next;
    for (std::uint32_t t = node.first_token; t < trie.nodes[i + 1].first_token; ++t) found(trie.tokens[t], next);
    ++i;
  }
}

}  // namespace gramcore::grammar
