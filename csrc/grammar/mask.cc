#include "grammar/mask.h"

#include <algorithm>

namespace gramcore::grammar {
namespace {

constexpr ExprId kUnknown = 0xFFFFFFFFu;
constexpr std::size_t kSparse = 256;    // tokens below which a list is shorter work than a mask
constexpr std::size_t kManyExits = 16;  // exits from which one trie of tails is built
constexpr std::size_t kMaxCacheBytes = std::size_t{256} << 20;
constexpr unsigned kManyBytes = 64;  // bytes that begin a repeated part, from which on its pieces are prepared
constexpr std::size_t kMaxPieces = 256;
constexpr std::size_t kMostTails = 1u << 19;  // tails above which their trie would cost more than it saves

}  // namespace

// The derivative, kEmpty also where it matches nothing.
ExprId Masks::step(ExprId e, std::uint8_t b) {
  if (rows_.size() <= e) rows_.resize(std::max<std::size_t>(e + 1, automaton_.pool().size()));
  if (!rows_[e]) {
    rows_[e] = std::make_unique<ExprId[]>(256);
    std::fill_n(rows_[e].get(), 256, kUnknown);
    bytes_ += 256 * sizeof(ExprId);
  }
  if (rows_[e][b] == kUnknown) {
    ByteSet same = ByteSet::all();
    ExprId d = automaton_.pool().derivative(e, b, &same);
    if (automaton_.pool().is_empty(d)) d = ExprPool::kEmpty;
    for (unsigned x = 0; x < 256; ++x) {
      if (same.has(static_cast<std::uint8_t>(x))) rows_[e][x] = d;
    }
  }
  return rows_[e][b];
}

std::shared_ptr<const Lexeme> LexemeCache::find(const ExprPool::Hash& hash) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = lexemes_.find(hash);
  return it == lexemes_.end() ? nullptr : it->second;
}

std::shared_ptr<const Pieces> LexemeCache::find_pieces(const ExprPool::Hash& hash) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = pieces_.find(hash);
  return it == pieces_.end() ? nullptr : it->second;
}

void LexemeCache::add_pieces(const ExprPool::Hash& hash, std::shared_ptr<const Pieces> pieces) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (pieces_.size() >= kMaxPieces) pieces_.clear();  // start over; grammars keep the ones they use
  pieces_.emplace(hash, std::move(pieces));
}

void LexemeCache::add(const ExprPool::Hash& hash, std::shared_ptr<const Lexeme> lexeme) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (bytes_ > kMaxCacheBytes) {  // start over; grammars keep the ones they use
    lexemes_.clear();
    bytes_ = 0;
  }
  bytes_ += lexeme->bytes();
  lexemes_.emplace(hash, std::move(lexeme));
}

const Lexeme& Masks::lexeme(ExprId e) {
  if (lexeme_of_.size() <= e) lexeme_of_.resize(std::max<std::size_t>(e + 1, automaton_.pool().size()), -1);
  if (lexeme_of_[e] >= 0) return *lexemes_[static_cast<std::size_t>(lexeme_of_[e])];
  const ExprPool::Hash hash = automaton_.pool().hash(e);
  std::shared_ptr<const Lexeme> found = vocab_.lexemes().find(hash);
  if (!found) {
    found = make_lexeme(e);
    vocab_.lexemes().add(hash, found);
  }
  bytes_ += found->bytes();
  if (lexeme_of_.size() <= e) lexeme_of_.resize(e + 1, -1);
  lexeme_of_[e] = static_cast<std::int32_t>(lexemes_.size());
  lexemes_.push_back(std::move(found));
  return *lexemes_.back();
}

std::shared_ptr<Lexeme> Masks::make_lexeme(ExprId e) {
  auto made = std::make_shared<Lexeme>();
  const Trie& trie = vocab_.trie();
  at_expr_.resize(vocab_.max_token_bytes() + 1);
  at_expr_[0] = e;
  ranges_ = {};
  if (!cover_pieces(e, 0, made.get())) cover(1, trie.nodes[0].end, made.get());
  add_ranges(made.get());
  std::size_t num_tails = 0;
  for (const auto exit : made->exits) {
    num_tails += trie.nodes[trie.nodes[exit].end].first_token - trie.nodes[exit + 1].first_token;
  }
  if (made->sparse.size() > kSparse) {
    made->dense.resize(vocab_.words(), 0);
    for (const auto t : made->sparse) bitmask_set(made->dense.data(), t);
    made->sparse = {};
  }
  if (made->exits.size() > kManyExits && num_tails < kMostTails) {
    std::vector<std::pair<std::string_view, std::uint32_t>> tails;
    tails.reserve(num_tails);
    for (const auto exit : made->exits) {
      const Trie::Node& node = trie.nodes[exit];
      for (std::uint32_t t = trie.nodes[exit + 1].first_token; t < trie.nodes[node.end].first_token; ++t) {
        const auto text = vocab_.token(trie.tokens[t]);
        tails.push_back(
            {{reinterpret_cast<const char*>(text.data()) + node.depth, text.size() - node.depth}, trie.tokens[t]});
      }
    }
    made->tails = build_trie(&tails);
    made->merged = true;
  }
  return made;
}

