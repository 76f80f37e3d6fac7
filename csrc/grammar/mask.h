// Token masks of automaton states.
//
// A thread (expression e, stack s) allows a token t when e can consume all of t, or when t = u v where e can end after
// u and v can follow once s is popped.  The first part and the places u in the trie depend on e alone: they are made
// once per expression ("lexeme") and shared by all states and stacks.  The tails v are walked from the popped state,
// in one trie of all tails when there are many.
#pragma once

#include <array>
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

// How the tokens of a vocabulary are cut into pieces of one expression X, such as one character of a JSON string: what
// walks through X* have in common, whatever their bounds and whatever follows.  X is prefix-free, so the cut is unique.
struct Pieces {
  bool usable = false;                  // false: X is not prefix-free or matches the empty text
  std::vector<std::uint16_t> boundary;  // per trie node: 1 + k if its string is X^k, else 0
  std::vector<std::uint16_t> inside;    // per token in trie order: 1 + pieces begun if it stays in X*, else 0
  struct Outside {
    std::uint32_t node;   // behind X^k with a byte that begins no X
    std::uint32_t count;  // k
  };
  std::array<std::vector<Outside>, 256> outside;  // by that byte, nodes ascending
  std::vector<std::vector<std::int32_t>> masks;   // [k]: tokens that begin at most k pieces, k < kMasks
  std::vector<std::int32_t> all;                  // without a bound
  std::uint32_t most = 0;                         // pieces that a token begins at most
  ByteSet first;                                  // bytes that begin an X
  static constexpr std::uint32_t kMasks = 33;
};

// Lexemes of one vocabulary, shared by all grammars through the structure of their expressions.
class LexemeCache {
 public:
  std::shared_ptr<const Lexeme> find(const ExprPool::Hash& hash);
  void add(const ExprPool::Hash& hash, std::shared_ptr<const Lexeme> lexeme);
  std::shared_ptr<const Pieces> find_pieces(const ExprPool::Hash& hash);
  void add_pieces(const ExprPool::Hash& hash, std::shared_ptr<const Pieces> pieces);

 private:
  struct Hasher {
    std::size_t operator()(const ExprPool::Hash& h) const { return static_cast<std::size_t>(h[0]); }
  };
  std::mutex mutex_;
  std::unordered_map<ExprPool::Hash, std::shared_ptr<const Lexeme>, Hasher> lexemes_;
  std::unordered_map<ExprPool::Hash, std::shared_ptr<const Pieces>, Hasher> pieces_;
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
  // Token ranges (in trie order) in which all that stays in X* is allowed, for one X, while a lexeme is made.
  struct Ranges {
    const Pieces* pieces = nullptr;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> list;
    std::size_t total = 0;
  };
  void add_ranges(Lexeme* made);
  void cover(std::uint32_t first, std::uint32_t end, Lexeme* made);
  // An expression X{min,max} R whose X are known by their pieces, R beginning with none of X's bytes.
  struct Counted {
    const Pieces* pieces = nullptr;  // null: not of this form
    ExprId rest = 0;
    std::uint32_t min = 0, max = 0;
    std::vector<std::uint8_t> starts;  // bytes that begin R and follow some X^k in a token
  };
  const Counted& counted(ExprId e);
  Counted make_counted(ExprId e);
  bool cover_pieces(ExprId e, std::uint32_t node, Lexeme* made);
  const Pieces& pieces(ExprId x);
  std::shared_ptr<const Pieces> make_pieces(ExprId x);
  bool prefix_free(ExprId x);
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
  std::vector<ExprId> at_expr_;                  // expressions by depth, for cover()
  Ranges ranges_;                                // of the lexeme being made
  std::unordered_map<ExprId, std::shared_ptr<const Pieces>> pieces_of_;
  std::vector<std::int32_t> counted_at_;  // per expression: index into counted_ or -1
  std::vector<Counted> counted_;
};

}  // namespace gramcore::grammar
