// Token masks of automaton states.
//
// A thread (expression e, stack s) allows a token t when e can consume all of t, or when t = u v where e can end after
// u and v can follow once s is popped.  The first part and the places u in the trie are e's lexeme.  The tails v are
// looked up in the lexemes of the pairs (e, what follows) where there are many, and else walked from the popped state.
#pragma once

#include <cstdint>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/lexeme.h"

namespace gramcore::grammar {

class Masks {
 public:
  // Throws InvalidArgument: the grammar names tokens that the vocabulary has not.
  Masks(const Vocab* vocab, Automaton* automaton, std::size_t max_bytes);

  // Per token set of the grammar, whether it has the token.
  const std::vector<Bitset>& token_sets() const { return token_sets_; }
  std::vector<std::uint8_t> sets_with(std::size_t token) const;

  // The reference is valid until the next call.
  const Mask& mask(StateId state);
  std::size_t bytes() const { return bytes_ + lexemes_.bytes(); }
  // The slow twin: one walk of the whole trie from the state.
  std::vector<std::int32_t> walked(StateId state);

 private:
  void add_thread(const Thread& thread, std::int32_t* out);
  void add_trace(const Thread& thread, std::int32_t* out);
  void add_tails(const Lexeme& lexeme, StateId next, std::int32_t* out);
  void walk(const Trie& trie, std::uint32_t first, std::uint32_t end, std::size_t depth, StateId state,
            std::int32_t* out);
  void add_special(StateId state, std::int32_t* out);
  void forget();

  const Vocab& vocab_;
  Automaton& automaton_;
  Lexemes lexemes_;
  std::vector<Bitset> token_sets_;  // of the grammar
  std::size_t max_bytes_, bytes_ = 0;
  std::vector<std::int32_t> mask_of_;  // per state: index into masks_ or -1
  std::vector<std::shared_ptr<const Mask>> masks_;
  std::vector<std::int32_t> bits_;  // of the mask being made
  std::vector<StateId> at_;         // states by depth, for walk()
};

}  // namespace gramcore::grammar
