#include "grammar/automaton.h"

#include <algorithm>
#include <cstring>

namespace gramcore::grammar {

Automaton::Automaton(Grammar grammar, Limits limits) : grammar_(std::move(grammar)), limits_(limits) {
  add_state(0, false);
  edges_.emplace_back();
  stacks_.assign(2, {ExprPool::kEpsilon, kBottom});
  begin();
  accepting_ = true;
  popped_.assign(1, finish());
  start_ = popped(push(grammar_.start, kBottom));
}

std::size_t Automaton::bytes() const {
  return states_.capacity() * sizeof(State) + threads_.capacity() * sizeof(Thread) +
         stacks_.capacity() * sizeof(Stack) + row_blocks_.size() * kRowsPerBlock * 256 * sizeof(StateId) +
         edges_.capacity() * sizeof(Edge) + state_table_.bytes() + stack_table_.bytes() + union_table_.bytes() +
         (members_.capacity() + unions_.capacity() + closure_at_.capacity() + split_at_.capacity()) * sizeof(StackId) +
         closures_.capacity() * sizeof(Closure) + closure_frames_.capacity() * sizeof(Stack) +
         closure_threads_.capacity() * sizeof(Thread) + splits_.capacity() * sizeof(splits_[0]) + grammar_.pool.bytes();
}

void Automaton::add_state(std::uint32_t threads, bool accepting) {
  State s{};
  s.first = static_cast<std::uint32_t>(threads_.size());
  s.count = threads;
  s.accepting = accepting;
  states_.push_back(s);
}

StackId Automaton::push(ExprId next, StackId parent) {
  return stack_table_.find_or_add(
      mix(next, parent), [&](std::uint32_t i) { return stacks_[i].next == next && stacks_[i].parent == parent; },
      [&] {
        GC_CHECK_AS(GrammarTooComplex, stacks_.size() < limits_.max_states,
                    "text must need at most max_states stacks, got more than ", limits_.max_states,
                    "; simplify the grammar or raise the budget");
        stacks_.push_back({next, parent});
        return static_cast<std::uint32_t>(stacks_.size() - 1);
      });
}

void Automaton::begin() {
  ready_.clear();
  accepting_ = false;
}

void Automaton::add(StateId state) {
  const Span<const Thread> list = threads(state);
  ready_.insert(ready_.end(), list.begin(), list.end());
  accepting_ |= states_[state].accepting;
}

void Automaton::check_budget() const {
  GC_CHECK_AS(GrammarTooComplex, states_.size() < limits_.max_states && bytes() < limits_.max_bytes,
              "text must need at most ", limits_.max_states, " states and ", limits_.max_bytes, " bytes, got ",
              states_.size(), " states and ", bytes(), " bytes; simplify the grammar or raise the budget");
  if (limits_.max_seconds <= 0 || states_.size() % 16 != 0) return;
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started_).count();
  GC_CHECK_AS(GrammarTooComplex, seconds < limits_.max_seconds, "a step must take at most ", limits_.max_seconds,
              " s, got ", seconds, " s and ", states_.size(), " states; simplify the grammar or raise the budget");
}

// Puts the threads collected since begin() in order; those with one stack become one expression.
void Automaton::merge_ready() {
  std::sort(ready_.begin(), ready_.end(),
            [](const Thread& x, const Thread& y) { return x.stack != y.stack ? x.stack < y.stack : x.top < y.top; });
  ready_.erase(std::unique(ready_.begin(), ready_.end()), ready_.end());
  std::size_t out = 0;
  for (std::size_t i = 0; i < ready_.size();) {
    std::size_t j = i + 1;
    while (j < ready_.size() && ready_[j].stack == ready_[i].stack) ++j;
    const StackId stack = ready_[i].stack;
    std::vector<ExprId> tops;
    for (std::size_t k = i; j > i + 1 && k < j; ++k) {
      if (grammar_.pool[ready_[k].top].kind == Kind::kTrace) {  // has what follows it by itself
        ready_[out++] = ready_[k];
      } else {
        tops.push_back(ready_[k].top);
      }
    }
    if (j == i + 1) {
      ready_[out++] = ready_[i];
    } else if (!tops.empty()) {
      ready_[out++] = {grammar_.pool.alt(std::move(tops)), stack};
    }
    i = j;
  }
  ready_.resize(out);
}

