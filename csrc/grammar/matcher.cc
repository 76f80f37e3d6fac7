#include "grammar/matcher.h"

#include <algorithm>

namespace gramcore::grammar {
namespace {

Grammar prepared(Grammar grammar) {
  prepare(&grammar);
  return grammar;
}

// Sets the bits of all tokens of the trie that the automaton accepts from `state`.
void walk(Automaton* automaton, const Trie& trie, StateId state, std::size_t max_depth, std::int32_t* out) {
  std::vector<StateId> at(max_depth + 1);
  at[0] = state;
  const std::uint32_t end = trie.nodes[0].end;
  for (std::uint32_t i = 1; i < end;) {
    const Trie::Node& node = trie.nodes[i];
    const StateId next = automaton->step(at[node.depth - 1], node.byte);
    if (next == Automaton::kDead) {
      i = node.end;
      continue;
    }
    at[node.depth] = next;
    for (std::uint32_t t = node.first_token; t < trie.nodes[i + 1].first_token; ++t) bitmask_set(out, trie.tokens[t]);
    ++i;
  }
}

}  // namespace

Compiled::Compiled(std::shared_ptr<const Vocab> vocab, Grammar grammar, Limits limits)
    : vocab_(std::move(vocab)),
      limits_(limits),
      automaton_(prepared(std::move(grammar)), limits),
      start_(automaton_.start()) {}

StateId Compiled::advance(StateId state, Span<const std::uint8_t> bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const std::uint8_t b : bytes) {
    if (state == Automaton::kDead) break;
    state = automaton_.step(state, b);
  }
  return state;
}

bool Compiled::accepting(StateId state) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return automaton_.accepting(state);
}

bool Compiled::at_end(StateId state) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return automaton_.at_end(state);
}

std::uint32_t Compiled::num_states() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return automaton_.num_states();
}

std::size_t Compiled::bytes() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return automaton_.bytes() + masks_.size() * vocab_->words() * sizeof(std::int32_t);
}

std::vector<std::uint8_t> Compiled::forced_bytes(StateId state, std::size_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return automaton_.forced_bytes(state, limit);
}

const std::vector<std::int32_t>& Compiled::mask(StateId state) {
  if (mask_of_.size() < automaton_.num_states()) mask_of_.resize(automaton_.num_states(), -1);
  if (mask_of_[state] < 0) {
    if (masks_.size() * vocab_->words() * sizeof(std::int32_t) > limits_.max_bytes / 4) {  // start over
      masks_.clear();
      std::fill(mask_of_.begin(), mask_of_.end(), -1);
    }
    std::vector<std::int32_t> bits(vocab_->words(), 0);
    walk(&automaton_, vocab_->trie(), state, vocab_->max_token_bytes(), bits.data());
    if (automaton_.accepting(state)) {
      for (const auto id : vocab_->stop()) bitmask_set(bits.data(), id);
    }
    mask_of_.resize(automaton_.num_states(), -1);
    mask_of_[state] = static_cast<std::int32_t>(masks_.size());
    masks_.push_back(std::move(bits));
  }
  return masks_[static_cast<std::size_t>(mask_of_[state])];
}

void Compiled::fill(StateId state, std::int32_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto& bits = mask(state);
  std::copy(bits.begin(), bits.end(), out);
}

Matcher::Matcher(std::shared_ptr<Compiled> compiled)
    : compiled_(std::move(compiled)), here_(std::make_shared<Place>(Place{compiled_->start(), false, 0, nullptr})) {}

// Replaces the place, releasing the old list without recursion.
void Matcher::drop(std::shared_ptr<const Place> next) {
  std::shared_ptr<const Place> old = std::move(here_);
  here_ = std::move(next);
  while (old && old.use_count() == 1) {
    std::shared_ptr<const Place> before = std::move(const_cast<Place&>(*old).before);
    old = std::move(before);
  }
}

void Matcher::move_to(StateId state, bool stopped) {
  here_ = std::make_shared<Place>(Place{state, stopped, here_->steps + 1, here_});
}

bool Matcher::accept(std::int64_t token) {
  const Vocab& vocab = compiled_->vocab();
  GC_CHECK(token >= 0 && static_cast<std::size_t>(token) < vocab.size(), "token must be in [0, ", vocab.size(),
           "), got ", token);
  const auto id = static_cast<std::size_t>(token);
  if (here_->stopped) return false;
  if (vocab.is_stop(id)) {
    if (!can_terminate()) return false;
    move_to(here_->state, true);
    return true;
  }
  if (vocab.is_special(id) || vocab.token(id).empty()) return false;
  return accept_bytes(vocab.token(id));
}

bool Matcher::accept_bytes(Span<const std::uint8_t> bytes) {
  if (here_->stopped) return false;
  const StateId next = compiled_->advance(here_->state, bytes);
  if (next == Automaton::kDead) return false;
  move_to(next, false);
  return true;
}

void Matcher::fill_bitmask(std::int32_t* out) {
  if (here_->stopped) {
    std::fill_n(out, compiled_->vocab().words(), 0);
  } else {
    compiled_->fill(here_->state, out);
  }
}

void Matcher::rollback(std::int64_t steps) {
  GC_CHECK(steps >= 0 && steps <= here_->steps, "n must be in [0, ", here_->steps, "] (the steps taken), got ", steps);
  std::shared_ptr<const Place> to = here_;
  for (std::int64_t i = 0; i < steps; ++i) to = to->before;
  drop(std::move(to));
}

void Matcher::reset() {
  rollback(here_->steps);
}

bool Matcher::is_terminated() const {
  return here_->stopped ||
         (compiled_->vocab().stop().empty() && compiled_->accepting(here_->state) && compiled_->at_end(here_->state));
}

}  // namespace gramcore::grammar
