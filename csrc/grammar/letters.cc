// Lexemes of expressions that no letter can leave, such as "somewhere in the string stands this word": every token that
// is made of letters stays inside, and only tokens with something else in them are looked at.  Where it takes some
// letters to leave one ("nowhere stands this word"), fewer need not be looked at.
#include <algorithm>

#include "grammar/lexeme.h"

namespace gramcore::grammar {
namespace {

constexpr std::size_t kMaxStates = 96;  // of the expression beside the letter's own

// What calm() takes for letters: printable ASCII but what ends or escapes in strings.
struct Letters {
  ByteSet set;
  std::uint64_t kinds = 0;
};
const Letters& letters() {
  static const Letters made = [] {
    Letters out;
    for (unsigned b = 0x20; b < 0x7F; ++b) {
      if (b == '"' || b == '\\') continue;
      out.set.add(static_cast<std::uint8_t>(b));
      out.kinds |= byte_kind(static_cast<std::uint8_t>(b));
    }
    return out;
  }();
  return made;
}

}  // namespace

// Whether no token that goes on behind a node leaves `e`, which stands there, or ends it.
bool Lexemes::calm_below(ExprId e, std::uint32_t node) {
  return (vocab_.kinds_below(node) & ~letters().kinds) == 0 && calm(e, vocab_.height(node));
}

// Whether so many letters can follow, whatever they are, and `e` cannot end behind any of them.
bool Lexemes::calm(ExprId e, unsigned bytes) {
  constexpr unsigned kMost = 12, kMostTries = 4096;
  if (bytes == 0) return true;
  if (bytes > kMost) return false;
  if (calm_.size() <= e) {
    calm_.resize(std::max<std::size_t>(e + 1, pool_.size()), 0);
    restless_.resize(calm_.size(), kNever);
  }
  if (bytes <= calm_[e]) return true;
  if (bytes >= restless_[e] || ++calm_tries_ > kMostTries) return false;
  ByteSet open = letters().set;
  bool holds = true;
  for (const Piece& p : pool_.pieces(e)) {
    if ((p.set & letters().set).empty()) continue;
    open = open & ~p.set;
    holds = !pool_[p.target].nullable && !pool_.is_empty(p.target) && calm(p.target, bytes - 1);
    if (!holds) break;
  }
  if (calm_tries_ > kMostTries) return false;
  if (holds && open.empty()) {
    calm_[e] = static_cast<std::uint8_t>(bytes);
    return true;
  }
  restless_[e] = static_cast<std::uint8_t>(bytes);
  return false;
}

// The operand of a repetition at which `e` can begin whose first bytes are many; kEmpty: none.
ExprId Lexemes::repeated_letter(ExprId e) {
  const Node n = pool_[e];
  switch (n.kind) {
    case Kind::kCat: return repeated_letter(n.a);
    case Kind::kRepeat:
      return n.max == kUnbounded && !pool_[n.a].nullable && first_bytes(n.a).size() >= kManyBytes
                 ? n.a
                 : repeated_letter(n.a);
    case Kind::kAlt:
    case Kind::kAnd: {
      const Span<const ExprId> kids = pool_.kids(e);
      for (const ExprId kid : std::vector<ExprId>(kids.begin(), kids.end())) {
        if (const ExprId x = repeated_letter(kid); x != ExprPool::kEmpty) return x;
      }
      return ExprPool::kEmpty;
    }
    default: return ExprPool::kEmpty;
  }
}

// Whether all strings of letters x leave something of `e` that is not the empty text; if so *others are the bytes that
// may follow some of them and begin no letter.
bool Lexemes::outlasts(ExprId e, ExprId x, ByteSet* others) {
  std::vector<std::pair<ExprId, ExprId>> seen{{e, x}};  // with what remains of the letter under way
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const auto [d, letter] = seen[i];
    if (pool_[d].nullable || seen.size() > kMaxStates) return false;
    const Span<const Piece> mine = pool_.pieces(d), theirs = pool_.pieces(letter);
    ByteSet within, alive;
    for (const Piece& p : theirs) within = within | p.set;
    for (const Piece& p : mine) {
      if (pool_.is_empty(p.target)) continue;
      alive = alive | p.set;
      for (const Piece& q : theirs) {
        if ((p.set & q.set).empty()) continue;
        const std::pair<ExprId, ExprId> next{p.target, q.target == ExprPool::kEpsilon ? x : q.target};
        if (std::find(seen.begin(), seen.end(), next) == seen.end()) seen.push_back(next);
      }
    }
    if (!(within & ~alive).empty()) return false;
    if (letter == x) {
      *others = *others | (alive & ~within);
    } else if (!(alive & ~within).empty()) {
      return false;
    }
  }
  return true;
}

bool Lexemes::cover_letters(ExprId e, Lexeme* made) {
  const ExprId x = repeated_letter(e);
  if (x == ExprPool::kEmpty) return false;
  const Pieces& p = pieces(x);
  ByteSet others;
  if (!p.usable || !outlasts(e, x, &others)) return false;
  const Trie& trie = vocab_.trie();
  made->dense = p.all;
  for (unsigned b = 0; b < 256; ++b) {
    if (!others.has(static_cast<std::uint8_t>(b))) continue;
    for (const Pieces::Outside& o : p.outside[b]) {
      const Trie::Node& node = trie.nodes[o.node];
      const Span<const std::uint8_t> token = vocab_.token(trie.tokens[node.first_token]);  // begins as the node does
      ExprId d = e;
      for (std::size_t i = 0; i + 1 < node.depth; ++i) d = step(d, token[i]);
      at_[node.depth - 1u] = d;
      cover(o.node, node.end, made);
    }
  }
  return true;
}

}  // namespace gramcore::grammar
