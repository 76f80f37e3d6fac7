#include "grammar/mask.h"

#include <algorithm>

#include "grammar/walk.h"

namespace gramcore::grammar {
namespace {

constexpr std::size_t kManyTails = 1024;  // tails from which lexemes of pairs are made

// Threads by value: later steps may move the automaton's arrays.
std::vector<Thread> copy_of(Span<const Thread> threads) {
  return {threads.begin(), threads.end()};
}

void add_tokens(const Lexeme& lexeme, std::int32_t* out) {
  for (const auto id : lexeme.sparse) bitmask_set(out, id);
  for (std::size_t w = 0; w < lexeme.dense.size(); ++w) out[w] |= lexeme.dense[w];
}

}  // namespace

Masks::Masks(const Vocab* vocab, Automaton* automaton, std::size_t max_bytes)
    : vocab_(*vocab), automaton_(*automaton), lexemes_(vocab, &automaton->pool()), max_bytes_(max_bytes) {
  for (const TokenSet& set : automaton->grammar().token_sets) token_sets_.push_back(set.in(*vocab));
}

std::vector<std::uint8_t> Masks::sets_with(std::size_t token) const {
  std::vector<std::uint8_t> out;
  for (const Bitset& set : token_sets_) out.push_back(set.test(token));
  return out;
}

// Stop tokens where the text may end, and the tokens that the grammar names.
void Masks::add_special(StateId state, std::int32_t* out) {
  if (automaton_.accepting(state)) {
    for (const auto id : vocab_.stop()) bitmask_set(out, id);
  }
  if (token_sets_.empty()) return;
  for (const Thread& t : automaton_.threads(state)) {
    automaton_.each_token_set(
        t.top, [&](std::uint32_t set) { token_sets_[set].for_each([&](std::size_t id) { bitmask_set(out, id); }); });
  }
}

// Sets the tokens of trie nodes [first, end), whose parents at `depth` stand in `state`.
void Masks::walk(const Trie& trie, std::uint32_t first, std::uint32_t end, std::size_t depth, StateId state,
                 std::int32_t* out) {
  at_.resize(vocab_.max_token_bytes() + 1);
  walk_trie(&automaton_, trie, first, end, depth, state, &at_, [&](std::uint32_t t, StateId) { bitmask_set(out, t); });
}

void Masks::add_tails(const Lexeme& lexeme, StateId next, std::int32_t* out) {
  if (automaton_.at_end(next)) return;
  const Trie& trie = vocab_.trie();
  if (!lexeme.tails) {
    for (const auto exit : lexeme.exits) {
      walk(trie, exit + 1, trie.nodes[exit].end, trie.nodes[exit].depth, next, out);
    }
    return;
  }
  for (const std::uint8_t byte : lexeme.tails->first_bytes()) {
    const StateId behind = automaton_.step(next, byte);
    if (behind == Automaton::kDead) continue;
    const Trie& tails = lexemes_.tails(lexeme, byte);
    for (std::uint32_t t = 0; t < tails.nodes[1].first_token; ++t) bitmask_set(out, tails.tokens[t]);
    walk(tails, 1, tails.nodes[0].end, 0, behind, out);
  }
}

// An item of an array of different ones: what may follow depends on its whole text.
void Masks::add_trace(const Thread& t, std::int32_t* out) {
  const Node n = automaton_.pool()[t.top];
  const Lexeme& lexeme = lexemes_.of(n.max);
  add_tokens(lexeme, out);
  const Trie& trie = vocab_.trie();
  const std::string before = automaton_.pool().trail_text(n.min);
  for (const std::uint32_t exit : lexeme.exits) {
    const Trie::Node& node = trie.nodes[exit];
    const auto token = vocab_.token(trie.tokens[node.first_token]);  // begins as the node does
    const std::string item = before + std::string(reinterpret_cast<const char*>(token.data()), node.depth);
    const StackId stack = automaton_.behind_trace(t, item);
    if (stack != Automaton::kNowhere) walk(trie, exit + 1, node.end, node.depth, automaton_.popped(stack), out);
  }
}

void Masks::add_thread(const Thread& t, std::int32_t* out) {
  if (automaton_.pool()[t.top].kind == Kind::kTrace) return add_trace(t, out);
  const Lexeme& lexeme = lexemes_.of(t.top);
  add_tokens(lexeme, out);
  if (t.stack == Automaton::kBottom || lexeme.exits.empty()) return;
  const StateId next = automaton_.popped(t.stack);
  const std::vector<Thread> behind = copy_of(automaton_.threads(next));
  const bool traces = std::any_of(behind.begin(), behind.end(),
                                  [&](const Thread& then) { return automaton_.pool()[then.top].kind == Kind::kTrace; });
  if (traces || lexeme.num_tails < kManyTails) return add_tails(lexeme, next, out);
  for (const Thread& then : behind) {
    const Lexeme& both = lexemes_.pair(t.top, then.top);
    add_tokens(both, out);
    if (then.stack != Automaton::kBottom && !both.exits.empty()) add_tails(both, automaton_.popped(then.stack), out);
  }
}

void Masks::forget() {
  masks_.clear();
  lexemes_.forget();
  std::fill(mask_of_.begin(), mask_of_.end(), -1);
  bytes_ = 0;
}

const Mask& Masks::mask(StateId state) {
  if (mask_of_.size() <= state) mask_of_.resize(automaton_.num_states(), -1);
  if (mask_of_[state] >= 0) return *masks_[static_cast<std::size_t>(mask_of_[state])];
  if (bytes() > max_bytes_) forget();
  bits_.assign(vocab_.words(), 0);
  for (const Thread& t : copy_of(automaton_.threads(state))) add_thread(t, bits_.data());
  add_special(state, bits_.data());
  masks_.push_back(vocab_.lexemes().mask(bits_, vocab_.size(), &bytes_));
  bytes_ += sizeof(masks_[0]);
  mask_of_[state] = static_cast<std::int32_t>(masks_.size() - 1);
  return *masks_.back();
}

std::vector<std::int32_t> Masks::walked(StateId state) {
  std::vector<std::int32_t> bits(vocab_.words(), 0);
  walk(vocab_.trie(), 1, vocab_.trie().nodes[0].end, 0, state, bits.data());
  add_special(state, bits.data());
  return bits;
}

}  // namespace gramcore::grammar
