#include "grammar/lexeme.h"

#include <algorithm>

namespace gramcore::grammar {
namespace {

constexpr ExprId kUnknown = 0xFFFFFFFFu;
constexpr std::size_t kSparse = 256;    // tokens below which a list is shorter work than a mask
constexpr std::size_t kManyExits = 16;  // exits from which their tails are laid over each other

// Sorts numbers below `end`, each once; they come in runs, which sorting by comparison is slow at.
void put_in_order(std::vector<std::uint32_t>* numbers, std::size_t end) {
  if (numbers->size() < end / 64) {
    std::sort(numbers->begin(), numbers->end());
    numbers->erase(std::unique(numbers->begin(), numbers->end()), numbers->end());
    return;
  }
  Bitset in(end);
  for (const std::uint32_t n : *numbers) in.set(n);
  numbers->clear();
  in.for_each([&](std::size_t n) { numbers->push_back(static_cast<std::uint32_t>(n)); });
}

}  // namespace

// The derivative, kEmpty also where it matches nothing.
ExprId Lexemes::step(ExprId e, std::uint8_t b) {
  const Node& n = pool_[e];
  if (n.kind == Kind::kCat && pool_[n.a].kind == Kind::kClass) {  // within a character: nothing to remember
    return pool_.set_of(n.a).has(b) && !pool_.is_empty(n.b) ? n.b : ExprPool::kEmpty;
  }
  if (rows_.size() <= e) rows_.resize(std::max<std::size_t>(e + 1, pool_.size()));
  if (rows_[e] == nullptr) {
    if (num_rows_ % kRowsPerBlock == 0) row_blocks_.emplace_back(new ExprId[kRowsPerBlock * 256]);
    rows_[e] = row_blocks_.back().get() + 256 * (num_rows_++ % kRowsPerBlock);
    std::fill_n(rows_[e], 256, kUnknown);
    bytes_ += 256 * sizeof(ExprId);
  }
  if (rows_[e][b] == kUnknown) {
    ByteSet same = ByteSet::all();
    ExprId d = pool_.derivative(e, b, &same);
    if (pool_.is_empty(d)) d = ExprPool::kEmpty;
    for (unsigned x = 0; x < 256; ++x) {
      if (same.has(static_cast<std::uint8_t>(x))) rows_[e][x] = d;
    }
  }
  return rows_[e][b];
}

template <class Cover>
Lexemes::Shared Lexemes::shared(const ExprPool::Hash& hash, Cover cover) {
  Shared found = vocab_.lexemes().find(hash);
  if (!found) {
    auto made = std::make_shared<Lexeme>();
    at_.resize(vocab_.max_token_bytes() + 1);
    ranges_ = {};
    runs_.clear();
    calm_tries_ = 0;
    cover(made.get());
    finish(made.get());
    found = std::move(made);
    vocab_.lexemes().add(hash, found);
  }
  bytes_ += found->bytes();
  return found;
}

const Lexeme& Lexemes::of(ExprId e) {
  if (of_.size() <= e) of_.resize(std::max<std::size_t>(e + 1, pool_.size()));
  if (of_[e]) return *of_[e];
  const ExprPool::Hash hash = pool_.hash(e);  // a copy: the pool grows
  const std::vector<ExprId> parts = alternatives(e);
  for (const ExprId part : parts) of(part);  // now, since one lexeme is made at a time
  const bool fresh = parts.empty() && !vocab_.lexemes().find(hash);
  const bool tangle = fresh && tangled(e);
  const ExprId wide = fresh && !tangle ? widened(e) : ExprPool::kEmpty;
  const Lexeme* from = wide != ExprPool::kEmpty ? &of(wide) : nullptr;
  Shared found = shared(hash, [&](Lexeme* made) {
    for (const ExprId part : parts) unite(*of_[part], made);
    if (!parts.empty()) return;
    if (from != nullptr && !from->dense.empty() && narrow_down(e, wide, *from, made)) return;
    if (cover_pieces(e, 0, made) || (!tangle && cover_letters(e, made))) return;
    descend(e, 0, made);
  });
  return *(of_[e] = std::move(found));
}

// The alternatives of a | b | ... or (a | b | ...) r when some can begin with many bytes: each of those by itself,
// since it comes back in other states with other ones beside it, and the others as one; so are those that complements
// change at nearly every byte, since they are walked through the same places.
std::vector<ExprId> Lexemes::alternatives(ExprId e) {
  const Node n = pool_[e];
  const bool behind = n.kind == Kind::kCat;
  const ExprId list = behind ? n.a : e;
  if (pool_[list].kind != Kind::kAlt) return {};
  std::vector<ExprId> parts, narrow, tangles;
  const Span<const ExprId> kids = pool_.kids(list);
  for (const ExprId kid : std::vector<ExprId>(kids.begin(), kids.end())) {
    const ExprId part = behind ? pool_.cat(kid, n.b) : kid;
    (first_bytes(part).size() < kManyBytes ? narrow : tangled(part) ? tangles : parts).push_back(part);
  }
  if (parts.empty() && (tangles.empty() || narrow.empty())) return {};
  if (!tangles.empty()) parts.push_back(pool_.alt(std::move(tangles)));
  if (!narrow.empty()) parts.push_back(pool_.alt(std::move(narrow)));
  return parts;
}

ByteSet Lexemes::first_bytes(ExprId e) {
  ByteSet out;
  for (const Piece& p : pool_.pieces(e)) out = out | p.set;
  return out;
}

void Lexemes::unite(const Lexeme& part, Lexeme* made) {
  if (!part.dense.empty()) made->dense.resize(vocab_.words(), 0);
  for (std::size_t w = 0; w < part.dense.size(); ++w) made->dense[w] |= part.dense[w];
  made->sparse.insert(made->sparse.end(), part.sparse.begin(), part.sparse.end());
  made->exits.insert(made->exits.end(), part.exits.begin(), part.exits.end());
}

const Lexeme& Lexemes::pair(ExprId first, ExprId then) {
  const std::uint64_t key = (static_cast<std::uint64_t>(first) << 32) | then;
  if (const auto it = pairs_.find(key); it != pairs_.end()) return *it->second;
  const Lexeme& before = of(first);
  ExprPool::Hash hash{};  // of the two in this order; no expression's own
  for (std::uint64_t i = 0; i < 2; ++i) {
    hash[i] = mix(mix(mix(0x6A09E667F3BCC909ull + i, pool_.hash(first)[i]), pool_.hash(then)[i]), i);
  }
  Shared found = shared(hash, [&](Lexeme* made) { cover_behind(before, then, made); });
  return *(pairs_[key] = std::move(found));
}

const Trie& Lexemes::tails(const Lexeme& lexeme, std::uint8_t byte) {
  std::size_t grown = 0;
  const Trie& trie = lexeme.tails->behind(byte, &grown);
  if (grown > 0) vocab_.lexemes().grow(grown);
  bytes_ += grown;
  return trie;
}

void Lexemes::forget() {
  of_.clear();
  pairs_.clear();
  rows_.clear();
  row_blocks_.clear();
  num_rows_ = 0;
  few_.clear();
  loops_.clear();
  traits_.clear();
  calm_.clear();
  restless_.clear();
  pieces_of_.clear();
  counted_.clear();
  counted_at_.clear();
  bytes_ = 0;
}

void Lexemes::finish(Lexeme* made) {
  const Trie& trie = vocab_.trie();
  add_ranges(made);
  std::size_t taken = 0;
  for (const auto& [first, end] : runs_) taken += end - first;
  if (taken > kSparse) made->dense.resize(vocab_.words(), 0);
  for (const auto& [first, end] : runs_) {
    for (std::uint32_t t = first; t < end; ++t) {
      if (taken > kSparse) {
        bitmask_set(made->dense.data(), trie.tokens[t]);
      } else {
        made->sparse.push_back(trie.tokens[t]);
      }
    }
  }
  if (made->sparse.size() > kSparse) {
    made->dense.resize(vocab_.words(), 0);
    for (const auto t : made->sparse) bitmask_set(made->dense.data(), t);
    made->sparse = {};
  }
  put_in_order(&made->exits, trie.size());
  for (const auto exit : made->exits) {
    made->num_tails += trie.nodes[trie.nodes[exit].end].first_token - trie.nodes[exit + 1].first_token;
  }
  if (made->exits.size() > kManyExits) made->tails = std::make_unique<const Tails>(trie, made->exits);
}

const Lexemes::Few& Lexemes::few(ExprId e) {
  if (few_.size() <= e) few_.resize(std::max<std::size_t>(e + 1, pool_.size()));
  if (few_[e].count != Few::kUnknown) return few_[e];
  Few made;
  made.count = 0;
  const Node n = pool_[e];
  const auto add = [&](const ByteSet& set, ExprId target) {
    if (made.count == Few::kMany || pool_.is_empty(target)) return;
    if (made.count + set.size() > Few::kMost) {
      made.count = Few::kMany;
      return;
    }
    for (unsigned b = 0; b < 256; ++b) {
      if (!set.has(static_cast<std::uint8_t>(b))) continue;
      made.bytes[made.count] = static_cast<std::uint8_t>(b);
      made.targets[made.count++] = target;
    }
  };
  if (const int first = pool_.first_byte(e); first >= 0) {
    add(ByteSet::range(static_cast<unsigned>(first), static_cast<unsigned>(first)), pool_.behind_text(e));
  } else if (n.kind == Kind::kCat && pool_[n.a].kind == Kind::kClass) {
    add(pool_.set_of(n.a), n.b);
  } else {
    for (const Piece& p : pool_.pieces(e)) add(p.set, p.target);
  }
  return few_[e] = made;
}

// Adds what lies below a trie node behind whose string `e` is left.
void Lexemes::descend(ExprId e, std::uint32_t node, Lexeme* made) {
  constexpr std::uint16_t kDeep = 256;  // longer tokens are walked without recursion
  const Trie& trie = vocab_.trie();
  at_[trie.nodes[node].depth] = e;
  const Few next = few(e);
  if (next.count == Few::kMany || trie.nodes[node].depth >= kDeep) return cover(node + 1, trie.nodes[node].end, made);
  for (unsigned i = 0; i < next.count; ++i) {
    const std::uint32_t child = vocab_.children().find(node, next.bytes[i]);
    if (child != 0 && enter(next.targets[i], child, made) && trie.nodes[child].end > child + 1) {
      descend(next.targets[i], child, made);
    }
  }
}

// Adds the tokens that end at a node, behind whose string `e` is left, and the node as an exit.  Returns false if what
// lies below is dealt with too.
bool Lexemes::enter(ExprId e, std::uint32_t i, Lexeme* made) {
  if (cover_pieces(e, i, made)) return false;
  const Trie& trie = vocab_.trie();
  const Trie::Node& node = trie.nodes[i];
  take(node.first_token, trie.nodes[i + 1].first_token);
  if (node.end > i + 1 && pool_[e].nullable) made->exits.push_back(i);
  return true;
}

// Adds tokens [first, end) in trie order.
void Lexemes::take(std::uint32_t first, std::uint32_t end) {
  if (first == end) return;
  if (!runs_.empty() && runs_.back().second == first) {
    runs_.back().second = end;
  } else {
    runs_.push_back({first, end});
  }
}

// The kinds of bytes by all of which `e` is left as it is, such as the letters of a name.
std::uint64_t Lexemes::loops(ExprId e) {
  constexpr std::uint64_t kKnown = std::uint64_t{1} << 63;  // no byte is of this kind
  if (loops_.size() <= e) loops_.resize(std::max<std::size_t>(e + 1, pool_.size()), 0);
  if (loops_[e] != 0) return loops_[e];
  ByteSet same;
  for (const Piece& p : pool_.pieces(e)) {
    if (p.target == e) same = same | p.set;
  }
  std::uint64_t others = 0;
  for (unsigned b = 0; b < 256; ++b) {
    if (!same.has(static_cast<std::uint8_t>(b))) others |= byte_kind(static_cast<std::uint8_t>(b));
  }
  return loops_[e] = ~others | kKnown;
}

// Adds all that lies below a trie node where no byte changes `e`.
void Lexemes::take_below(ExprId e, std::uint32_t node, Lexeme* made) {
  const Trie& trie = vocab_.trie();
  const std::uint32_t end = trie.nodes[node].end;
  take(trie.nodes[node + 1].first_token, trie.nodes[end].first_token);
  for (std::uint32_t i = node + 1; pool_[e].nullable && i < end; ++i) {
    if (trie.nodes[i].end > i + 1) made->exits.push_back(i);
  }
}

std::uint8_t Lexemes::find_traits(ExprId e) {
  unsigned made = kKnown;
  if (pool_[e].nullable) made |= kNullable;
  if (pool_[e].kind == Kind::kCat && counted(e).pieces != nullptr) made |= kCounts;
  if (few(e).count != Few::kMany) made |= kFew;
  if ((loops(e) << 1) != 0) made |= kLoops;
  if (traits_.size() <= e) traits_.resize(std::max<std::size_t>(e + 1, pool_.size()), 0);
  return traits_[e] = static_cast<std::uint8_t>(made);
}

// Adds the tokens and exits of trie nodes [first, end); the expressions of shallower nodes stand in at_.
void Lexemes::cover(std::uint32_t first, std::uint32_t end, Lexeme* made) {
  const Trie& trie = vocab_.trie();
  for (std::uint32_t i = first; i < end;) {
    const Trie::Node& node = trie.nodes[i];
    const ExprId before = at_[node.depth - 1];
    const ExprId d = rows_.size() > before && rows_[before] && rows_[before][node.byte] != kUnknown
                         ? rows_[before][node.byte]
                         : step(before, node.byte);
    if (d == ExprPool::kEmpty) {
      i = node.end;
      continue;
    }
    const unsigned known = node.end == i + 1 ? 0u : traits(d);  // most nodes have nothing below
    if ((known & kCounts) != 0 && cover_pieces(d, i, made)) {
      i = node.end;
      continue;
    }
    take(node.first_token, trie.nodes[i + 1].first_token);
    if ((known & kNullable) != 0) made->exits.push_back(i);
    at_[node.depth] = d;
    const std::uint32_t wide = i + 8;  // a subtree in which looking for the bytes that may come pays
    if (node.end > wide && (known & kFew) != 0) {
      descend(d, i, made);
      i = node.end;
    } else if (node.end > wide && (known & kLoops) != 0 && (vocab_.kinds_below(i) & ~loops(d)) == 0) {
      take_below(d, i, made);
      i = node.end;
    } else if (node.end > i + 2 && calm_below(d, i)) {
      take(trie.nodes[i + 1].first_token, trie.nodes[node.end].first_token);
      i = node.end;
    } else {
      ++i;
    }
  }
}

// The same behind each exit of a lexeme.
void Lexemes::cover_behind(const Lexeme& first, ExprId then, Lexeme* made) {
  const Trie& trie = vocab_.trie();
  if (!first.tails) {
    for (const std::uint32_t exit : first.exits) {
      descend(then, exit, made);
    }
    return;
  }
  for (const std::uint8_t byte : first.tails->first_bytes()) {
    if (step(then, byte) == ExprPool::kEmpty) continue;
    for (const std::uint32_t node : first.tails->places(byte)) {
      at_[trie.nodes[node].depth - 1u] = then;
      cover(node, trie.nodes[node].end, made);
    }
  }
}

}  // namespace gramcore::grammar
