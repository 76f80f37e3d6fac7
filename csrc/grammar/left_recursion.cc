// Left recursion, removed by solving left-linear equations.
//
// Take rules X_1 .. X_k that can call each other before any byte.  First their bodies are brought into a form where
// what stands at the left matches no empty text; then each is X_i = B_i | X_1 R_i1 | .. | X_k R_ik with B_i free of
// such calls.  The solution begins with some B_j and appends remainders until it is an X_i:
//   X_i = B_1 T_1i | .. | B_k T_ki,    T_ji = (empty if j = i) | R_1j T_1i | .. | R_kj T_ki
// where remainders that are empty (X_m = X_j | ..) are followed at once.  T are new rules; they recur at the right.
#include <algorithm>
#include <map>
#include <string>
#include <unordered_map>

#include "grammar/analysis.h"

namespace gramcore::grammar {

bool nullable(Grammar& g, const Facts& rules, ExprId e) {
  const Node& n = g.pool[e];
  if (!n.has_call) return n.nullable;
  switch (n.kind) {
    case Kind::kCat: return nullable(g, rules, n.a) && nullable(g, rules, n.b);
    case Kind::kRepeat: return n.min == 0 || nullable(g, rules, n.a);
    case Kind::kCall: return rules[n.a];
    case Kind::kKeys:
    case Kind::kUnique:
    case Kind::kToken: return false;
    default:
      for (const ExprId k : g.pool.kids(e)) {
        if (nullable(g, rules, k)) return true;
      }
      return false;
  }
}

// Rules that `e` can call before any byte.
void left_calls(Grammar& g, const Facts& nulls, ExprId e, std::vector<std::uint32_t>* out) {
  const Node& n = g.pool[e];
  if (!n.has_call) return;
  switch (n.kind) {
    case Kind::kCat:
      left_calls(g, nulls, n.a, out);
      if (nullable(g, nulls, n.a)) left_calls(g, nulls, n.b, out);
      return;
    case Kind::kRepeat: left_calls(g, nulls, n.a, out); return;
    case Kind::kCall: out->push_back(n.a); return;
    case Kind::kKeys:
    case Kind::kUnique:
    case Kind::kToken: return;  // begins with text
    default:
      for (const ExprId k : g.pool.kids(e)) left_calls(g, nulls, k, out);
  }
}

namespace {

constexpr std::size_t kMaxRules = 200'000;

// Strongly connected components of the graph of left calls; a rule in no cycle has component kNone.
constexpr std::uint32_t kNone = 0xFFFFFFFFu;
std::vector<std::uint32_t> cycles(const std::vector<std::vector<std::uint32_t>>& next, std::uint32_t* count) {
  const std::size_t n = next.size();
  std::vector<std::uint32_t> index(n, kNone), low(n, 0), component(n, kNone), stack;
  std::vector<std::uint8_t> on_stack(n, 0);
  std::uint32_t clock = 0;
  *count = 0;
  struct Frame {
    std::uint32_t rule;
    std::size_t child;
  };
  for (std::uint32_t root = 0; root < n; ++root) {
    if (index[root] != kNone) continue;
    std::vector<Frame> path{{root, 0}};
    while (!path.empty()) {
      const std::uint32_t r = path.back().rule;
      if (path.back().child == 0 && index[r] == kNone) {
        index[r] = low[r] = clock++;
        stack.push_back(r);
        on_stack[r] = 1;
      }
      if (path.back().child < next[r].size()) {
        const std::uint32_t to = next[r][path.back().child++];
        if (index[to] == kNone) {
          path.push_back({to, 0});
        } else if (on_stack[to]) {
          low[r] = std::min(low[r], index[to]);
        }
        continue;
      }
      path.pop_back();
      if (!path.empty()) low[path.back().rule] = std::min(low[path.back().rule], low[r]);
      if (low[r] != index[r]) continue;
      std::vector<std::uint32_t> members;
      do {
        members.push_back(stack.back());
        on_stack[stack.back()] = 0;
        stack.pop_back();
      } while (members.back() != r);
      const bool cyclic = members.size() > 1 || std::find(next[r].begin(), next[r].end(), r) != next[r].end();
      if (!cyclic) continue;
      for (const auto m : members) component[m] = *count;
      ++*count;
    }
  }
  return component;
}

class Remover {
 public:
  explicit Remover(Grammar* g) : g_(*g), pool_(g->pool), nulls_(fixpoint(*g, nullable)) {}

