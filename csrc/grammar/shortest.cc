#include "grammar/shortest.h"

#include <algorithm>

#include "grammar/walk.h"

namespace gramcore::grammar {
namespace {

constexpr std::size_t kMaxText = 20000;  // symbols; longer texts are no plans
constexpr std::uint32_t kFirstSet = 256;

}  // namespace

Shortest::Shortest(const Vocab* vocab, Automaton* automaton, const std::vector<Bitset>& token_sets)
    : vocab_(*vocab), automaton_(*automaton), at_(vocab->max_token_bytes() + 1) {
  for (const Bitset& set : token_sets) {
    std::uint32_t id = 0;
    while (id < vocab->size() && !set.test(id)) ++id;
    first_of_set_.push_back(id < vocab->size() ? id : kNever);
  }
  find_rules();
}

bool Shortest::better(const Found& a, const Found& b) {
  if (!a.any || !b.any) return a.any;
  return a.text.size() != b.text.size() ? a.text.size() < b.text.size() : a.text < b.text;
}

Shortest::Found Shortest::joined(const Found& a, const Found& b) {
  if (!a.any || !b.any || a.text.size() + b.text.size() > kMaxText) return {};
  return {true, a.text + b.text};
}

// Rules by iteration: a round takes the texts of the round before, until none gets better.
void Shortest::find_rules() {
  const std::vector<Rule>& rules = automaton_.grammar().rules;
  rules_.assign(rules.size(), {});
  for (bool changed = true; changed;) {
    changed = false;
    exprs_.clear();
    for (std::size_t r = rules.size(); r-- > 0;) {
      Found found = of(rules[r].body);
      if (better(found, rules_[r])) {
        rules_[r] = std::move(found);
        changed = true;
      }
    }
  }
  exprs_.clear();
}

Shortest::Found Shortest::of(ExprId e) {
  const auto known = exprs_.find(e);
  if (known != exprs_.end()) return known->second;
  const Node n = automaton_.pool()[e];
  Found out;
  switch (n.kind) {
    case Kind::kEmpty: break;
    case Kind::kEpsilon: out.any = true; break;
    case Kind::kClass: {
      const ByteSet& set = automaton_.pool().set_of(e);
      std::uint32_t b = 0;
      while (!set.has(static_cast<std::uint8_t>(b))) ++b;
      out = {true, Text(1, static_cast<char32_t>(b))};
      break;
    }
    case Kind::kText:
      out.any = true;
      for (const char c : automaton_.pool().text_of(e)) out.text.push_back(static_cast<unsigned char>(c));
      break;
    case Kind::kCat: {  // long texts are long lists: not one call per byte
      out = {true, {}};
      ExprId rest = e;
      for (; out.any && automaton_.pool()[rest].kind == Kind::kCat; rest = automaton_.pool()[rest].b) {
        out = joined(out, of(automaton_.pool()[rest].a));
      }
      if (out.any) out = joined(out, of(rest));
      break;
    }
    case Kind::kAlt: {
      const Span<const ExprId> kids = automaton_.pool().kids(e);
      for (const ExprId k : std::vector<ExprId>(kids.begin(), kids.end())) {
        const Found found = of(k);
        if (better(found, out)) out = found;
      }
      break;
    }
    case Kind::kRepeat: {
      out.any = true;
      if (n.min == 0) break;
      const Found one = of(n.a);
      out.any = one.any && one.text.size() * n.min <= kMaxText;
      for (std::uint32_t i = 0; out.any && i < n.min; ++i) out.text += one.text;
      break;
    }
    case Kind::kCall: return rules_[n.a];
    case Kind::kToken: out = {true, Text(1, static_cast<char32_t>(kFirstSet + n.a))}; break;
    case Kind::kKeys: out = of_keys(n.a, n.b); break;
    case Kind::kUnique:
    case Kind::kTrace: out = of_unique(n); break;
    default: out = searched(e);
  }
  exprs_[e] = out;
  return out;
}

// Breadth first over derivatives; bytes ascend, so the first end found is the least text.
Shortest::Found Shortest::searched(ExprId e) {
  ExprPool& pool = automaton_.pool();
  struct Step {
    ExprId e;
    std::size_t from;
    std::uint32_t byte;
  };
  std::vector<Step> queue{{e, 0, 0}};
  std::unordered_map<ExprId, bool> seen{{e, true}};
  for (std::size_t i = 0; i < queue.size() && queue.size() < kMaxText; ++i) {
    if (pool[queue[i].e].nullable) {
      Found out{true, {}};
      for (std::size_t k = i; k != 0; k = queue[k].from) out.text.push_back(static_cast<char32_t>(queue[k].byte));
      std::reverse(out.text.begin(), out.text.end());
      return out;
    }
    const Span<const Piece> pieces = pool.pieces(queue[i].e);
    std::vector<std::pair<std::uint32_t, ExprId>> next;
    for (const Piece& p : pieces) {
      std::uint32_t b = 0;
      while (!p.set.has(static_cast<std::uint8_t>(b))) ++b;
      next.push_back({b, p.target});
    }
    std::sort(next.begin(), next.end());
    for (const auto& [byte, target] : next) {
      if (seen.emplace(target, true).second) queue.push_back({target, i, byte});
    }
  }
  return {};
}

// The members that are still needed, one after the other, each the least that brings the end nearer.
Shortest::Found Shortest::of_keys(std::uint32_t number, std::uint32_t state) {
  const KeySet& set = automaton_.grammar().key_sets[number];
  KeySet::State here = set.states[state];
  std::vector<bool> alive;
  for (const KeySet::Member& m : set.members) alive.push_back(m.e != ExprPool::kEmpty);
  Found out{true, {}};
  for (std::uint32_t need = set.need(here, alive); need > 0 || here.count < set.least;) {
    if (need == kUnbounded) return {};
    Found best;
    KeySet::State behind = here;
    for (const KeySet::Member& m : set.members) {
      if (m.e == ExprPool::kEmpty || !set.fits(here, m)) continue;
      KeySet::State next = set.after(here, m);
      const std::uint32_t more = set.need(next, alive);
      if (more > need || (need > 0 && more == need)) continue;
      Found found = of(m.e);
      if (!better(found, best)) continue;
      best = std::move(found);
      behind = std::move(next);
    }
    if (here.count > 0) out = joined(out, of(set.comma));
    out = joined(out, best);
    if (!out.any) return out;
    behind.count = here.count + 1;
    here = std::move(behind);
    need = set.need(here, alive);
  }
  return joined(out, of(set.close));
}

// An array of different items, or one of these and the array behind it: no more items than are needed.
Shortest::Found Shortest::of_unique(const Node& n) {
  Grammar* g = &automaton_.grammar();
  if (n.kind == Kind::kUnique) {
    const UniqueSet& set = g->unique_sets[n.a];
    return of(set.states[n.b].size() >= set.least ? set.close : unique_set_body(g, n.a, n.b));
  }
  const Found item = of(n.max);
  if (!item.any) return item;
  std::string text = automaton_.pool().trail_text(n.min);
  for (const char32_t c : item.text) text.push_back(static_cast<char>(c));
  return joined(item, of(behind_item(g, n.a, n.b, text)));
}

Shortest::Found Shortest::of_stack(StackId stack) {
  stacks_.emplace(Automaton::kBottom, Found{true, {}});
  std::vector<StackId> open{stack};  // not one call per level: texts nest deeply
  while (!open.empty()) {
    const StackId top = open.back();
    if (stacks_.count(top) != 0) {
      open.pop_back();
      continue;
    }
    const auto frames = automaton_.frames(top);
    const std::size_t waiting = open.size();
    for (const auto& frame : frames) {
      if (stacks_.count(frame.second) == 0) open.push_back(frame.second);
    }
    if (open.size() > waiting) continue;
    Found best;
    for (const auto& [next, parent] : frames) {
      const Found found = joined(of(next), stacks_.at(parent));
      if (better(found, best)) best = found;
    }
    stacks_[top] = best;
  }
  return stacks_.at(stack);
}

const Shortest::Plan& Shortest::plan(StateId state) {
  if (plans_.size() <= state) plans_.resize(std::max<std::size_t>(state + 1, automaton_.num_states()));
  if (plans_[state].known) return plans_[state];
  Found best;
  best.any = automaton_.accepting(state);
  const Span<const Thread> threads = automaton_.threads(state);
  for (const Thread& t : std::vector<Thread>(threads.begin(), threads.end())) {
    const Found found = joined(of(t.top), of_stack(t.stack));
    if (better(found, best)) best = found;
  }
  Plan made;
  made.known = true;
  if (best.any) made.distance = vocab_.stop().empty() ? 0 : 1;
  const Trie& trie = vocab_.trie();
  for (std::size_t at = 0; best.any && at < best.text.size();) {
    std::uint32_t token = kNever;
    std::size_t end = at + 1;
    if (best.text[at] >= kFirstSet) {
      token = first_of_set_[best.text[at] - kFirstSet];
    } else {
      std::uint32_t node = 0;
      for (std::size_t i = at; i < best.text.size() && best.text[i] < kFirstSet; ++i) {
        std::uint32_t child = node + 1;
        while (child < trie.nodes[node].end && trie.nodes[child].byte != best.text[i]) child = trie.nodes[child].end;
        if (child >= trie.nodes[node].end) break;
        node = child;
        if (trie.nodes[node].first_token < trie.nodes[node + 1].first_token) {
          token = trie.tokens[trie.nodes[node].first_token];
          end = i + 1;
        }
      }
    }
    if (token == kNever) {  // the vocabulary cannot spell it
      made.distance = made.first = kNever;
      break;
    }
    if (at == 0) made.first = token;
    ++made.distance;
    at = end;
  }
  if (plans_.size() <= state) plans_.resize(state + 1);
  return plans_[state] = made;
}

void Shortest::walk(StateId state, std::vector<std::uint32_t>* out) {
  const Trie& trie = vocab_.trie();
  walk_trie(&automaton_, trie, 1, trie.nodes[0].end, 0, state, &at_,
            [&](std::uint32_t token, StateId next) { (*out)[token] = distance(next); });
}

}  // namespace gramcore::grammar
