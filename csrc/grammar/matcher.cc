#include "grammar/matcher.h"

#include <algorithm>

#include "core/thread_pool.h"

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
      start_(automaton_.start()),
      names_tokens_(!automaton_.grammar().token_sets.empty()) {}

StateId Compiled::advance(StateId state, Span<const std::uint8_t> bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  automaton_.start_clock();
  return automaton_.run(state, bytes);
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

StateId Compiled::advance_token(StateId state, std::size_t token) {
  const bool has_text = !vocab_->is_special(token) && !vocab_->token(token).empty();
  const StateId behind = has_text ? advance(state, vocab_->token(token)) : Automaton::kDead;
  if (!names_tokens_) return behind;
  const std::lock_guard<std::mutex> lock(mutex_);
  return automaton_.unite(behind, automaton_.take(state, masks_.sets_with(token)));
}

bool Compiled::ends_text(StateId state, std::size_t token) {
  return vocab_->is_stop(token) && accepting(state) && at_end(state);
}

Shortest& Compiled::shortest() {
  if (!shortest_) shortest_ = std::make_unique<Shortest>(vocab_.get(), &automaton_, masks_.token_sets());
  return *shortest_;
}

bool Compiled::in_time(StateId state, StateId next, std::size_t token, std::int64_t left) {
  const std::lock_guard<std::mutex> lock(mutex_);
  Shortest& known = shortest();
  const std::uint32_t here = known.distance(state), first = known.first_token(state);
  if (here == Shortest::kNever) return true;  // there is no plan to hold to
  if (token == first) return true;
  const std::uint32_t behind = known.distance(next);
  return here <= left && behind != Shortest::kNever && behind < left;
}

void Compiled::keep_in_time(StateId state, std::int64_t left, std::int32_t* mask) {
  const std::lock_guard<std::mutex> lock(mutex_);
  automaton_.start_clock();
  Shortest& known = shortest();
  const std::uint32_t here = known.distance(state), first = known.first_token(state);
  if (here == Shortest::kNever) return;
  const auto named = [&](std::size_t token) {
    const StateId next = automaton_.take(state, masks_.sets_with(token));
    const bool has_text = !vocab_->is_special(token) && !vocab_->token(token).empty();
    StateId behind = has_text ? state : Automaton::kDead;
    for (std::size_t i = 0; has_text && i < vocab_->token(token).size() && behind != Automaton::kDead; ++i) {
      behind = automaton_.step(behind, vocab_->token(token)[i]);
    }
    return automaton_.unite(behind, next);
  };
  const std::vector<std::uint32_t>& behind = known.distances(state, named);
  for (std::size_t t = 0; t < behind.size(); ++t) {
    if (t == first || !bitmask_test(mask, t)) continue;
    if (vocab_->is_stop(t) && behind[t] == Shortest::kNever) continue;  // ends the text
    if (here > left || behind[t] == Shortest::kNever || behind[t] >= left) bitmask_reset(mask, t);
  }
}

bool Compiled::fill(StateId state, std::int32_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  automaton_.start_clock();
  const Mask& mask = masks_.mask(state);
  std::copy(mask.bits.begin(), mask.bits.end(), out);
  return !mask.full;
}

void Compiled::fill_slowly(StateId state, std::int32_t* out) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto bits = masks_.walked(state);
  std::copy(bits.begin(), bits.end(), out);
}

Matcher::Matcher(std::shared_ptr<Compiled> compiled, std::int64_t max_tokens)
    : compiled_(std::move(compiled)),
      max_tokens_(max_tokens),
      here_(std::make_shared<Place>(Place{compiled_->start(), false, 0, nullptr})) {}

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
  const StateId next = compiled_->advance_token(here_->state, id);
  if (next != Automaton::kDead) {
    if (max_tokens_ >= 0 && !compiled_->in_time(here_->state, next, id, max_tokens_ - here_->steps)) return false;
    move_to(next, compiled_->ends_text(next, id));
    return true;
  }
  if (!vocab.is_stop(id) || !can_terminate()) return false;
  move_to(here_->state, true);
  return true;
}

