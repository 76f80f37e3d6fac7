// Derivatives by pieces and the emptiness test.
#include <algorithm>
#include <queue>

#include "grammar/catalogue.h"
#include "grammar/expr.h"

namespace gramcore::grammar {
namespace {

// A step into an expression, for the length of a block.
class Deeper {
 public:
  explicit Deeper(std::uint32_t* depth) : depth_(depth) {
    GC_CHECK_AS(GrammarTooComplex, *depth < 4 * kMaxNesting, "grammar must nest at most ", 4 * kMaxNesting,
                " optional parts in a row, got more; simplify it");
    ++*depth_;
  }
  ~Deeper() { --*depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;

 private:
  std::uint32_t* depth_;
};

std::vector<Piece> copy_of(Span<const Piece> list) {
  return {list.begin(), list.end()};
}

}  // namespace

void ExprPool::add_piece(std::vector<std::pair<ByteSet, std::vector<ExprId>>>* into, ByteSet set, ExprId target) const {
  for (std::size_t i = 0; i < into->size(); ++i) {
    const ByteSet both = (*into)[i].first & set;
    if (both.empty()) continue;
    if (!(both == (*into)[i].first)) {
      auto rest = (*into)[i];
      rest.first = rest.first & ~both;
      into->push_back(std::move(rest));
      (*into)[i].first = both;
    }
    (*into)[i].second.push_back(target);
    set = set & ~both;
    if (set.empty()) return;
  }
  into->push_back({set, {target}});
}

std::vector<Piece> ExprPool::merge(const std::vector<Span<const Piece>>& lists) {
  std::vector<std::pair<ByteSet, std::vector<ExprId>>> all;
  for (const auto& list : lists) {
    for (const Piece& p : list) add_piece(&all, p.set, p.target);
  }
  std::vector<Piece> out;
  for (auto& [set, targets] : all) {
    out.push_back({set, targets.size() == 1 ? targets[0] : alt(std::move(targets))});
  }
  return out;
}

std::vector<Piece> ExprPool::conj_pieces(ExprId e) {
  const std::vector<ExprId> parts(kids(e).begin(), kids(e).end());
  // the sets so far, and for each the targets of the parts so far
  std::vector<ByteSet> sets{ByteSet::all()}, next_sets;
  std::vector<ExprId> targets, next_targets;
  for (std::size_t done = 0; done < parts.size(); ++done) {
    next_sets.clear();
    next_targets.clear();
    for (const Piece& p : pieces(parts[done])) {
      for (std::size_t i = 0; i < sets.size(); ++i) {
        const ByteSet both = sets[i] & p.set;
        if (both.empty()) continue;
        next_sets.push_back(both);
        const auto from = targets.begin() + static_cast<std::ptrdiff_t>(i * done);
        next_targets.insert(next_targets.end(), from, from + static_cast<std::ptrdiff_t>(done));
        next_targets.push_back(p.target);
      }
    }
    sets.swap(next_sets);
    targets.swap(next_targets);
  }
  std::vector<Piece> out;
  for (std::size_t i = 0; i < sets.size(); ++i) {
    const auto from = targets.begin() + static_cast<std::ptrdiff_t>(i * parts.size());
    const ExprId target = conj({from, from + static_cast<std::ptrdiff_t>(parts.size())});
    if (target != kEmpty) out.push_back({sets[i], target});
  }
  return out;
}

std::vector<Piece> ExprPool::compute_pieces(ExprId e) {
  const Node n = nodes_[e];
  switch (n.kind) {
    case Kind::kEmpty:
    case Kind::kEpsilon: return {};
    case Kind::kClass: return {{sets_[n.a], kEpsilon}};
    case Kind::kAnd: return conj_pieces(e);
    case Kind::kCat: {
      std::vector<Piece> first = copy_of(pieces(n.a));
      for (Piece& p : first) p.target = cat(p.target, n.b);
      if (!nodes_[n.a].nullable) return first;
      return merge({Span<const Piece>(first), pieces(n.b)});
    }
    case Kind::kAlt: {
      const std::vector<ExprId> parts(kids(e).begin(), kids(e).end());
      std::vector<Span<const Piece>> lists;
      for (const ExprId k : parts) lists.push_back(pieces(k));
      return merge(lists);
    }
    case Kind::kNot: {
      std::vector<Piece> out = copy_of(pieces(n.a));
      ByteSet rest = ByteSet::all();
      std::size_t kept = 0;
      for (Piece p : out) {
        rest = rest & ~p.set;
        p.target = complement(p.target);
        if (p.target != kEmpty) out[kept++] = p;
      }
      out.resize(kept);
      if (!rest.empty()) out.push_back({rest, complement(kEmpty)});
      return out;
    }
    case Kind::kRepeat: {
      std::vector<Piece> out = copy_of(pieces(n.a));
      const ExprId rest = repeat(n.a, n.min ? n.min - 1 : 0, n.max == kUnbounded ? kUnbounded : n.max - 1);
      for (Piece& p : out) p.target = cat(p.target, rest);
      return out;
    }
    case Kind::kTrie: {
      const std::shared_ptr<const Catalogue> catalogue = catalogues_[n.a];
      const auto& nodes = catalogue->trie().nodes;
      std::vector<Piece> out;
      for (std::uint32_t child = n.b + 1; child < nodes[n.b].end; child = nodes[child].end) {
        out.push_back({ByteSet::range(nodes[child].byte, nodes[child].byte), one_of(catalogue, child)});
      }
      return out;
    }
    case Kind::kText: {
      const auto first = static_cast<unsigned>(first_byte(e));
      return {{ByteSet::range(first, first), behind_text(e)}};
    }
    case Kind::kToken: return {};
    case Kind::kMultiple: return multiple_pieces(n);
    case Kind::kCall:
    case Kind::kUnique:
    case Kind::kTrace:
    case Kind::kKeys: break;
  }
  throw std::logic_error("derivative of a rule call");
}

Span<const Piece> PieceStore::add(Span<const Piece> list) {
  const std::size_t n = list.size();
  if (n == 0) return {};
  if (used_ + n > kBlock) {
    blocks_.emplace_back(new Piece[std::max(n, kBlock)]);
    used_ = 0;
  }
  Piece* to = blocks_.back().get() + used_;
  std::copy(list.begin(), list.end(), to);
  used_ = std::min(used_ + n, kBlock);
  size_ += n;
  return {to, n};
}

Span<const Piece> ExprPool::pieces(ExprId e) {
  if (piece_at_.size() <= e) piece_at_.resize(std::max<std::size_t>(nodes_.size(), e + 1), -1);
  if (piece_at_[e] < 0) {
    const Deeper deeper(&depth_);
    std::vector<Piece> list = compute_pieces(e);
    if (nodes_[e].has_boolean) {
      list.erase(std::remove_if(list.begin(), list.end(), [&](const Piece& p) { return p.target == kEmpty; }),
                 list.end());
    }
    if (piece_at_.size() < nodes_.size()) piece_at_.resize(nodes_.size(), -1);
    piece_at_[e] = static_cast<std::int32_t>(piece_lists_.size());
    piece_lists_.push_back(piece_store_.add(Span<const Piece>(list)));
  }
  return piece_lists_[static_cast<std::size_t>(piece_at_[e])];
}

// The derivative by those of the parts, where that is short work: most expressions are left by one byte.
ExprId ExprPool::derivative_of_parts(ExprId e, std::uint8_t b, ByteSet* same) {
  const Node n = nodes_[e];
  switch (n.kind) {
    case Kind::kNot: return complement(derivative(n.a, b, same));
    case Kind::kRepeat: {
      const ExprId first = derivative(n.a, b, same);
      if (first == kEmpty) return kEmpty;
      return cat(first, repeat(n.a, n.min ? n.min - 1 : 0, n.max == kUnbounded ? kUnbounded : n.max - 1));
    }
    case Kind::kCat: {
      const ExprId first = cat(derivative(n.a, b, same), n.b);
      return nodes_[n.a].nullable ? alt({first, derivative(n.b, b, same)}) : first;
    }
    default: {
      std::vector<ExprId> parts(kids(e).begin(), kids(e).end());
      for (ExprId& k : parts) {
        k = derivative(k, b, same);
        if (k == kEmpty && n.kind == Kind::kAnd) return kEmpty;
      }
      return n.kind == Kind::kAnd ? conj(std::move(parts)) : alt(std::move(parts));
    }
  }
}

ExprId ExprPool::derivative(ExprId e, std::uint8_t b, ByteSet* same) {
  const Node& n = nodes_[e];
  if (n.kind == Kind::kCat && nodes_[n.a].kind == Kind::kClass) {  // one letter of a text: nothing to remember
    const ByteSet& set = set_of(n.a);
    const bool in = set.has(b);
    *same = *same & (in ? set : ~set);
    return in ? n.b : kEmpty;
  }
  if (const int first = first_byte(e); first >= 0) {
    const ByteSet set = ByteSet::range(static_cast<unsigned>(first), static_cast<unsigned>(first));
    *same = *same & (first == b ? set : ~set);
    return first == b ? behind_text(e) : kEmpty;
  }
  if (n.kind == Kind::kTrace) {  // each byte makes another trail
    const Node at = n;
    ByteSet alike = ByteSet::all();
    const ExprId rest = derivative(at.max, b, &alike);
    *same = *same & (rest == kEmpty ? alike : ByteSet::range(b, b));
    return rest == kEmpty ? kEmpty : trace(at.a, at.b, longer_trail(at.min, b), rest);
  }
  const bool of_parts = n.kind == Kind::kCat || n.kind == Kind::kAlt || n.kind == Kind::kAnd || n.kind == Kind::kNot ||
                        n.kind == Kind::kRepeat;
  if (piece_at_.size() <= e) piece_at_.resize(std::max<std::size_t>(nodes_.size(), e + 1), -1);
  if (of_parts && piece_at_[e] < 0 && piece_at_[e] > kNoPieces) {
    --piece_at_[e];
    const Deeper deeper(&depth_);
    return derivative_of_parts(e, b, same);
  }
  ByteSet none = ByteSet::all();
  for (const Piece& p : pieces(e)) {
    if (p.set.has(b)) {
      *same = *same & p.set;
      return p.target;
    }
    none = none & ~p.set;
  }
  *same = *same & none;
  return kEmpty;
}

bool ExprPool::is_empty(ExprId e) {
  if (!nodes_[e].has_boolean || nodes_[e].nullable) return e == kEmpty;
  if (alive_.size() < nodes_.size()) alive_.resize(nodes_.size(), 0);
  if (alive_[e]) return alive_[e] == 2;
  switch (nodes_[e].kind) {  // what is put together needs no search of its own
    case Kind::kCat: {
      ExprId rest = e;
      bool empty = false;
      for (; nodes_[rest].kind == Kind::kCat && !empty; rest = nodes_[rest].b) empty = is_empty(nodes_[rest].a);
      empty = empty || is_empty(rest);
      alive_[e] = empty ? 2 : 1;
      return empty;
    }
    case Kind::kRepeat: return is_empty(nodes_[e].a);
    case Kind::kAlt: {
      const std::vector<ExprId> parts(kids(e).begin(), kids(e).end());
      return std::all_of(parts.begin(), parts.end(), [&](ExprId k) { return is_empty(k); });
    }
    default: break;
  }
  // What seems to need the fewest bytes is looked at first, and of those the newest, to find some text soon.
  std::vector<ExprId> queue{e};
  std::vector<std::size_t> from{0};
  std::priority_queue<std::pair<std::uint32_t, std::size_t>> open;
  const auto enqueue = [&](std::size_t i) { open.push({~nodes_[queue[i]].least, i}); };
  enqueue(0);
  alive_[e] = 3;  // 3 = in this queue
  std::size_t found = queue.size();
  bool alive = false;
  const auto settle = [&](std::uint8_t unsettled) {
    for (const ExprId q : queue) {
      if (alive_[q] == 3) alive_[q] = unsettled;
    }
  };
  while (!open.empty() && !alive) {
    const std::size_t i = open.top().second;
    open.pop();
    if (queue.size() > limits_.max_emptiness) {
      settle(0);
      throw GrammarTooComplex(gramcore::cat(
          "grammar must need at most ", limits_.max_emptiness,
          " expressions to decide whether an intersection is empty, got more; simplify it or raise the budget"));
    }
    const Span<const Piece> list = pieces(queue[i]);
    alive_.resize(nodes_.size(), 0);
    for (const Piece& p : list) {
      const Node& n = nodes_[p.target];
      if (n.nullable || !n.has_boolean || alive_[p.target] == 1) {
        alive = true;
        found = i;
        break;
      }
      if (alive_[p.target] != 0) continue;
      alive_[p.target] = 3;
      queue.push_back(p.target);
      from.push_back(i);
      enqueue(queue.size() - 1);
    }
  }
  if (!alive) {
    settle(2);
    return true;
  }
  for (std::size_t i = found;; i = from[i]) {  // everything on the way is alive
    alive_[queue[i]] = 1;
    if (i == 0) break;
  }
  settle(0);
  return false;
}

}  // namespace gramcore::grammar
