#include "grammar/mask.h"

#include <algorithm>

namespace gramcore::grammar {
namespace {

constexpr ExprId kUnknown = 0xFFFFFFFFu;
constexpr std::size_t kSparse = 256;    // tokens below which a list is shorter work than a mask
constexpr std::size_t kManyExits = 16;  // exits from which one trie of tails is built
constexpr std::size_t kMaxCacheBytes = std::size_t{256} << 20;
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
  std::vector<ExprId> at(vocab_.max_token_bytes() + 1);
  at[0] = e;
  std::size_t num_tails = 0;
  for (std::uint32_t i = 1; i < trie.nodes[0].end;) {
    const Trie::Node& node = trie.nodes[i];
    const ExprId before = at[node.depth - 1];
    const ExprId d = rows_.size() > before && rows_[before] && rows_[before][node.byte] != kUnknown
                         ? rows_[before][node.byte]
                         : step(before, node.byte);
    if (d == ExprPool::kEmpty) {
      i = node.end;
      continue;
    }
    at[node.depth] = d;
    const std::uint32_t last = trie.nodes[i + 1].first_token;
    made->sparse.insert(made->sparse.end(), trie.tokens.begin() + node.first_token, trie.tokens.begin() + last);
    if (node.end > i + 1 && automaton_.pool()[d].nullable) {
      made->exits.push_back(i);
      num_tails += trie.nodes[node.end].first_token - last;
    }
    ++i;
  }
  if (made->sparse.size() > kSparse) {
    made->dense.assign(vocab_.words(), 0);
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
