#include "grammar/copy.h"

#include <algorithm>
#include <stdexcept>
#include <unordered_map>
#include <vector>

#include "grammar/catalogue.h"

namespace gramcore::grammar {

std::vector<ExprId> in_order(const Grammar& g) {
  std::vector<std::uint8_t> seen(g.pool.size(), 0);
  std::vector<ExprId> order, stack;
  const auto visit = [&](ExprId root) {
    stack.push_back(root);
    while (!stack.empty()) {
      const ExprId e = stack.back();
      if (seen[e] == 2) {
        stack.pop_back();
        continue;
      }
      const Node& n = g.pool[e];
      if (seen[e] == 1) {
        seen[e] = 2;
        order.push_back(e);
        stack.pop_back();
        continue;
      }
      seen[e] = 1;
      const auto push = [&](ExprId k) {
        if (seen[k] == 0) stack.push_back(k);
      };
      switch (n.kind) {
        case Kind::kCat: push(n.a), push(n.b); break;
        case Kind::kNot:
        case Kind::kRepeat: push(n.a); break;
        case Kind::kAlt:
        case Kind::kAnd:
          for (const ExprId k : g.pool.kids(e)) push(k);
          break;
        default: break;
      }
    }
  };
  for (const KeySet& set : g.key_sets) {
    for (const KeySet::Member& m : set.members) visit(m.e);
    for (const ExprId e : {set.comma, set.close}) visit(e);
  }
  for (const UniqueSet& set : g.unique_sets) {
    for (const ExprId e : {set.item, set.comma, set.close}) visit(e);
  }
  for (const Rule& r : g.rules) visit(r.body);
  visit(g.start);
  return order;
}

ExprId make_expr(ExprPool* pool, const Node& n, const ByteSet& set, std::vector<ExprId> parts, std::uint32_t rule,
                 std::string_view text) {
  switch (n.kind) {
    case Kind::kEmpty: return ExprPool::kEmpty;
    case Kind::kEpsilon: return ExprPool::kEpsilon;
    case Kind::kClass: return pool->byte_class(set);
    case Kind::kCat: return pool->cat(parts[0], parts[1]);
    case Kind::kAlt: return pool->alt(std::move(parts));
    case Kind::kAnd: return pool->conj(std::move(parts));
    case Kind::kNot: return pool->complement(parts[0]);
    case Kind::kRepeat: return pool->repeat(parts[0], n.min, n.max);
    case Kind::kCall: return pool->call(rule);
    case Kind::kMultiple: return pool->multiple_at(n.a, n.b, n.min, n.max);
    case Kind::kKeys: return pool->keys(n.a, 0);
    case Kind::kToken: return pool->token(n.a);
    case Kind::kUnique: return pool->unique(n.a, 0);
    case Kind::kText: return pool->literal(text);
    case Kind::kTrace:
    case Kind::kTrie: break;
  }
  throw std::logic_error("unknown kind of expression");
}

std::vector<ExprId> parts_of(const Grammar& g, ExprId e) {
  const Node& n = g.pool[e];
  switch (n.kind) {
    case Kind::kCat: return {n.a, n.b};
    case Kind::kNot:
    case Kind::kRepeat: return {n.a};
    case Kind::kAlt:
    case Kind::kAnd: return {g.pool.kids(e).begin(), g.pool.kids(e).end()};
    default: return {};
  }
}

ExprId include(Grammar* g, const Grammar& part) {
  const auto first_rule = static_cast<std::uint32_t>(g->rules.size());
  const auto first_set = static_cast<std::uint32_t>(g->key_sets.size());
  const auto first_unique = static_cast<std::uint32_t>(g->unique_sets.size());
  const auto first_token_set = static_cast<std::uint32_t>(g->token_sets.size());
  g->token_sets.insert(g->token_sets.end(), part.token_sets.begin(), part.token_sets.end());
  for (const Rule& r : part.rules) g->add_rule(r.name);
  std::unordered_map<ExprId, ExprId> made;
  for (const ExprId e : in_order(part)) {
    std::vector<ExprId> parts = parts_of(part, e);
    for (ExprId& p : parts) p = made.at(p);
    const Node& n = part.pool[e];
    if (n.kind == Kind::kKeys) {
      made[e] = g->pool.keys(first_set + n.a, n.b);
      continue;
    }
    if (n.kind == Kind::kUnique) {
      made[e] = g->pool.unique(first_unique + n.a, n.b);
      continue;
    }
    if (n.kind == Kind::kToken) {
      made[e] = g->pool.token(first_token_set + n.a);
      continue;
    }
    if (n.kind == Kind::kTrie) {
      made[e] = g->pool.one_of(part.pool.catalogue_of(e), n.b);
      continue;
    }
    const ByteSet set = n.kind == Kind::kClass ? part.pool.set_of(e) : ByteSet{};
    const std::string_view text = n.kind == Kind::kText ? part.pool.text_of(e) : std::string_view{};
    made[e] = make_expr(&g->pool, n, set, std::move(parts), first_rule + (n.kind == Kind::kCall ? n.a : 0), text);
  }
  for (std::size_t r = 0; r < part.rules.size(); ++r) g->rules[first_rule + r].body = made.at(part.rules[r].body);
  for (KeySet set : part.key_sets) {
    for (KeySet::Member& m : set.members) m.e = made.at(m.e);
    for (ExprId* e : {&set.comma, &set.close}) *e = made.at(*e);
    std::fill(set.bodies.begin(), set.bodies.end(), ExprPool::kEmpty);
    g->key_sets.push_back(std::move(set));
  }
  for (const UniqueSet& set : part.unique_sets) {
    UniqueSet same;
    same.item = made.at(set.item), same.comma = made.at(set.comma), same.close = made.at(set.close);
    same.least = set.least, same.most = set.most, same.places = set.places;
    add_unique_set(g, std::move(same));
  }
  return made.at(part.start);
}

ExprPool::Hash structure_of(const Grammar& g) {
  ExprPool::Hash h = g.pool.hash(g.start);
  for (const Rule& r : g.rules) {
    for (std::size_t i = 0; i < 2; ++i) h[i] = mix(h[i], g.pool.hash(r.body)[i]);
  }
  for (const KeySet& set : g.key_sets) {
    for (std::size_t i = 0; i < 2; ++i) {
      h[i] = mix(mix(h[i], set.least), set.most);
      for (const KeySet::Member& m : set.members) h[i] = mix(mix(mix(h[i], g.pool.hash(m.e)[i]), m.key), m.marks);
      for (const bool required : set.required) h[i] = mix(h[i], required);
      for (const ExprId e : {set.comma, set.close}) h[i] = mix(h[i], g.pool.hash(e)[i]);
    }
  }
  for (const UniqueSet& set : g.unique_sets) {
    for (std::size_t i = 0; i < 2; ++i) {
      h[i] = mix(mix(mix(h[i], set.least), set.most), set.places);
      for (const ExprId e : {set.item, set.comma, set.close}) h[i] = mix(h[i], g.pool.hash(e)[i]);
    }
  }
  for (const TokenSet& set : g.token_sets) {
    for (std::size_t i = 0; i < 2; ++i) {
      h[i] = mix(mix(h[i], set.name.size()), set.negated);
      for (const char c : set.name) h[i] = mix(h[i], static_cast<unsigned char>(c));
      for (const auto& [first, last] : set.ranges) h[i] = mix(mix(h[i], first), last);
    }
  }
  return h;
}

}  // namespace gramcore::grammar
