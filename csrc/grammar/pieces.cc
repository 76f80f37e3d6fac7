// Lexemes of long repetitions, made from the pieces into which tokens fall.
#include <algorithm>

#include "grammar/json_text.h"
#include "grammar/lexeme.h"

namespace gramcore::grammar {
// The subtree of `node`, when what stands there is X{min,max} R and the node's string is a whole number of X: what
// stays in the repetition is known from pieces(X); only the places where R begins are walked.
bool Lexemes::cover_pieces(ExprId e, std::uint32_t node, Lexeme* made) {
  if (pool_[e].kind != Kind::kCat) return false;
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
      at_[trie.nodes[at->node].depth - 1] = rest;
      cover(at->node, trie.nodes[at->node].end, made);
    }
  }
  return true;
}

const Lexemes::Counted& Lexemes::counted(ExprId e) {
  if (counted_at_.size() <= e) counted_at_.resize(std::max<std::size_t>(e + 1, pool_.size()), -1);
  if (counted_at_[e] < 0) {
    Counted made = make_counted(e);
    counted_at_[e] = static_cast<std::int32_t>(counted_.size());
    counted_.push_back(std::move(made));
  }
  return counted_[static_cast<std::size_t>(counted_at_[e])];
}

Lexemes::Counted Lexemes::make_counted(ExprId e) {
  if (pool_[pool_[e].a].kind != Kind::kRepeat) return {};
  const Node repeat = pool_[pool_[e].a];
  const ExprId rest = pool_[e].b;
  if (pool_[rest].nullable || pool_[rest].has_call) return {};
  const ByteSet letters = first_bytes(repeat.a), first = first_bytes(rest);
  if (letters.size() < kManyBytes) return {};  // few tokens stay inside: walking them is no more work
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
void Lexemes::add_ranges(Lexeme* made) {
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
    done = std::max(done, to);
  }
  clear_to(static_cast<std::uint32_t>(trie.tokens.size()));
}

const Pieces& Lexemes::pieces(ExprId x) {
  auto& slot = pieces_of_[x];
  if (!slot) {
    const ExprPool::Hash hash = pool_.hash(x);
    slot = vocab_.lexemes().find_pieces(hash);
    if (!slot) {
      slot = make_pieces(x);
      vocab_.lexemes().add_pieces(hash, slot);
    }
  }
  return *slot;
}

// Whether no text of x begins another one (and none is empty): every end is a dead end.
bool Lexemes::prefix_free(ExprId x) {
  constexpr std::size_t kMost = 256;
  if (pool_[x].nullable) return false;
  std::vector<ExprId> seen{x};
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const Span<const Piece> list = pool_.pieces(seen[i]);
    if (pool_[seen[i]].nullable && !list.empty()) return false;
    for (const Piece& p : list) {
      if (std::find(seen.begin(), seen.end(), p.target) == seen.end()) seen.push_back(p.target);
    }
    if (seen.size() > kMost) return false;
  }
  return true;
}

std::shared_ptr<const Pieces> Lexemes::make_pieces(ExprId x) {
  auto made = std::make_shared<Pieces>();
  if (pool_[x].has_call || pool_[x].has_boolean || !prefix_free(x)) return made;
  const Trie& trie = vocab_.trie();
  made->usable = true;
  made->boundary.assign(trie.nodes.size(), 0);
  made->inside.assign(trie.tokens.size(), 0);
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

void cut_json_letters(const Vocab& vocab) {
  ExprPool pool;
  const JsonText text(&pool, true);
  Lexemes lexemes(&vocab, &pool);
  lexemes.pieces(text.character());
  lexemes.pieces(text.spelled_letter());
}

}  // namespace gramcore::grammar