// Interns the state whose threads were collected since begin().
StateId Automaton::finish() {
  GC_CHECK_AS(GrammarTooComplex, ready_.size() <= limits_.max_closure, "grammar must go on in at most ",
              limits_.max_closure, " ways between two bytes, got ", ready_.size(), "; simplify it");
  merge_ready();
  unite_ready();
  if (ready_.empty() && !accepting_) return kDead;
  std::uint64_t h = accepting_ ? 3 : 5;
  for (const Thread& t : ready_) h = mix(mix(h, t.top), t.stack);
  return state_table_.find_or_add(
             h,
             [&](std::uint32_t i) {
               const State& s = states_[i + 1];
               return s.accepting == accepting_ && s.count == ready_.size() &&
                      std::equal(ready_.begin(), ready_.end(), threads_.begin() + s.first);
             },
             [&] {
               check_budget();
               add_state(static_cast<std::uint32_t>(ready_.size()), accepting_);
               threads_.insert(threads_.end(), ready_.begin(), ready_.end());
               return static_cast<std::uint32_t>(states_.size() - 2);
             }) +
         1;
}

StateId Automaton::compute(StateId state, std::uint8_t byte) {
  if (state == kDead) return kDead;
  const std::uint32_t first = states_[state].first, count = states_[state].count;
  ByteSet same = ByteSet::all();
  ExprPool& pool = grammar_.pool;
  clear_remains();
  for (std::uint32_t i = 0; i < count; ++i) {
    const Thread t = threads_[first + i];
    const ExprId d = pool.derivative(t.top, byte, &same);
    if (d != ExprPool::kEmpty) leave({d, t.stack});
  }
  const StateId next = behind_remains();
  remember(state, same, next);
  return next;
}

// The stack below an expression that can end here, kNowhere if it cannot.
StackId Automaton::below(const Thread& t) {
  const Node n = grammar_.pool[t.top];
  if (n.kind != Kind::kTrace) return n.nullable ? t.stack : kNowhere;
  return grammar_.pool[n.max].nullable ? behind_trace(t, grammar_.pool.trail_text(n.min)) : kNowhere;
}

// The stack on which an array goes on behind an item with this text.
StackId Automaton::behind_trace(const Thread& t, std::string_view item) {
  const Node n = grammar_.pool[t.top];
  const ExprId next = behind_item(&grammar_, n.a, n.b, item);
  return next == ExprPool::kEmpty ? kNowhere : push(next, t.stack);
}

void Automaton::clear_remains() {
  remain_.clear();
  ended_.clear();
}

// Takes a thread into the state that behind_remains() makes.
void Automaton::leave(const Thread& t) {
  ExprPool& pool = grammar_.pool;
  const Node n = pool[t.top];
  const ExprId rest = n.kind == Kind::kTrace ? n.max : t.top;
  if (rest != ExprPool::kEpsilon && !pool.is_empty(rest)) remain_.push_back(t);
  const StackId stack = below(t);
  if (stack != kNowhere) ended_.push_back(popped(stack));
}

StateId Automaton::behind_remains() {
  begin();
  ready_.insert(ready_.end(), remain_.begin(), remain_.end());
  for (const StateId state : ended_) add(state);
  return finish();
}

StateId Automaton::run(StateId state, Span<const std::uint8_t> bytes) {
  ExprPool& pool = grammar_.pool;
  for (std::size_t i = 0; i < bytes.size() && state != kDead;) {
    const StateId next = known(state, bytes[i]);
    const Thread only = states_[state].count == 1 ? threads_[states_[state].first] : Thread{ExprPool::kEmpty, kBottom};
    const std::string_view text = pool.first_text(only.top);
    if (next != kUnknown || text.size() < 2 || i + 1 == bytes.size()) {
      state = next != kUnknown ? next : compute(state, bytes[i]);
      ++i;
      continue;
    }
    const std::size_t many = std::min(text.size(), bytes.size() - i);
    if (std::memcmp(text.data(), bytes.data() + i, many) != 0) return kDead;
    const ExprId rest = pool.behind_text(only.top, many);
    clear_remains();
    leave({rest, only.stack});
    state = behind_remains();
    i += many;
  }
  return state;
}

