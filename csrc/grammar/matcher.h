// A grammar compiled against a vocabulary, and the matcher that follows one text.
#pragma once

#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "grammar/automaton.h"
#include "grammar/mask.h"
#include "grammar/shortest.h"
#include "grammar/vocab.h"

namespace gramcore::grammar {

// Shared by all matchers of the grammar; every public function may be called from several threads.
class Compiled {
 public:
  Compiled(std::shared_ptr<const Vocab> vocab, Grammar grammar, Limits limits);

  const Vocab& vocab() const { return *vocab_; }
  StateId start() const { return start_; }
  // The state behind `bytes`; kDead as soon as no text continues so.
  StateId advance(StateId state, Span<const std::uint8_t> bytes);
  // The state behind a token, by its text or because the grammar names it; kDead when it may not come next.
  StateId advance_token(StateId state, std::size_t token);
  // Whether the token, accepted just before this state, is a stop token that the grammar names as its end.
  bool ends_text(StateId state, std::size_t token);
  bool accepting(StateId state);
  bool at_end(StateId state);
  // Writes words() words: bit t = token t may come next (stop tokens: the text may end here).  Returns whether some
  // token is not allowed.
  bool fill(StateId state, std::int32_t* out);
  // The same by one walk of the whole vocabulary, remembering nothing: the twin that tests compare with.
  void fill_slowly(StateId state, std::int32_t* out);
  // Under a budget: whether the text can still end within `left` tokens when this one leads from `state` to `next`.
  // The next token of the shortest known ending may always come.
  bool in_time(StateId state, StateId next, std::size_t token, std::int64_t left);
  // Takes the tokens out of a mask that are not in time.
  void keep_in_time(StateId state, std::int64_t left, std::int32_t* mask);
  std::vector<std::uint8_t> forced_bytes(StateId state, std::size_t limit);
  std::uint32_t num_states();
  std::size_t bytes();

 private:
  std::shared_ptr<const Vocab> vocab_;
  std::mutex mutex_;
  Automaton automaton_;
  Masks masks_;
  std::unique_ptr<Shortest> shortest_;  // made when a budget is first asked about
  Shortest& shortest();

  StateId start_;
  bool names_tokens_;
};

class Matcher {
 public:
  // max_tokens: of the whole text with its stop token, < 0: any number.
  explicit Matcher(std::shared_ptr<Compiled> compiled, std::int64_t max_tokens = -1);
  ~Matcher() { drop(nullptr); }
  Matcher(const Matcher& other) = default;  // fork: shares the history
  Matcher& operator=(const Matcher&) = delete;

  // Whether the token may come next; if so the matcher stands behind it.  OutOfRange: no such token.
  bool accept(std::int64_t token);
  // The same with bytes instead of a token, as one step.
  bool accept_bytes(Span<const std::uint8_t> bytes);
  bool fill_bitmask(std::int32_t* out);  // whether some token is not allowed
  // One mask per row of a draft tree: row 0 for this place, row i + 1 for the place behind node i (zeros where the
  // node is not allowed).  parents[i] < i, -1: this place.  `stride` words between rows.
  void fill_tree(Span<const std::int32_t> tokens, Span<const std::int32_t> parents, std::int32_t* out,
                 std::size_t stride);
  void rollback(std::int64_t steps);
  void reset();
  // A stop token was accepted, or nothing can follow and there is no stop token to say so.
  bool is_terminated() const;
  bool can_terminate() const { return !here_->stopped && compiled_->accepting(here_->state); }
  std::int64_t num_steps() const { return here_->steps; }
  StateId state() const { return here_->state; }
  const std::shared_ptr<Compiled>& compiled() const { return compiled_; }

 private:
  struct Place {  // an immutable list, newest first
    StateId state;
    bool stopped;
    std::int64_t steps;
    std::shared_ptr<const Place> before;
  };
  void move_to(StateId state, bool stopped);
  void drop(std::shared_ptr<const Place> next);

  std::shared_ptr<Compiled> compiled_;
  std::int64_t max_tokens_;
  std::shared_ptr<const Place> here_;
};

// Masks of many matchers at once, on the thread pool; rows of one grammar go to one thread.
void fill_batch(Span<Matcher* const> matchers, Span<std::int32_t* const> rows);

}  // namespace gramcore::grammar
