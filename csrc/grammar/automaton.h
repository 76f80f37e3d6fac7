// A lazy pushdown automaton.  A state is an interned set of threads (expression, stack); stacks are interned lists
// of what remains to be matched after the expression.  States are never changed once made, so remembering one is
// remembering a place in the text: fork and rollback cost nothing.  Threads that differ in their stacks alone are one
// thread over the union of these, so that alternatives which look alike so far are followed once however deep they
// nest.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "grammar/intern.h"
#include "grammar/ir.h"

namespace gramcore::grammar {

using StateId = std::uint32_t;
using StackId = std::uint32_t;

struct Thread {
  ExprId top;     // call-free but for token sets and traces, not epsilon, not empty
  StackId stack;  // what follows it
  bool operator==(const Thread& o) const { return top == o.top && stack == o.stack; }
};

class Automaton {
 public:
  static constexpr StateId kDead = 0;
  static constexpr StackId kBottom = 0;

  // Takes a prepared grammar.
  explicit Automaton(Grammar grammar, Limits limits = {});

  StateId start() const { return start_; }
  // The time budget counts from here.
  void start_clock() {
    if (limits_.max_seconds > 0) started_ = std::chrono::steady_clock::now();
  }
  // The state behind one more byte; kDead if no text continues so.
  StateId step(StateId state, std::uint8_t byte) {
    const StateId next = known(state, byte);
    return next != kUnknown ? next : compute(state, byte);
  }
  // The state behind several; along a text, those between are not made.
  StateId run(StateId state, Span<const std::uint8_t> bytes);
  bool accepting(StateId state) const { return states_[state].accepting; }
  // Whether no byte can follow.
  bool at_end(StateId state) const { return states_[state].count == 0; }
  Span<const Thread> threads(StateId state) const {
    return {threads_.data() + states_[state].first, states_[state].count};
  }
  // The ways a stack that is not empty goes on: its top and what is below, of every stack it stands for.
  std::vector<std::pair<ExprId, StackId>> frames(StackId stack) const {
    if (stacks_[stack].next != kUnion) return {{stacks_[stack].next, stacks_[stack].parent}};
    std::vector<std::pair<ExprId, StackId>> out;
    for (const StackId member : members(stack)) out.push_back({stacks_[member].next, stacks_[member].parent});
    return out;
  }
  // The state behind the end of a thread's expression.
  StateId popped(StackId stack);
  // The stack on which an array of different items goes on behind one of them; kNowhere where it cannot.
  static constexpr StackId kNowhere = 0xFFFFFFFFu;
  StackId behind_trace(const Thread& trace, std::string_view item);
  ExprPool& pool() { return grammar_.pool; }
  const Grammar& grammar() const { return grammar_; }
  Grammar& grammar() { return grammar_; }
  std::uint32_t num_states() const { return static_cast<std::uint32_t>(states_.size()); }
  std::size_t bytes() const;
  // Whether some thread takes a token of a set next.
  bool names_tokens(StateId state);
  // f(set) for the token sets of a thread's expression.
  template <class F>
  void each_token_set(ExprId top, F f) {
    const Node n = grammar_.pool[top];
    if (n.kind == Kind::kToken) f(n.a);
    if (n.kind != Kind::kAlt || !n.has_call) return;
    for (const ExprId k : grammar_.pool.kids(top)) {
      if (grammar_.pool[k].kind == Kind::kToken) f(grammar_.pool[k].a);
    }
  }
  // The state behind a token that is in the sets `in` says; kDead where none takes it.
  StateId take(StateId state, const std::vector<std::uint8_t>& in);
  // What follows one of two states.
  StateId unite(StateId a, StateId b);
  // The bytes every continuation starts with, if there is exactly one choice at each step (at most `limit`).
  std::vector<std::uint8_t> forced_bytes(StateId state, std::size_t limit);

 private:
  static constexpr StateId kUnknown = 0xFFFFFFFFu;
  struct State {
    std::uint32_t first, count;
    std::uint32_t edges = 0;  // the newest one, 0: none; unless there is a row
    bool accepting;
    StateId* row = nullptr;  // by byte, of states with many edges
  };
  // Bytes that lead from a state to another one.  Most states are left by few bytes and need no row.
  struct Edge {
    ByteSet set;
    StateId to;
    std::uint32_t older;  // of the same state
  };
  static constexpr unsigned kFewEdges = 4, kRowsPerBlock = 8;
  struct Stack {
    ExprId next;     // kUnion: any of several stacks
    StackId parent;  // of a union: its number
  };
  static constexpr ExprId kUnion = 0xFFFFFFFFu;
  // What can come next when an expression begins, over any stack.
  struct Closure {
    std::uint32_t first_frame, num_frames;    // in closure_frames_: pushed on that stack, which is [0]; a parent is an
                                              // index of an earlier frame
    std::uint32_t first_thread, num_threads;  // in closure_threads_; stack: index of a frame
    bool nullable;                            // nothing may come
  };
  static constexpr StackId kBase = 1;  // on which closures are found

  StateId known(StateId state, std::uint8_t byte) const {
    const State& s = states_[state];
    if (s.row != nullptr) return s.row[byte];
    for (std::uint32_t e = s.edges; e != 0; e = edges_[e].older) {
      if (edges_[e].set.has(byte)) return edges_[e].to;
    }
    return kUnknown;
  }
  StateId compute(StateId state, std::uint8_t byte);
  StackId below(const Thread& t);
  void clear_remains();
  void leave(const Thread& t);
  StateId behind_remains();
  void remember(StateId state, const ByteSet& set, StateId to);
  StackId push(ExprId next, StackId parent);
  void add_state(std::uint32_t threads, bool accepting);
  StackId unite(std::vector<StackId> stacks);
  Span<const StackId> members(StackId stack) const;
  StateId pop_union(StackId stack);
  void unite_ready();
  void begin();
  void add(StateId state);
  Closure closure(ExprId e);
  void add_closure(const Closure& closure, StackId below);
  void expand(StackId stack, ExprId e);
  void pop(StackId stack);
  bool was_seen(std::uint64_t key);
  std::pair<ExprId, ExprId> split(ExprId e);
  void merge_ready();
  StateId finish();
  void check_budget() const;

  Grammar grammar_;
  Limits limits_;
  std::vector<State> states_;
  std::vector<Thread> threads_;
  std::vector<Stack> stacks_;
  std::vector<Edge> edges_;
  std::vector<std::unique_ptr<StateId[]>> row_blocks_;
  std::vector<StackId> members_;  // of all unions: of number n, [unions_[n], unions_[n + 1])
  std::vector<std::uint32_t> unions_{0};
  std::vector<StateId> popped_;
  InternTable state_table_, stack_table_, union_table_;
  std::vector<std::uint32_t> split_at_;  // per expression: 1 + index into splits_, 0: not split yet
  std::vector<std::pair<ExprId, ExprId>> splits_;
  std::size_t num_rows_ = 0;
  StateId start_ = kDead;
  std::vector<std::uint32_t> closure_at_;  // per expression: 1 + index into closures_, 0: not found yet
  std::vector<Closure> closures_;
  std::vector<Stack> closure_frames_;
  std::vector<Thread> closure_threads_;
  std::vector<StackId> frame_ids_;
  // the state or closure under way
  std::vector<Thread> work_, remain_, ready_;
  std::vector<StateId> ended_;  // states behind what can end, beside remain_
  std::vector<std::uint64_t> seen_;
  InternTable seen_table_;  // of seen_, when it is long
  std::vector<StackId> closure_stacks_;
  bool accepting_ = false;
  std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace gramcore::grammar
