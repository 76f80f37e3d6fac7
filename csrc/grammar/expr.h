// Hash-consed regular expressions over bytes, with calls of grammar rules as extra leaves.
//
// Derivatives (Brzozowski 1964) are taken by pieces: the pieces of e are pairs (byte set S, expression d) with
// disjoint S such that the derivative of e by every byte of S is d; bytes in no piece have the empty derivative.
// Bounded repetition is one node whose bounds count down, so r{1,1000000} costs what r costs.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/span.h"
#include "grammar/intern.h"
#include "grammar/limits.h"

namespace gramcore::grammar {

using ExprId = std::uint32_t;

struct ByteSet {
  std::array<std::uint64_t, 4> words{};

  static ByteSet range(unsigned lo, unsigned hi) {
    ByteSet s;
    for (unsigned b = lo; b <= hi; ++b) s.add(static_cast<std::uint8_t>(b));
    return s;
  }
  static ByteSet all() { return ~ByteSet{}; }
  bool has(std::uint8_t b) const { return (words[b >> 6] >> (b & 63)) & 1u; }
  void add(std::uint8_t b) { words[b >> 6] |= 1ull << (b & 63); }
  bool empty() const { return (words[0] | words[1] | words[2] | words[3]) == 0; }
  unsigned size() const {
    unsigned n = 0;
    for (const auto w : words) n += static_cast<unsigned>(__builtin_popcountll(w));
    return n;
  }
  bool operator==(const ByteSet& o) const { return words == o.words; }
  ByteSet operator|(const ByteSet& o) const {
    return {{words[0] | o.words[0], words[1] | o.words[1], words[2] | o.words[2], words[3] | o.words[3]}};
  }
  ByteSet operator&(const ByteSet& o) const {
    return {{words[0] & o.words[0], words[1] & o.words[1], words[2] & o.words[2], words[3] & o.words[3]}};
  }
  ByteSet operator~() const { return {{~words[0], ~words[1], ~words[2], ~words[3]}}; }
};

// A vector whose copies have room to grow: what is copied here is added to.
template <class T>
struct Roomy : std::vector<T> {
  Roomy() = default;
  Roomy(Roomy&&) noexcept = default;
  Roomy& operator=(Roomy&&) noexcept = default;
  Roomy(const Roomy& other) : std::vector<T>() {
    this->reserve(other.size() + other.size() / 4 + 16);
    this->insert(this->end(), other.begin(), other.end());
  }
  Roomy& operator=(const Roomy& other) { return *this = Roomy(other); }
};

enum class Kind : std::uint8_t {
  kEmpty,
  kEpsilon,
  kClass,
  kCat,
  kAlt,
  kAnd,
  kNot,
  kRepeat,
  kCall,
  kTrie,
  kKeys,
  kMultiple,
  kToken,
  kText,
  kUnique,
  kTrace
};

class Catalogue;

struct Node {
  Kind kind;
  bool nullable;     // meaningful without calls only
  bool has_call;     // a rule call occurs inside
  bool has_boolean;  // an intersection or complement occurs inside: emptiness needs a search
  std::uint32_t a;   // class: set; cat, not, repeat: operand; alt, and: first kid; call: rule; trie: catalogue; keys:
                     // key set; multiple: divisor; token: token set; text: place of its bytes; unique, trace: set
  std::uint32_t b;   // cat: second operand; alt, and: number of kids; trie: node; keys: state; multiple: remainder;
                     // text: number of bytes, at least two
  std::uint32_t min, max;   // repeat; multiple: phase, and digits that count behind the point
  std::uint32_t least = 0;  // no text has fewer bytes, rule calls counted as none
};

struct Piece {
  ByteSet set;
  ExprId target;  // never kEmpty
};

// Lists of pieces, which are never changed: copies of a store share what is there and add to blocks of their own.
class PieceStore {
 public:
  PieceStore() = default;
  PieceStore(PieceStore&&) noexcept = default;
  PieceStore& operator=(PieceStore&&) noexcept = default;
  PieceStore(const PieceStore& other) : blocks_(other.blocks_), used_(kBlock), size_(other.size_) {}
  PieceStore& operator=(const PieceStore& other) { return *this = PieceStore(other); }

