// Lexemes of intersections with complements, such as keys of an object that are none of the declared ones: made from
// the lexeme of what is left without the complements, which all of them share, by walking where the two differ.
#include <algorithm>

#include "grammar/lexeme.h"

namespace gramcore::grammar {
namespace {

constexpr std::size_t kMaxWalk = 4096;  // differing nodes after which walking the vocabulary is no more work

}  // namespace

// `e` without the complements that its first part is intersected with; kEmpty if there are none.
ExprId Lexemes::widened(ExprId e) {
  const Node n = pool_[e];
  const bool behind = n.kind == Kind::kCat;
  const ExprId list = behind ? n.a : e;
  if (pool_[list].kind != Kind::kAnd) return ExprPool::kEmpty;
  std::vector<ExprId> kept;
  const Span<const ExprId> kids = pool_.kids(list);
  for (const ExprId kid : kids) {
    if (pool_[kid].kind != Kind::kNot) kept.push_back(kid);
  }
  if (kept.empty() || kept.size() == kids.size()) return ExprPool::kEmpty;
  const ExprId wide = pool_.conj(std::move(kept));
  return behind ? pool_.cat(wide, n.b) : wide;
}

// Bytes by which `e` and `wide`, which has all texts of `e`, are left in different ways.
ByteSet Lexemes::differing(ExprId e, ExprId wide) {
  const Span<const Piece> mine = pool_.pieces(e);
  ByteSet out, none = ByteSet::all();
  for (const Piece& p : mine) none = none & ~p.set;
  for (const Piece& w : pool_.pieces(wide)) {
    out = out | (w.set & none);
    for (const Piece& p : mine) {
      if (p.target != w.target) out = out | (w.set & p.set);
    }
  }
  return out;
}

// Whether complements change `e`, or an alternative of it, at nearly every byte, so that narrow_down() is long work.
bool Lexemes::tangled(ExprId e) {
  constexpr unsigned kMany = 96;
  const Node n = pool_[e];
  const Node list = n.kind == Kind::kCat ? pool_[n.a] : n;
  if (list.kind == Kind::kAlt) {
    for (std::uint32_t i = 0; i < list.b; ++i) {
      const ExprId kid = pool_.kids(n.kind == Kind::kCat ? n.a : e)[i];
      if (tangled(n.kind == Kind::kCat ? pool_.cat(kid, n.b) : kid)) return true;
    }
    return false;
  }
  const ExprId wide = widened(e);
  return wide != ExprPool::kEmpty && differing(e, wide).size() > kMany;
}

// Makes the lexeme of `e` from that of `wide`.  Returns false, with nothing made, where that would be long work.
bool Lexemes::narrow_down(ExprId e, ExprId wide, const Lexeme& from, Lexeme* made) {
  struct Place {
    std::uint32_t node;
    ExprId e, wide;
  };
  const Trie& trie = vocab_.trie();
  std::vector<std::pair<std::uint32_t, std::uint32_t>> gone;  // nodes under which, or at which alone, `e` has nothing
  std::vector<Place> open{{0, e, wide}};
  for (std::size_t i = 0; i < open.size(); ++i) {
    if (open.size() > kMaxWalk) return false;
    const Place at = open[i];
    const ByteSet bytes = differing(at.e, at.wide);
    for (unsigned b = 0; b < 256; ++b) {
      const auto byte = static_cast<std::uint8_t>(b);
      const std::uint32_t child = bytes.has(byte) ? vocab_.children().find(at.node, byte) : 0;
      if (child == 0) continue;
      ByteSet same = ByteSet::all();
      const ExprId mine = pool_.derivative(at.e, byte, &same), other = pool_.derivative(at.wide, byte, &same);
      if (pool_.is_empty(mine)) {
        gone.push_back({child, trie.nodes[child].end});
      } else if (mine != other) {
        if (pool_[other].nullable && !pool_[mine].nullable) gone.push_back({child, child});
        if (trie.nodes[child].end > child + 1 && !(calm_below(mine, child) && calm_below(other, child))) {
          open.push_back({child, mine, other});
        }
      }
    }
  }
  std::sort(gone.begin(), gone.end());
  made->dense = from.dense;
  for (const auto token : from.sparse) bitmask_set(made->dense.data(), token);
  made->exits = from.exits;
  for (const auto& [node, end] : gone) {
    if (end == node) continue;
    for (std::uint32_t t = trie.nodes[node].first_token; t < trie.nodes[end].first_token; ++t) {
      bitmask_reset(made->dense.data(), trie.tokens[t]);
    }
  }
  std::size_t g = 0;
  const auto is_gone = [&](std::uint32_t exit) {
    while (g < gone.size() && std::max(gone[g].second, gone[g].first + 1) <= exit) ++g;
    return g < gone.size() && gone[g].first <= exit;
  };
  made->exits.erase(std::remove_if(made->exits.begin(), made->exits.end(), is_gone), made->exits.end());
  return true;
}

}  // namespace gramcore::grammar