// Adds the tokens and exits of trie nodes [first, end); the expressions of shallower nodes stand in at_expr_.
void Masks::cover(std::uint32_t first, std::uint32_t end, Lexeme* made) {
  const Trie& trie = vocab_.trie();
  for (std::uint32_t i = first; i < end;) {
    const Trie::Node& node = trie.nodes[i];
    const ExprId before = at_expr_[node.depth - 1];
    const ExprId d = rows_.size() > before && rows_[before] && rows_[before][node.byte] != kUnknown
                         ? rows_[before][node.byte]
                         : step(before, node.byte);
    if (d == ExprPool::kEmpty || cover_pieces(d, i, made)) {
      i = node.end;
      continue;
    }
    at_expr_[node.depth] = d;
    const std::uint32_t last = trie.nodes[i + 1].first_token;
    made->sparse.insert(made->sparse.end(), trie.tokens.begin() + node.first_token, trie.tokens.begin() + last);
    if (node.end > i + 1 && automaton_.pool()[d].nullable) made->exits.push_back(i);
    ++i;
  }
}

// The subtree of `node`, when what stands there is X{min,max} R and the node's string is a whole number of X: what
// stays in the repetition is known from pieces(X); only the places where R begins are walked.
bool Masks::cover_pieces(ExprId e, std::uint32_t node, Lexeme* made) {
  if (automaton_.pool()[e].kind != Kind::kCat) return false;
  const Counted& c = counted(e);
  if (c.pieces == nullptr || c.pieces->boundary[node] == 0) return false;
  const Pieces& p = *c.pieces;
  const std::uint32_t min = c.min, max = c.max;
  const Trie& trie = vocab_.trie();
  const std::uint32_t done = p.boundary[node] - 1u, end = trie.nodes[node].end;
  const std::uint32_t from = trie.nodes[node].first_token, to = trie.nodes[end].first_token;
  if (node == 0 && (max >= p.most || max < Pieces::kMasks)) {
    made->dense = max >= p.most ? p.all : p.masks[max];
  } else if (max >= p.most && (ranges_.pieces == nullptr || ranges_.pieces == &p)) {
    ranges_.pieces = &p;
    ranges_.list.push_back({from, to});
    ranges_.total += to - from;
  } else {
    for (std::uint32_t t = from; t < to; ++t) {
      if (p.inside[t] != 0 && p.inside[t] - 1u - done <= max) made->sparse.push_back(trie.tokens[t]);
    }
  }
  const ExprId rest = c.rest;
  const std::vector<std::uint8_t> starts = c.starts;  // counted() below may move its list
  for (const std::uint8_t b : starts) {
    const auto& places = p.outside[b];
    auto at = std::lower_bound(places.begin(), places.end(), node,
                               [](const Pieces::Outside& o, std::uint32_t n) { return o.node <= n; });
    for (; at != places.end() && at->node < end; ++at) {
      const std::uint32_t count = at->count - done;
      if (count < min || count > max) continue;
      at_expr_[trie.nodes[at->node].depth - 1] = rest;
      cover(at->node, trie.nodes[at->node].end, made);
    }
  }
  return true;
}

const Masks::Counted& Masks::counted(ExprId e) {
  if (counted_at_.size() <= e) counted_at_.resize(std::max<std::size_t>(e + 1, automaton_.pool().size()), -1);
  if (counted_at_[e] < 0) {
    Counted made = make_counted(e);
    counted_at_[e] = static_cast<std::int32_t>(counted_.size());
    counted_.push_back(std::move(made));
  }
  return counted_[static_cast<std::size_t>(counted_at_[e])];
}

