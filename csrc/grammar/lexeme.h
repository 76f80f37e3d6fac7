// Lexemes: the tokens of a vocabulary that stay inside an expression, and the places where they can leave it.
//
// They depend on the expression alone, so all states, stacks and grammars of a vocabulary share them.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>
#include <vector>

#include "grammar/expr.h"
#include "grammar/tails.h"
#include "grammar/vocab.h"

namespace gramcore::grammar {

struct Lexeme {
  std::vector<std::int32_t> dense;     // tokens that stay inside: a mask, or
  std::vector<std::uint32_t> sparse;   // a list when they are few
  std::vector<std::uint32_t> exits;    // trie nodes, not the root, after which the expression can end; ascending
  std::size_t num_tails = 0;           // tokens that go on behind the exits
  std::unique_ptr<const Tails> tails;  // what follows the exits, when they are many
  std::size_t bytes() const {
    return sizeof(Lexeme) + 4 * (dense.size() + sparse.size() + exits.size()) + (tails ? tails->bytes() : 0);
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
  static constexpr std::uint32_t kMasks = 33;
};

// Which tokens may come next.
struct Mask {
  std::vector<std::int32_t> bits;  // words() words: bit t = token t may
  bool full;                       // every token may
};

// Lexemes of one vocabulary, shared by all grammars through the structure of their expressions, and masks, of which
// grammars have few different ones.
class LexemeCache {
 public:
  std::shared_ptr<const Lexeme> find(const ExprPool::Hash& hash);
  void add(const ExprPool::Hash& hash, std::shared_ptr<const Lexeme> lexeme);
  void grow(std::size_t bytes);  // of a lexeme's tails
  std::shared_ptr<const Pieces> find_pieces(const ExprPool::Hash& hash);
  void add_pieces(const ExprPool::Hash& hash, std::shared_ptr<const Pieces> pieces);
  // The mask with these bits; *grown is raised by its bytes if it is new.
  std::shared_ptr<const Mask> mask(const std::vector<std::int32_t>& bits, std::size_t num_tokens, std::size_t* grown);

 private:
  struct Hasher {
    std::size_t operator()(const ExprPool::Hash& h) const { return static_cast<std::size_t>(h[0]); }
  };
  std::mutex mutex_;
  std::unordered_map<ExprPool::Hash, std::shared_ptr<const Lexeme>, Hasher> lexemes_;
  std::unordered_map<ExprPool::Hash, std::shared_ptr<const Pieces>, Hasher> pieces_;
  std::unordered_multimap<std::uint64_t, std::shared_ptr<const Mask>> masks_;  // by a hash of the bits
  std::size_t bytes_ = 0, mask_bytes_ = 0;
};

// The lexemes of one grammar.
class Lexemes {
 public:
  Lexemes(const Vocab* vocab, ExprPool* pool) : vocab_(*vocab), pool_(*pool) {}

  // References stay valid until forget().
  const Lexeme& of(ExprId e);
  // Tokens u v, and places behind u v, where `first` ends behind u and `then` begins with v, neither empty.  What stays
  // inside `first` as a whole is left to of(first).
  const Lexeme& pair(ExprId first, ExprId then);
  const Trie& tails(const Lexeme& lexeme, std::uint8_t byte);
  // How the vocabulary is cut into pieces of x, found once per vocabulary.
  const Pieces& pieces(ExprId x);
  std::size_t bytes() const { return bytes_; }
  void forget();

