// Token masks of automaton states.
//
// A thread (expression e, stack s) allows a token t when e can consume all of t, or when t = u v where e can end after
// u and v can follow once s is popped.  The first part and the places u in the trie depend on e alone: they are made
// once per expression ("lexeme") and shared by all states and stacks.  The tails v are walked from the popped state,
// in one trie of all tails when there are many.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/vocab.h"

namespace gramcore::grammar {

struct Lexeme {
  std::vector<std::int32_t> dense;    // tokens that stay inside: a mask, or
  std::vector<std::uint32_t> sparse;  // a list when they are few
  std::vector<std::uint32_t> exits;   // trie nodes, not the root, after which the expression can end
  Trie tails;                         // what follows the exits, when they are many
  bool merged = false;
  std::size_t bytes() const {
    return sizeof(Lexeme) + 4 * (dense.size() + sparse.size() + exits.size() + tails.tokens.size()) +
           sizeof(Trie::Node) * tails.nodes.size();
  }
};

// Lexemes of one vocabulary, shared by all grammars through the structure of their expressions.
class LexemeCache {
 public:
  std::shared_ptr<const Lexeme> find(const ExprPool::Hash& hash);
  void add(const ExprPool::Hash& hash, std::shared_ptr<const Lexeme> lexeme);

 private:
  struct Hasher {
    std::size_t operator()(const ExprPool::Hash& h) const { return static_cast<std::size_t>(h[0]); }
  };
  std::mutex mutex_;
  std::unordered_map<ExprPool::Hash, std::shared_ptr<const Lexeme>, Hasher> lexemes_;
  std::size_t bytes_ = 0;
};

class Masks {
 public:
  Masks(const Vocab* vocab, Automaton* automaton, std::size_t max_bytes)
      : vocab_(*vocab), automaton_(*automaton), max_bytes_(max_bytes) {}

  struct Mask {
    std::vector<std::int32_t> bits;  // words() words: bit t = token t may come next
    bool full;                       // every token may
  };
  // The reference is valid until the next call.
  const Mask& mask(StateId state);
  std::size_t bytes() const { return bytes_; }
  // The slow twin: one walk of the whole trie from the state.
  std::vector<std::int32_t> walked(StateId state);

 private:
  const Lexeme& lexeme(ExprId e);
  std::shared_ptr<Lexeme> make_lexeme(ExprId e);
  void add_tails(const Lexeme& lexeme, StateId next, std::int32_t* out);
  void walk(const Trie& trie, std::uint32_t first, std::uint32_t end, std::size_t depth, StateId state,
            std::int32_t* out);
  ExprId step(ExprId e, std::uint8_t b);
  void forget();

  const Vocab& vocab_;
  Automaton& automaton_;
  std::size_t max_bytes_, bytes_ = 0;
  std::vector<std::int32_t> mask_of_;  // per state: index into masks_ or -1
  std::vector<Mask> masks_;
  std::vector<std::int32_t> lexeme_of_;  // per expression: index into lexemes_ or -1
  std::vector<std::shared_ptr<const Lexeme>> lexemes_;
  std::vector<std::unique_ptr<ExprId[]>> rows_;  // per expression: derivatives by byte
  std::vector<StateId> at_;                      // states by depth, for walk()
};

}  // namespace gramcore::grammar