Masks::Counted Masks::make_counted(ExprId e) {
  ExprPool& pool = automaton_.pool();
  if (pool[pool[e].a].kind != Kind::kRepeat) return {};
  const Node repeat = pool[pool[e].a];
  const ExprId rest = pool[e].b;
  if (pool[rest].nullable || pool[rest].has_call) return {};
  ByteSet letters, first;
  for (const Piece& x : pool.pieces(repeat.a)) letters = letters | x.set;
  if (letters.size() < kManyBytes) return {};  // few tokens stay inside: walking them is no more work
  for (const Piece& x : pool.pieces(rest)) first = first | x.set;
  if (!(first & letters).empty()) return {};
  const Pieces& p = pieces(repeat.a);
  if (!p.usable) return {};
  Counted out{&p, rest, repeat.min, repeat.max, {}};
  for (unsigned b = 0; b < 256; ++b) {
    if (first.has(static_cast<std::uint8_t>(b)) && !p.outside[b].empty()) {
      out.starts.push_back(static_cast<std::uint8_t>(b));
    }
  }
  return out;
}

// The tokens of ranges_: the mask of all without what lies between, when they are most of the vocabulary.
void Masks::add_ranges(Lexeme* made) {
  if (ranges_.list.empty()) return;
  const Trie& trie = vocab_.trie();
  if (2 * ranges_.total < trie.tokens.size() || !made->dense.empty()) {
    for (const auto& [from, to] : ranges_.list) {
      for (std::uint32_t t = from; t < to; ++t) {
        if (ranges_.pieces->inside[t] != 0) made->sparse.push_back(trie.tokens[t]);
      }
    }
    return;
  }
  std::sort(ranges_.list.begin(), ranges_.list.end());
  made->dense = ranges_.pieces->all;
  std::uint32_t done = 0;
  const auto clear_to = [&](std::uint32_t end) {
    for (; done < end; ++done) bitmask_reset(made->dense.data(), trie.tokens[done]);
  };
  for (const auto& [from, to] : ranges_.list) {
    clear_to(from);
    done = to;
  }
  clear_to(static_cast<std::uint32_t>(trie.tokens.size()));
}

const Pieces& Masks::pieces(ExprId x) {
  auto& slot = pieces_of_[x];
  if (!slot) {
    const ExprPool::Hash hash = automaton_.pool().hash(x);
    slot = vocab_.lexemes().find_pieces(hash);
    if (!slot) {
      slot = make_pieces(x);
      vocab_.lexemes().add_pieces(hash, slot);
    }
  }
  return *slot;
}

// Whether no text of x begins another one (and none is empty): every end is a dead end.
bool Masks::prefix_free(ExprId x) {
  constexpr std::size_t kMost = 256;
  ExprPool& pool = automaton_.pool();
  if (pool[x].nullable) return false;
  std::vector<ExprId> seen{x};
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const std::vector<Piece> list = pool.pieces(seen[i]);
    if (pool[seen[i]].nullable && !list.empty()) return false;
    for (const Piece& p : list) {
      if (std::find(seen.begin(), seen.end(), p.target) == seen.end()) seen.push_back(p.target);
    }
    if (seen.size() > kMost) return false;
  }
  return true;
}

std::shared_ptr<const Pieces> Masks::make_pieces(ExprId x) {
  auto made = std::make_shared<Pieces>();
  if (automaton_.pool()[x].has_call || automaton_.pool()[x].has_boolean || !prefix_free(x)) return made;
  const Trie& trie = vocab_.trie();
  made->usable = true;
  made->boundary.assign(trie.nodes.size(), 0);
  made->inside.assign(trie.tokens.size(), 0);
  for (const Piece& p : automaton_.pool().pieces(x)) made->first = made->first | p.set;
  struct At {
    ExprId rest;  // kEpsilon: at a boundary
    std::uint32_t begun;
  };
  std::vector<At> at(vocab_.max_token_bytes() + 1, At{ExprPool::kEpsilon, 0});
  made->boundary[0] = 1;
  for (std::uint32_t i = 1; i < trie.nodes[0].end;) {
    const Trie::Node& node = trie.nodes[i];
    const At before = at[node.depth - 1];
    const bool fresh = before.rest == ExprPool::kEpsilon;
    const ExprId d = step(fresh ? x : before.rest, node.byte);
    if (d == ExprPool::kEmpty) {
      if (fresh) made->outside[node.byte].push_back({i, before.begun});
      i = node.end;
      continue;
    }
    at[node.depth] = {d, before.begun + fresh};
    const auto code = static_cast<std::uint16_t>(before.begun + fresh + 1);
    if (d == ExprPool::kEpsilon) made->boundary[i] = code;
    for (std::uint32_t t = node.first_token; t < trie.nodes[i + 1].first_token; ++t) made->inside[t] = code;
    ++i;
  }
  made->masks.assign(Pieces::kMasks, std::vector<std::int32_t>(vocab_.words(), 0));
  made->all.assign(vocab_.words(), 0);
  for (std::size_t t = 0; t < made->inside.size(); ++t) {
    if (made->inside[t] == 0) continue;
    const std::uint32_t count = made->inside[t] - 1u;
    made->most = std::max(made->most, count);
    bitmask_set(made->all.data(), trie.tokens[t]);
    if (count < Pieces::kMasks) bitmask_set(made->masks[count].data(), trie.tokens[t]);
  }
  for (std::uint32_t k = 1; k < Pieces::kMasks; ++k) {
    for (std::size_t w = 0; w < made->all.size(); ++w) made->masks[k][w] |= made->masks[k - 1][w];
  }
  return made;
}

