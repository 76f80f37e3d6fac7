#include "grammar/automaton.h"

#include <algorithm>

namespace gramcore::grammar {

Automaton::Automaton(Grammar grammar, Limits limits) : grammar_(std::move(grammar)), limits_(limits) {
  states_.push_back({0, 0, false});
  rows_.emplace_back();
  stacks_.push_back({ExprPool::kEpsilon, kBottom});
  begin();
  expand(kBottom, grammar_.start);
  start_ = finish();
}

std::size_t Automaton::bytes() const {
  return states_.capacity() * sizeof(State) + threads_.capacity() * sizeof(Thread) +
         stacks_.capacity() * sizeof(Stack) + num_rows_ * 256 * sizeof(StateId) + rows_.capacity() * sizeof(void*) +
         state_table_.bytes() + stack_table_.bytes() + grammar_.pool.bytes();
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
  work_.clear();
  ready_.clear();
  seen_.clear();
  accepting_ = false;
}

// Whether `key` was seen since begin(); it has been from now on.
bool Automaton::was_seen(std::uint64_t key) {
  constexpr std::size_t kFew = 24;  // a list is searched as fast as a table
  if (seen_.size() < kFew) {
    if (std::find(seen_.begin(), seen_.end(), key) != seen_.end()) return true;
  } else {
    if (seen_.size() == kFew) seen_table_ = {seen_.begin(), seen_.end()};
    if (!seen_table_.insert(key).second) return true;
  }
  seen_.push_back(key);
  return false;
}

// Adds everything that can come next when `e` and then `stack` remain.
void Automaton::expand(StackId stack, ExprId e) {
  work_.push_back({e, stack});
  while (!work_.empty()) {
    const Thread t = work_.back();
    work_.pop_back();
    expand_one(t.stack, t.top);
  }
}

void Automaton::expand_one(StackId stack, ExprId e) {
  ExprPool& pool = grammar_.pool;
  const Node n = pool[e];
  if (!n.has_call) {
    if (n.kind != Kind::kEpsilon && !pool.is_empty(e)) ready_.push_back({e, stack});
    if (n.nullable) pop(stack);
    return;
  }
  // Rule calls: the same remainder twice adds nothing (and would not end under nullable loops).
  const std::uint64_t key = (static_cast<std::uint64_t>(e) << 32) | stack;
  if (was_seen(key)) return;
  GC_CHECK_AS(GrammarTooComplex, seen_.size() <= limits_.max_closure, "grammar must expand at most ",
              limits_.max_closure, " rules between two bytes, got more; simplify it");
  switch (n.kind) {
    case Kind::kCat: {
      const auto [head, rest] = split(e);
      work_.push_back({head, push(rest, stack)});
      break;
    }
    case Kind::kAlt:
      for (const ExprId k : pool.kids(e)) work_.push_back({k, stack});
      break;
    case Kind::kRepeat: {
      if (n.min == 0) pop(stack);
      const ExprId rest = pool.repeat(n.a, n.min ? n.min - 1 : 0, n.max == kUnbounded ? kUnbounded : n.max - 1);
      work_.push_back({n.a, rest == ExprPool::kEpsilon ? stack : push(rest, stack)});
      break;
    }
    case Kind::kCall: work_.push_back({grammar_.rules[n.a].body, stack}); break;
    case Kind::kKeys: work_.push_back({key_set_body(&grammar_, n.a, n.b), stack}); break;
    default: throw std::logic_error("an intersection or complement calls a rule");
  }
}

// A concatenation as its longest call-free head (or its first part) and what follows.
std::pair<ExprId, ExprId> Automaton::split(ExprId e) {
  const auto it = splits_.find(e);
  if (it != splits_.end()) return it->second;
  ExprPool& pool = grammar_.pool;
  std::vector<ExprId> heads;
  ExprId rest = e;
  while (pool[rest].kind == Kind::kCat && (heads.empty() || !pool[pool[rest].a].has_call)) {
    const bool call = pool[pool[rest].a].has_call;
    heads.push_back(pool[rest].a);
    rest = pool[rest].b;
    if (call) break;
  }
  ExprId head = ExprPool::kEpsilon;
  for (std::size_t i = heads.size(); i-- > 0;) head = pool.cat(heads[i], head);
  splits_.emplace(e, std::make_pair(head, rest));
  return {head, rest};
}

void Automaton::pop(StackId stack) {
  if (stack == kBottom) {
    accepting_ = true;
    return;
  }
  const Stack s = stacks_[stack];
  work_.push_back({s.next, s.parent});
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

// Interns the state whose threads were collected since begin().
StateId Automaton::finish() {
  std::sort(ready_.begin(), ready_.end(),
            [](const Thread& x, const Thread& y) { return x.stack != y.stack ? x.stack < y.stack : x.top < y.top; });
  ready_.erase(std::unique(ready_.begin(), ready_.end()), ready_.end());
  std::size_t out = 0;
  for (std::size_t i = 0; i < ready_.size();) {  // threads with one stack become one expression
    std::size_t j = i + 1;
    while (j < ready_.size() && ready_[j].stack == ready_[i].stack) ++j;
    Thread t = ready_[i];
    if (j > i + 1) {
      std::vector<ExprId> tops;
      for (std::size_t k = i; k < j; ++k) tops.push_back(ready_[k].top);
      t.top = grammar_.pool.alt(std::move(tops));
    }
    ready_[out++] = t;
    i = j;
  }
  ready_.resize(out);
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
               states_.push_back({static_cast<std::uint32_t>(threads_.size()),
                                  static_cast<std::uint32_t>(ready_.size()), accepting_});
               threads_.insert(threads_.end(), ready_.begin(), ready_.end());
               rows_.emplace_back();
               return static_cast<std::uint32_t>(states_.size() - 2);
             }) +
         1;
}

StateId Automaton::compute(StateId state, std::uint8_t byte) {
  if (state == kDead) return kDead;
  const std::uint32_t first = states_[state].first, count = states_[state].count;
  ByteSet same = ByteSet::all();
  begin();
  for (std::uint32_t i = 0; i < count; ++i) {
    const Thread t = threads_[first + i];
    const ExprId d = grammar_.pool.derivative(t.top, byte, &same);
    if (d != ExprPool::kEmpty) expand(t.stack, d);
  }
  const StateId next = finish();
  if (!rows_[state]) {
    rows_[state] = std::make_unique<StateId[]>(256);
    std::fill_n(rows_[state].get(), 256, kUnknown);
    ++num_rows_;
  }
  StateId* row = rows_[state].get();
  for (unsigned b = 0; b < 256; ++b) {
    if (same.has(static_cast<std::uint8_t>(b))) row[b] = next;
  }
  return next;
}

StateId Automaton::popped(StackId stack) {
  if (popped_.size() < stacks_.size()) popped_.resize(stacks_.size(), kUnknown);
  if (popped_[stack] == kUnknown) {
    begin();
    expand(stack, ExprPool::kEpsilon);
    const StateId s = finish();
    if (popped_.size() < stacks_.size()) popped_.resize(stacks_.size(), kUnknown);
    popped_[stack] = s;
  }
  return popped_[stack];
}

std::vector<std::uint8_t> Automaton::forced_bytes(StateId state, std::size_t limit) {
  std::vector<std::uint8_t> out;
  while (out.size() < limit && !accepting(state)) {
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