// The transition of a state by the bytes of a set.
void Automaton::remember(StateId state, const ByteSet& set, StateId to) {
  State& s = states_[state];
  const auto write = [&](const ByteSet& bytes, StateId target) {
    for (unsigned b = 0; b < 256; ++b) {
      if (bytes.has(static_cast<std::uint8_t>(b))) s.row[b] = target;
    }
  };
  if (s.row == nullptr) {
    unsigned count = 0;
    for (std::uint32_t e = s.edges; e != 0; e = edges_[e].older) ++count;
    if (count < kFewEdges) {
      edges_.push_back({set, to, s.edges});
      s.edges = static_cast<std::uint32_t>(edges_.size() - 1);
      return;
    }
    if (num_rows_ % kRowsPerBlock == 0) row_blocks_.emplace_back(new StateId[kRowsPerBlock * 256]);
    s.row = row_blocks_.back().get() + 256 * (num_rows_++ % kRowsPerBlock);
    std::fill_n(s.row, 256, kUnknown);
    for (std::uint32_t e = s.edges; e != 0; e = edges_[e].older) write(edges_[e].set, edges_[e].to);
  }
  write(set, to);
}

StateId Automaton::popped(StackId stack) {
  const auto known = [&](StackId s) { return s < popped_.size() && popped_[s] != kUnknown; };
  if (known(stack)) return popped_[stack];
  std::vector<StackId> open;  // stacks whose continuations are needed, the last one first
  for (StackId s = stack; !known(s); s = stacks_[s].parent) {
    if (stacks_[s].next == kUnion) {
      const StateId state = pop_union(s);
      popped_.resize(stacks_.size(), kUnknown);
      popped_[s] = state;
      break;
    }
    open.push_back(s);
    if (!closure(stacks_[s].next).nullable) break;
  }
  for (std::size_t i = open.size(); i-- > 0;) {
    const Stack s = stacks_[open[i]];
    begin();
    add_closure(closure(s.next), s.parent);
    if (closure(s.next).nullable) add(popped_[s.parent]);
    const StateId state = finish();
    popped_.resize(stacks_.size(), kUnknown);
    popped_[open[i]] = state;
  }
  return popped_[stack];
}

bool Automaton::names_tokens(StateId state) {
  bool found = false;
  if (grammar_.token_sets.empty()) return found;
  for (const Thread& t : threads(state)) each_token_set(t.top, [&](std::uint32_t) { found = true; });
  return found;
}

StateId Automaton::take(StateId state, const std::vector<std::uint8_t>& in) {
  std::vector<StateId> behind;
  for (std::uint32_t i = 0; i < states_[state].count; ++i) {
    const Thread t = threads_[states_[state].first + i];
    bool taken = false;
    each_token_set(t.top, [&](std::uint32_t set) { taken |= in[set] != 0; });
    if (taken) behind.push_back(popped(t.stack));
  }
  begin();
  for (const StateId s : behind) add(s);
  return finish();
}

StateId Automaton::unite(StateId a, StateId b) {
  if (a == b || b == kDead) return a;
  if (a == kDead) return b;
  begin();
  add(a);
  add(b);
  return finish();
}

std::vector<std::uint8_t> Automaton::forced_bytes(StateId state, std::size_t limit) {
  std::vector<std::uint8_t> out;
  while (out.size() < limit && !accepting(state) && !names_tokens(state)) {
    int only = -1;
    StateId next = kDead;
    for (int b = 0; b < 256; ++b) {
      const StateId s = step(state, static_cast<std::uint8_t>(b));
      if (s == kDead) continue;
      if (only >= 0) return out;
      only = b;
      next = s;
    }
    if (only < 0) return out;
    out.push_back(static_cast<std::uint8_t>(only));
    state = next;
  }
  return out;
}

}  // namespace gramcore::grammar