  Span<const Piece> add(Span<const Piece> list);
  std::size_t bytes() const { return size_ * sizeof(Piece); }

 private:
  static constexpr std::size_t kBlock = 64;  // pieces; longer lists have a block of their own
  std::vector<std::shared_ptr<Piece[]>> blocks_;
  std::size_t used_ = kBlock;  // of the last block
  std::size_t size_ = 0;
};

constexpr std::uint32_t kUnbounded = 0xFFFFFFFFu;

class ExprPool {
 public:
  static constexpr ExprId kEmpty = 0, kEpsilon = 1;

  explicit ExprPool(Limits limits = {});
  // Makes room for so many more expressions.
  void reserve(std::size_t more);

  ExprId byte_class(const ByteSet& set);
  ExprId byte(std::uint8_t b) {
    if (bytes_[b] == kEmpty) bytes_[b] = byte_class(ByteSet::range(b, b));
    return bytes_[b];
  }
  // The bytes as one expression, not a part of this pool's own texts.
  ExprId literal(std::string_view bytes);
  ExprId cat(ExprId a, ExprId b);
  ExprId cat(std::initializer_list<ExprId> parts);
  ExprId alt(std::vector<ExprId> kids);
  ExprId conj(std::vector<ExprId> kids);  // intersection; InvalidArgument if a kid calls a rule
  ExprId complement(ExprId a);            // InvalidArgument if it calls a rule
  ExprId repeat(ExprId a, std::uint32_t min, std::uint32_t max);
  ExprId star(ExprId a) { return repeat(a, 0, kUnbounded); }
  ExprId optional(ExprId a) { return alt({a, kEpsilon}); }
  ExprId call(std::uint32_t rule);
  // One token of a set of the grammar, which no bytes spell.
  ExprId token(std::uint32_t set);
  // What may follow in an object whose keys come in any order; see key_set.h.
  ExprId keys(std::uint32_t set, std::uint32_t state);
  // What may follow in an array of different items, and an item of it under way; see unique_set.h.
  ExprId unique(std::uint32_t set, std::uint32_t state);
  ExprId trace(std::uint32_t set, std::uint32_t state, std::uint32_t trail, ExprId rest);
  // Texts of items under way share what they begin with: each is another one and a byte.
  static constexpr std::uint32_t kNoTrail = 0;
  std::uint32_t longer_trail(std::uint32_t trail, std::uint8_t byte);
  std::string trail_text(std::uint32_t trail) const;
  ExprId anything() { return complement(kEmpty); }
  // Decimal digits of a number >= 0 that is a multiple of divisor / 10^places: no leading zeros, and a point with
  // digits behind it if `point`.  1 <= divisor <= kMaxDivisor, places <= 400.
  static constexpr std::uint32_t kMaxDivisor = 400000000;
  ExprId multiple(std::uint32_t divisor, std::uint32_t places, bool point);
  static bool is_multiple(const Node& n);  // whether its fields are in range
  // The same behind some digits, from the fields of a node; kEmpty where no multiple can follow.
  ExprId multiple_at(std::uint32_t divisor, std::uint32_t remainder, std::uint32_t phase, std::uint32_t places);
  // One of the strings of a catalogue, which is shared and not copied.
  ExprId one_of(std::shared_ptr<const Catalogue> catalogue, std::uint32_t node = 0);
  const std::shared_ptr<const Catalogue>& catalogue_of(ExprId e) const { return catalogues_[nodes_[e].a]; }
  // One of the strings, as a trie with shared prefixes.
  ExprId choice(std::vector<std::string_view> strings);