// Sets the tokens of trie nodes [first, end), whose parents at `depth` stand in `state`.
void Masks::walk(const Trie& trie, std::uint32_t first, std::uint32_t end, std::size_t depth, StateId state,
                 std::int32_t* out) {
  at_.resize(vocab_.max_token_bytes() + 1);
  at_[depth] = state;
  for (std::uint32_t i = first; i < end;) {
    const Trie::Node& node = trie.nodes[i];
    const StateId next = automaton_.step(at_[node.depth - 1], node.byte);
    if (next == Automaton::kDead) {
      i = node.end;
      continue;
    }
    at_[node.depth] = next;
    for (std::uint32_t t = node.first_token; t < trie.nodes[i + 1].first_token; ++t) bitmask_set(out, trie.tokens[t]);
    ++i;
  }
}

void Masks::add_tails(const Lexeme& lexeme, StateId next, std::int32_t* out) {
  if (automaton_.at_end(next)) return;
  if (lexeme.merged) {
    walk(lexeme.tails, 1, lexeme.tails.nodes[0].end, 0, next, out);
    return;
  }
  const Trie& trie = vocab_.trie();
  for (const auto exit : lexeme.exits) {
    walk(trie, exit + 1, trie.nodes[exit].end, trie.nodes[exit].depth, next, out);
  }
}

void Masks::forget() {
  masks_.clear();
  lexemes_.clear();
  rows_.clear();
  pieces_of_.clear();
  counted_.clear();
  counted_at_.clear();
  std::fill(mask_of_.begin(), mask_of_.end(), -1);
  std::fill(lexeme_of_.begin(), lexeme_of_.end(), -1);
  bytes_ = 0;
}

const Masks::Mask& Masks::mask(StateId state) {
  if (mask_of_.size() <= state) mask_of_.resize(automaton_.num_states(), -1);
  if (mask_of_[state] >= 0) return masks_[static_cast<std::size_t>(mask_of_[state])];
  if (bytes_ > max_bytes_) forget();
  std::vector<std::int32_t> bits(vocab_.words(), 0);
  const auto span = automaton_.threads(state);
  const std::vector<Thread> threads(span.begin(), span.end());  // steps below may move the automaton's arrays
  for (const Thread& t : threads) {
    const Lexeme& lex = lexeme(t.top);
    for (const auto id : lex.sparse) bitmask_set(bits.data(), id);
    for (std::size_t w = 0; w < lex.dense.size(); ++w) bits[w] |= lex.dense[w];
    if (t.stack != Automaton::kBottom && !lex.exits.empty()) add_tails(lex, automaton_.popped(t.stack), bits.data());
  }
  if (automaton_.accepting(state)) {
    for (const auto id : vocab_.stop()) bitmask_set(bits.data(), id);
  }
  bytes_ += bits.size() * sizeof(std::int32_t);
  mask_of_[state] = static_cast<std::int32_t>(masks_.size());
  std::size_t count = 0;
  for (const std::int32_t w : bits) count += static_cast<std::size_t>(__builtin_popcount(static_cast<unsigned>(w)));
  masks_.push_back({std::move(bits), count == vocab_.size()});
  return masks_.back();
}

std::vector<std::int32_t> Masks::walked(StateId state) {
  std::vector<std::int32_t> bits(vocab_.words(), 0);
  walk(vocab_.trie(), 1, vocab_.trie().nodes[0].end, 0, state, bits.data());
  if (automaton_.accepting(state)) {
    for (const auto id : vocab_.stop()) bitmask_set(bits.data(), id);
  }
  return bits;
}

}  // namespace gramcore::grammar