  void run() {
    std::uint32_t count = 0;
    std::vector<std::uint32_t> component = components(&count);
    if (count == 0) return;
    for (std::uint32_t r = 0; r < component.size(); ++r) {
      if (component[r] != kNone) make_left_solid(r);
    }
    component = components(&count);  // now among rules that match no empty text
    for (std::uint32_t c = 0; c < count; ++c) {
      std::vector<std::uint32_t> members;
      for (std::uint32_t r = 0; r < component.size(); ++r) {
        if (component[r] == c) members.push_back(r);
      }
      solve(members);
    }
  }

 private:
  std::vector<std::uint32_t> components(std::uint32_t* count) {
    std::vector<std::vector<std::uint32_t>> next(g_.rules.size());
    for (std::size_t r = 0; r < next.size(); ++r) left_calls(g_, nulls_, g_.rules[r].body, &next[r]);
    return cycles(next, count);
  }
  std::uint32_t add_rule(std::string name, bool null) {
    GC_CHECK_AS(GrammarTooComplex, g_.rules.size() < kMaxRules, "grammar must need at most ", kMaxRules,
                " rules without left recursion, got more; write repetitions with * or right recursion");
    nulls_.push_back(null);
    return g_.add_rule(std::move(name));
  }

  // Rule r gets a body whose left parts match no empty text; its empty text, if any, is split off.
  void make_left_solid(std::uint32_t r) {
    if (nulls_[r]) {
      g_.rules[r].body = pool_.optional(pool_.call(solid_rule(r)));
    } else {
      g_.rules[r].body = solid(g_.rules[r].body);
    }
  }
  // The rule for what `r` matches without the empty text.
  std::uint32_t solid_rule(std::uint32_t r) {
    if (!nulls_[r]) return r;
    const auto found = solid_rules_.find(r);
    if (found != solid_rules_.end()) return found->second;
    const std::uint32_t made = add_rule(g_.rules[r].name + "'", false);
    solid_rules_.emplace(r, made);
    const ExprId body = solid(g_.rules[r].body);
    g_.rules[made].body = body;
    return made;
  }
  // `e` without the empty text.
  ExprId solid(ExprId e) {
    const Node n = pool_[e];
    switch (n.kind) {
      case Kind::kEpsilon: return ExprPool::kEmpty;
      case Kind::kCall: return pool_.call(solid_rule(n.a));
      case Kind::kCat: {
        const ExprId first = pool_.cat(solid(n.a), n.b);
        return nullable(g_, nulls_, n.a) ? pool_.alt({first, solid(n.b)}) : first;
      }
      case Kind::kAlt: {
        std::vector<ExprId> kids(pool_.kids(e).begin(), pool_.kids(e).end());
        for (ExprId& k : kids) k = solid(k);
        return pool_.alt(std::move(kids));
      }
      case Kind::kRepeat: {
        const std::uint32_t max = n.max == kUnbounded ? kUnbounded : n.max - 1;
        return pool_.cat(solid(n.a), pool_.repeat(n.a, n.min ? n.min - 1 : 0, max));
      }
      case Kind::kAnd:
      case Kind::kNot:
        return n.nullable ? pool_.conj({e, pool_.cat(pool_.byte_class(ByteSet::all()), pool_.anything())}) : e;
      default: return e;
    }
  }

  using Remainders = std::map<std::uint32_t, std::vector<ExprId>>;  // rule -> what follows it
  // `e` times `rest`: what begins without a call of a member goes to `base`, what follows such a call to `out`.
  void split(ExprId e, ExprId rest, std::vector<ExprId>* base, Remainders* out) {
    const Node n = pool_[e];
    if (n.has_call) {
      if (n.kind == Kind::kCat) return split(n.a, pool_.cat(n.b, rest), base, out);
      if (n.kind == Kind::kAlt) {
        const std::vector<ExprId> kids(pool_.kids(e).begin(), pool_.kids(e).end());
        for (const ExprId k : kids) split(k, rest, base, out);
        return;
      }
      if (n.kind == Kind::kCall && member_.count(n.a) != 0) {
        (*out)[n.a].push_back(rest);
        return;
      }
    }
    base->push_back(pool_.cat(e, rest));
  }

