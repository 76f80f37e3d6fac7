#include "grammar/matcher.h"

#include <algorithm>

namespace gramcore::grammar {
namespace {

Grammar prepared(Grammar grammar) {
  prepare(&grammar);
  return grammar;
}

}  // namespace

Compiled::Compiled(std::shared_ptr<const Vocab> vocab, Grammar grammar, Limits limits)
    : vocab_(std::move(vocab)),
      automaton_(prepared(std::move(grammar)), limits),
      masks_(vocab_.get(), &automaton_, static_cast<std::size_t>(limits.max_bytes / 2)),
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
  return automaton_.bytes() + masks_.bytes();
}

std::vector<std::uint8_t> Compiled::forced_bytes(StateId state, std::size_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return automaton_.forced_bytes(state, limit);
}

void Compiled::fill(StateId state, std::int32_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto& bits = masks_.mask(state);
  std::copy(bits.begin(), bits.end(), out);
}

void Compiled::fill_slowly(StateId state, std::int32_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto bits = masks_.walked(state);
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