 private:
  using Shared = std::shared_ptr<const Lexeme>;
  static constexpr unsigned kManyBytes = 40;  // that begin an expression, from which on walking it is long work
  // Token ranges (in trie order) in which all that stays in X* is allowed, for one X, while a lexeme is made.
  struct Ranges {
    const Pieces* pieces = nullptr;
    std::vector<std::pair<std::uint32_t, std::uint32_t>> list;
    std::size_t total = 0;
  };
  // An expression X{min,max} R whose X are known by their pieces, R beginning with none of X's bytes.
  struct Counted {
    const Pieces* pieces = nullptr;  // null: not of this form
    ExprId rest = 0;
    std::uint32_t min = 0, max = 0;
    std::vector<std::uint8_t> starts;  // bytes that begin R and follow some X^k in a token
  };
  // Derivatives of an expression that few bytes begin.
  struct Few {
    static constexpr unsigned kMost = 4, kUnknown = 0xFE, kMany = 0xFF;
    std::uint8_t count = kUnknown;
    std::array<std::uint8_t, kMost> bytes;
    std::array<ExprId, kMost> targets;
  };
  const Few& few(ExprId e);
  // What cover() asks at every node: more than this look-up is needed at few.
  enum Trait : std::uint8_t { kKnown = 1, kNullable = 2, kCounts = 4, kFew = 8, kLoops = 16 };
  std::uint8_t traits(ExprId e) { return e < traits_.size() && traits_[e] != 0 ? traits_[e] : find_traits(e); }
  std::uint8_t find_traits(ExprId e);
  template <class Cover>
  Shared shared(const ExprPool::Hash& hash, Cover cover);
  void finish(Lexeme* made);
  void take(std::uint32_t first, std::uint32_t end);
  bool calm(ExprId e, unsigned bytes);
  bool calm_below(ExprId e, std::uint32_t node);
  void descend(ExprId e, std::uint32_t node, Lexeme* made);
  bool enter(ExprId e, std::uint32_t node, Lexeme* made);
  void cover(std::uint32_t first, std::uint32_t end, Lexeme* made);
  std::uint64_t loops(ExprId e);
  void take_below(ExprId e, std::uint32_t node, Lexeme* made);
  void cover_behind(const Lexeme& first, ExprId then, Lexeme* made);
  std::vector<ExprId> alternatives(ExprId e);
  ByteSet first_bytes(ExprId e);
  void unite(const Lexeme& part, Lexeme* made);
  ExprId widened(ExprId e);
  ByteSet differing(ExprId e, ExprId wide);
  bool tangled(ExprId e);
  bool narrow_down(ExprId e, ExprId wide, const Lexeme& from, Lexeme* made);
  ExprId repeated_letter(ExprId e);
  bool spelled_by(ExprId e, ExprId x);
  bool ends_behind(ExprId e, ExprId x, ByteSet* others);
  bool stays(ExprId e, ExprId x);
  bool plainly_outlasts(ExprId e, ExprId x, ByteSet* others);
  bool outlasts(ExprId e, ExprId x, ByteSet* others);
  bool cover_letters(ExprId e, Lexeme* made);
  bool cover_pieces(ExprId e, std::uint32_t node, Lexeme* made);
  void add_ranges(Lexeme* made);
  const Counted& counted(ExprId e);
  Counted make_counted(ExprId e);
  std::shared_ptr<const Pieces> make_pieces(ExprId x);
  bool prefix_free(ExprId x);
  ExprId step(ExprId e, std::uint8_t b);

  const Vocab& vocab_;
  ExprPool& pool_;
  std::size_t bytes_ = 0;
  std::vector<Shared> of_;                           // per expression, null: not made yet
  std::unordered_map<std::uint64_t, Shared> pairs_;  // by both expressions
  static constexpr std::size_t kRowsPerBlock = 8;
  std::vector<ExprId*> rows_;  // per expression: derivatives by byte, null: none yet
  std::vector<std::unique_ptr<ExprId[]>> row_blocks_;
  std::size_t num_rows_ = 0;
  std::vector<Few> few_;                                       // per expression
  std::vector<std::uint64_t> loops_;                           // per expression, 0: not known yet
  std::vector<std::uint8_t> traits_;                           // per expression, 0: not known yet
  std::vector<ExprId> at_;                                     // expressions by depth, for cover()
  std::vector<std::pair<std::uint32_t, std::uint32_t>> runs_;  // token ranges of the lexeme being made, in trie order
  static constexpr std::uint8_t kNever = 0xFF;
  std::vector<std::uint8_t> calm_, restless_;  // per expression: bytes for which calm() is known to hold, and not to
  unsigned calm_tries_ = 0;                    // for the lexeme being made
  Ranges ranges_;                              // of the lexeme being made
  std::unordered_map<ExprId, std::shared_ptr<const Pieces>> pieces_of_;
  std::vector<std::int32_t> counted_at_;  // per expression: index into counted_ or -1
  std::vector<Counted> counted_;
};

// Finds the pieces of the characters of JSON strings, which nearly every schema needs.
void cut_json_letters(const Vocab& vocab);

}  // namespace gramcore::grammar
