// Lexemes of expressions that no letter can leave, such as "somewhere in the string stands this word": every token that
// is made of letters stays inside, and only tokens with something else in them are looked at.  Where it takes some
// letters to leave one ("nowhere stands this word"), fewer need not be looked at.
#include <algorithm>

#include "grammar/lexeme.h"

namespace gramcore::grammar {
namespace {

std::uint8_t as_byte(char c) {
  return static_cast<std::uint8_t>(c);
}

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
  constexpr unsigned kMost = 6, kMostTries = 1024;
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

// Whether all texts of `e` are some letters x one after the other, as far as that is seen.
bool Lexemes::spelled_by(ExprId e, ExprId x) {
  const Node n = pool_[e];
  if (e == x || n.kind == Kind::kEpsilon) return true;
  if (n.kind == Kind::kCat) return spelled_by(n.a, x) && spelled_by(n.b, x);
  if (n.kind == Kind::kRepeat) return spelled_by(n.a, x);
  if (n.kind == Kind::kAlt || n.kind == Kind::kAnd) {
    const Span<const ExprId> kids = pool_.kids(e);
    const auto spelled = [&](ExprId kid) { return spelled_by(kid, x); };
    return n.kind == Kind::kAlt ? std::all_of(kids.begin(), kids.end(), spelled)
                                : std::any_of(kids.begin(), kids.end(), spelled);
  }
  ByteSet alone;  // bytes that are letters
  for (const Piece& p : pool_.pieces(x)) {
    if (p.target == ExprPool::kEpsilon) alone = alone | p.set;
  }
  if (n.kind == Kind::kClass) return (pool_.set_of(e) & ~alone).empty();
  const std::string_view text = n.kind == Kind::kText ? pool_.text_of(e) : std::string_view{};
  return !text.empty() && std::all_of(text.begin(), text.end(), [&](char c) { return alone.has(as_byte(c)); });
}

// Whether `e` has letters x and then something that begins with another byte; its first bytes are added to *others.
bool Lexemes::ends_behind(ExprId e, ExprId x, ByteSet* others) {
  while (pool_[e].kind == Kind::kCat && spelled_by(pool_[e].a, x)) e = pool_[e].b;
  if (pool_[e].nullable || pool_[e].has_call || spelled_by(e, x)) return false;
  const ByteSet first = first_bytes(e);
  *others = *others | first;
  return (first & first_bytes(x)).empty();
}

// Whether `e` is left as it is, beside what else may be, by any letters x: x* r, and what is put together of these.
bool Lexemes::stays(ExprId e, ExprId x) {
  const auto begins_so = [&](ExprId kid) {
    while (pool_[kid].kind == Kind::kCat) kid = pool_[kid].a;
    const Node n = pool_[kid];
    return n.kind == Kind::kRepeat && n.a == x && n.min == 0 && n.max == kUnbounded;
  };
  while (pool_[e].kind == Kind::kCat) e = pool_[e].a;
  if (pool_[e].kind != Kind::kAlt && pool_[e].kind != Kind::kAnd) return begins_so(e);
  const Span<const ExprId> kids = pool_.kids(e);
  if (pool_[e].kind == Kind::kAnd) return std::all_of(kids.begin(), kids.end(), begins_so);
  const std::vector<ExprId> list(kids.begin(), kids.end());
  return std::any_of(list.begin(), list.end(), [&](ExprId kid) { return stays(kid, x) && !pool_.is_empty(kid); });
}

// outlasts(), as far as it is seen from how `e` is put together.
bool Lexemes::plainly_outlasts(ExprId e, ExprId x, ByteSet* others) {
  const std::vector<ExprId> parts = pool_[e].kind == Kind::kAlt
                                        ? std::vector<ExprId>(pool_.kids(e).begin(), pool_.kids(e).end())
                                        : std::vector<ExprId>{e};
  return std::all_of(parts.begin(), parts.end(), [&](ExprId part) { return ends_behind(part, x, others); }) &&
         stays(e, x);
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
  ByteSet plainly, others;
  if (!p.usable) return false;
  if (plainly_outlasts(e, x, &plainly)) {
    others = plainly;
  } else if (!outlasts(e, x, &others)) {
    return false;
  }
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