bool Matcher::accept_bytes(Span<const std::uint8_t> bytes) {
  if (here_->stopped) return false;
  const StateId next = compiled_->advance(here_->state, bytes);
  if (next == Automaton::kDead) return false;
  move_to(next, false);
  return true;
}

bool Matcher::fill_bitmask(std::int32_t* out) {
  if (!here_->stopped) {
    const bool needed = compiled_->fill(here_->state, out);
    if (max_tokens_ < 0) return needed;
    compiled_->keep_in_time(here_->state, max_tokens_ - here_->steps, out);
    return true;
  }
  std::fill_n(out, compiled_->vocab().words(), 0);
  return true;
}

void Matcher::fill_tree(Span<const std::int32_t> tokens, Span<const std::int32_t> parents, std::int32_t* out,
                        std::size_t stride) {
  const Vocab& vocab = compiled_->vocab();
  constexpr StateId kStopped = 0xFFFFFFFFu;
  GC_CHECK(tokens.size() == parents.size(), "parents must have one entry per node, got ", parents.size(), " for ",
           tokens.size());
  std::vector<StateId> states{here_->stopped ? kStopped : here_->state};
  std::vector<std::int64_t> left{max_tokens_ - here_->steps};  // tokens, under a budget
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    GC_CHECK(tokens[i] >= 0 && static_cast<std::size_t>(tokens[i]) < vocab.size(), "token must be in [0, ",
             vocab.size(), "), got ", tokens[i], " (node ", i, ")");
    GC_CHECK(parents[i] >= -1 && parents[i] < static_cast<std::int32_t>(i), "parent must come before its node, got ",
             parents[i], " (node ", i, ")");
    const StateId before = states[static_cast<std::size_t>(parents[i] + 1)];
    const auto token = static_cast<std::size_t>(tokens[i]);
    StateId next = Automaton::kDead;
    const std::int64_t may = left[static_cast<std::size_t>(parents[i] + 1)];
    left.push_back(may - 1);
    if (before != kStopped && before != Automaton::kDead) {
      next = compiled_->advance_token(before, token);
      const bool late = next != Automaton::kDead && max_tokens_ >= 0 && !compiled_->in_time(before, next, token, may);
      if (late) {
        next = Automaton::kDead;
      } else if (next == Automaton::kDead ? vocab.is_stop(token) && compiled_->accepting(before)
                                          : compiled_->ends_text(next, token)) {
        next = kStopped;
      }
    }
    states.push_back(next);
  }
  for (std::size_t i = 0; i < states.size(); ++i) {
    if (states[i] == kStopped || states[i] == Automaton::kDead) {
      std::fill_n(out + i * stride, vocab.words(), 0);
    } else {
      compiled_->fill(states[i], out + i * stride);
      if (max_tokens_ >= 0) compiled_->keep_in_time(states[i], left[i], out + i * stride);
    }
  }
}

void fill_batch(Span<Matcher* const> matchers, Span<std::int32_t* const> rows) {
  std::vector<std::size_t> order(matchers.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto grammar_of = [&](std::size_t i) { return matchers[i]->compiled().get(); };
  std::sort(order.begin(), order.end(), [&](auto a, auto b) { return grammar_of(a) < grammar_of(b); });
  std::vector<std::size_t> groups{0};
  for (std::size_t i = 1; i <= order.size(); ++i) {
    if (i == order.size() || grammar_of(order[i]) != grammar_of(order[i - 1])) groups.push_back(i);
  }
  parallel_chunks(static_cast<std::int64_t>(groups.size()) - 1, [&](std::int64_t g) {
    const auto at = static_cast<std::size_t>(g);
    for (std::size_t i = groups[at]; i < groups[at + 1]; ++i) matchers[order[i]]->fill_bitmask(rows[order[i]]);
  });
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
