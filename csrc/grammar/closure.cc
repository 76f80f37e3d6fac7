// What can come next when an expression begins: rule calls are opened until a byte is needed.
//
// That does not depend on the stack below, so it is found once per expression, on a stack of its own, and put on any
// other one frame by frame.
#include <algorithm>

#include "grammar/automaton.h"

namespace gramcore::grammar {

Automaton::Closure Automaton::closure(ExprId e) {
  if (closure_at_.size() <= e) closure_at_.resize(std::max<std::size_t>(e + 1, grammar_.pool.size()), 0);
  if (closure_at_[e] != 0) return closures_[closure_at_[e] - 1];
  begin();
  seen_.clear();
  work_.assign(1, {e, kBase});
  while (!work_.empty()) {
    const Thread t = work_.back();
    work_.pop_back();
    expand(t.stack, t.top);
  }
  merge_ready();
  std::vector<StackId>& stacks = closure_stacks_;  // of the threads and all below them, parents first
  stacks.clear();
  for (const Thread& t : ready_) {
    for (StackId s = t.stack; s != kBase; s = stacks_[s].parent) stacks.push_back(s);
  }
  std::sort(stacks.begin(), stacks.end());
  stacks.erase(std::unique(stacks.begin(), stacks.end()), stacks.end());
  const auto frame_of = [&](StackId s) {
    if (s == kBase) return 0u;
    return 1 + static_cast<std::uint32_t>(std::lower_bound(stacks.begin(), stacks.end(), s) - stacks.begin());
  };
  Closure made{};
  made.nullable = accepting_;
  made.first_frame = static_cast<std::uint32_t>(closure_frames_.size());
  made.num_frames = static_cast<std::uint32_t>(stacks.size()) + 1;
  made.first_thread = static_cast<std::uint32_t>(closure_threads_.size());
  made.num_threads = static_cast<std::uint32_t>(ready_.size());
  closure_frames_.push_back({ExprPool::kEpsilon, 0});
  for (const StackId s : stacks) closure_frames_.push_back({stacks_[s].next, frame_of(stacks_[s].parent)});
  for (const Thread& t : ready_) closure_threads_.push_back({t.top, frame_of(t.stack)});
  closures_.push_back(made);
  closure_at_[e] = static_cast<std::uint32_t>(closures_.size());
  return made;
}

// Adds the threads of a closure, over a stack.
void Automaton::add_closure(const Closure& closure, StackId below) {
  frame_ids_.assign(1, below);
  const Stack* frames = closure_frames_.data() + closure.first_frame;
  for (std::size_t i = 1; i < closure.num_frames; ++i) {
    frame_ids_.push_back(push(frames[i].next, frame_ids_[frames[i].parent]));
  }
  for (std::size_t i = 0; i < closure.num_threads; ++i) {
    const Thread& t = closure_threads_[closure.first_thread + i];
    ready_.push_back({t.top, frame_ids_[t.stack]});
  }
}

// Whether `key` was seen in the closure under way; it has been from now on.
bool Automaton::was_seen(std::uint64_t key) {
  constexpr std::size_t kFew = 24;           // a list is searched as fast as a table
  const auto index = [&](std::uint64_t k) {  // in seen_; the next one: k is new
    return seen_table_.find_or_add(
        mix(0, k), [&](std::uint32_t i) { return seen_[i] == k; },
        [&] {
          seen_.push_back(k);
          return static_cast<std::uint32_t>(seen_.size() - 1);
        });
  };
  if (seen_.size() < kFew) {
    if (std::find(seen_.begin(), seen_.end(), key) != seen_.end()) return true;
    seen_.push_back(key);
    return false;
  }
  if (seen_.size() == kFew) {
    const std::vector<std::uint64_t> all = std::move(seen_);
    seen_.clear();
    seen_table_.clear();
    for (const std::uint64_t k : all) index(k);
  }
  const std::size_t before = seen_.size();
  index(key);
  return seen_.size() == before;
}

void Automaton::expand(StackId stack, ExprId e) {
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
    case Kind::kToken:
    case Kind::kTrace: ready_.push_back({e, stack}); break;
    case Kind::kCall: work_.push_back({grammar_.rules[n.a].body, stack}); break;
    case Kind::kUnique: work_.push_back({unique_set_body(&grammar_, n.a, n.b), stack}); break;
    case Kind::kKeys: work_.push_back({key_set_body(&grammar_, n.a, n.b), stack}); break;
    default: throw std::logic_error("an intersection or complement calls a rule");
  }
}

// A concatenation as its longest call-free head (or its first part) and what follows.
std::pair<ExprId, ExprId> Automaton::split(ExprId e) {
  if (split_at_.size() <= e) split_at_.resize(std::max<std::size_t>(e + 1, grammar_.pool.size()), 0);
  if (split_at_[e] != 0) return splits_[split_at_[e] - 1];
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
  splits_.push_back({head, rest});
  split_at_[e] = static_cast<std::uint32_t>(splits_.size());
  return {head, rest};
}

void Automaton::pop(StackId stack) {
  if (stack == kBase || stack == kBottom) {
    accepting_ = true;
    return;
  }
  const Stack s = stacks_[stack];
  if (s.next != kUnion) {
    work_.push_back({s.next, s.parent});
    return;
  }
  for (const StackId member : members(stack)) pop(member);  // none is a union
}

}  // namespace gramcore::grammar