  void solve(const std::vector<std::uint32_t>& members) {
    member_.clear();
    for (std::uint32_t i = 0; i < members.size(); ++i) member_[members[i]] = i;
    const std::size_t k = members.size();
    std::vector<ExprId> bases(k);
    followers_.assign(k, {});
    units_.assign(k, {});
    for (std::uint32_t i = 0; i < k; ++i) {
      std::vector<ExprId> base;
      Remainders remainders;
      split(g_.rules[members[i]].body, ExprPool::kEpsilon, &base, &remainders);
      bases[i] = pool_.alt(std::move(base));
      for (auto& [rule, rests] : remainders) {
        const std::uint32_t j = member_[rule];
        const ExprId rest = pool_.alt(std::move(rests));
        if (nullable(g_, nulls_, rest)) units_[j].push_back(i);
        followers_[j].emplace_back(i, solid(rest));
      }
    }
    tails_.clear();
    for (std::uint32_t i = 0; i < k; ++i) {
      std::vector<ExprId> starts;
      for (std::uint32_t j = 0; j < k; ++j) {
        if (bases[j] != ExprPool::kEmpty) {
          const ExprId tail = pool_.call(tail_rule(members, j, i));
          starts.push_back(pool_.cat(bases[j], tail));
        }
      }
      g_.rules[members[i]].body = pool_.alt(std::move(starts));
    }
    while (!open_.empty()) {
      const auto [j, i] = open_.back();
      open_.pop_back();
      const std::uint32_t rule = tails_.at({j, i});
      const ExprId body = tail_body(members, j, i);
      g_.rules[rule].body = body;
    }
  }
  // T_ji, its body still to be made.
  std::uint32_t tail_rule(const std::vector<std::uint32_t>& members, std::uint32_t j, std::uint32_t i) {
    const auto found = tails_.find({j, i});
    if (found != tails_.end()) return found->second;
    const std::uint32_t made = add_rule(g_.rules[members[i]].name + "~" + g_.rules[members[j]].name, reaches(j, i));
    tails_.emplace(std::make_pair(j, i), made);
    open_.emplace_back(j, i);
    return made;
  }
  // Members that X_j is without anything appended.
  std::vector<std::uint32_t> same_as(std::uint32_t j) const {
    std::vector<std::uint32_t> reached{j};
    for (std::size_t at = 0; at < reached.size(); ++at) {
      for (const std::uint32_t m : units_[reached[at]]) {
        if (std::find(reached.begin(), reached.end(), m) == reached.end()) reached.push_back(m);
      }
    }
    return reached;
  }
  bool reaches(std::uint32_t j, std::uint32_t i) const {
    const auto same = same_as(j);
    return std::find(same.begin(), same.end(), i) != same.end();
  }
  ExprId tail_body(const std::vector<std::uint32_t>& members, std::uint32_t j, std::uint32_t i) {
    std::vector<ExprId> parts;
    if (reaches(j, i)) parts.push_back(ExprPool::kEpsilon);
    for (const std::uint32_t m : same_as(j)) {
      for (const auto& [to, rest] : followers_[m]) {
        if (rest == ExprPool::kEmpty) continue;
        const ExprId tail = pool_.call(tail_rule(members, to, i));
        parts.push_back(pool_.cat(rest, tail));
      }
    }
    return pool_.alt(std::move(parts));
  }

  Grammar& g_;
  ExprPool& pool_;
  Facts nulls_;
  std::unordered_map<std::uint32_t, std::uint32_t> solid_rules_;
  // of the component being solved
  std::map<std::uint32_t, std::uint32_t> member_;                           // rule -> number
  std::vector<std::vector<std::pair<std::uint32_t, ExprId>>> followers_;    // j -> (i, R_ij without the empty text)
  std::vector<std::vector<std::uint32_t>> units_;                           // j -> i with an empty R_ij
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> tails_;  // (j, i) -> rule T_ji
  std::vector<std::pair<std::uint32_t, std::uint32_t>> open_;
};

}  // namespace

void remove_left_recursion(Grammar* g) {
  Remover(g).run();
}

}  // namespace gramcore::grammar