  const Node& operator[](ExprId e) const { return nodes_[e]; }
  const ByteSet& set_of(ExprId e) const { return sets_[nodes_[e].a]; }
  std::string_view text_of(ExprId e) const { return {texts_.data() + nodes_[e].a, nodes_[e].b}; }
  Span<const ExprId> kids(ExprId e) const { return {kids_.data() + nodes_[e].a, nodes_[e].b}; }
  std::uint32_t size() const { return static_cast<std::uint32_t>(nodes_.size()); }

  // Pieces of a call-free expression; they stay where they are.
  Span<const Piece> pieces(ExprId e);
  // The derivative by b; `same` is narrowed to bytes that have the same derivative.
  ExprId derivative(ExprId e, std::uint8_t b, ByteSet* same);
  // The byte that a text, or a concatenation with one at its head, begins with; -1: `e` is neither.
  int first_byte(ExprId e) const {
    const Node& n = nodes_[e];
    const Node& head = n.kind == Kind::kCat ? nodes_[n.a] : n;
    return head.kind == Kind::kText ? static_cast<std::uint8_t>(texts_[head.a]) : -1;
  }
  // The text that `e` begins with in this way, or an empty one; and the derivative by so many of its bytes.
  std::string_view first_text(ExprId e) const {
    const Node& n = nodes_[e];
    const ExprId head = n.kind == Kind::kCat ? n.a : e;
    return nodes_[head].kind == Kind::kText ? text_of(head) : std::string_view{};
  }
  ExprId behind_text(ExprId e, std::size_t bytes = 1);
  // Whether a call-free expression matches nothing at all.
  bool is_empty(ExprId e);

  // A hash of the expression's structure, the same in every pool (128 bits: taken for identity).
  using Hash = std::array<std::uint64_t, 2>;
  const Hash& hash(ExprId e) const { return hashes_[e]; }

  std::size_t bytes() const;

 private:
  ExprId intern(Node node, Span<const ExprId> kids);
  ExprId derivative_of_parts(ExprId e, std::uint8_t b, ByteSet* same);
  Hash hash_of(const Node& node, Span<const ExprId> kids) const;
  static std::uint64_t hash_of(std::string_view text);
  std::uint32_t least_bytes(const Node& node, Span<const ExprId> kids) const;
  ExprId text_at(std::size_t at, std::size_t size);
  ExprId link(ExprId a, ExprId b);
  ExprId common_letter(const std::vector<ExprId>& kids) const;
  ExprId nary(Kind kind, std::vector<ExprId> kids);
  std::vector<ExprId> flattened(Kind kind, std::vector<ExprId> kids) const;
  ExprId choice_range(const std::vector<std::string_view>& strings, std::size_t first, std::size_t last,
                      std::size_t depth);
  std::vector<Piece> compute_pieces(ExprId e);
  std::vector<Piece> conj_pieces(ExprId e);
  std::vector<Piece> multiple_pieces(const Node& n);
  void add_piece(std::vector<std::pair<ByteSet, std::vector<ExprId>>>* into, ByteSet set, ExprId target) const;
  std::vector<Piece> merge(const std::vector<Span<const Piece>>& lists);

  Limits limits_;
  std::vector<std::shared_ptr<const Catalogue>> catalogues_;
  std::array<ExprId, 256> bytes_{};  // the class of one byte, kEmpty: not made yet
  Roomy<Node> nodes_;
  Roomy<Hash> hashes_;
  Roomy<ByteSet> sets_;
  Roomy<ExprId> kids_;
  Roomy<char> texts_;
  struct Trail {
    std::uint32_t before;
    std::uint8_t byte;
  };
  Roomy<Trail> trails_;  // of number n + 1
  InternTable table_, set_table_, trail_table_;
  // Per expression: index into piece_lists_, or below zero how often it was derived without them.
  static constexpr std::int32_t kNoPieces = -5;
  Roomy<std::int32_t> piece_at_;
  Roomy<Span<const Piece>> piece_lists_;
  PieceStore piece_store_;
  Roomy<std::uint8_t> alive_;  // per expression: 0 unknown, 1 matches something, 2 empty
  std::uint32_t depth_ = 0;
};

}  // namespace gramcore::grammar
