// Arrays: items by position, counts, `contains`, different items.
#include <algorithm>
#include <map>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;
constexpr std::size_t kMaxArrayRules = 20000, kMaxFinite = 1024;
constexpr std::uint32_t kMaxDifferent = 64;  // items that must differ and not only may: their values are looked for

SchemaKey negation(const SchemaKey& key, const Json& anything) {
  return key.empty() ? SchemaKey{{&anything, true}} : SchemaKey{{key[0].node, !key[0].negated, key[0].scope}};
}

}  // namespace

SchemaKey SchemaCompiler::item_key(const Shape& s, std::size_t index) {
  SchemaKey key;
  for (const ArrayPart& p : s.arrays) key = join(key, index < p.prefix.size() ? p.prefix[index] : p.items);
  return key;
}

ExprId SchemaCompiler::emit_array(const Shape& s) {
  ExprPool& pool = grammar_.pool;
  const ExprId space = text_.space(), open = pool.byte('['), close = pool.cat(space, pool.byte(']'));
  const ExprId comma = pool.cat({space, pool.byte(','), space});
  std::size_t prefix = 0;
  for (const ArrayPart& p : s.arrays) prefix = std::max(prefix, p.prefix.size());
  if (s.min_items > s.max_items) return ExprPool::kEmpty;
  if (s.unique != nullptr && s.max_items > 1) {
    if (const auto e = emit_unique(s)) return *e;
    note(*s.unique, "uniqueItems", "equal items are not excluded");
  }
  if (!s.contains.empty()) return emit_contains(s, prefix);
  const ExprId rest = value(item_key(s, prefix));
  // from the last fixed position backwards; then a counted repetition of the rest
  const auto fixed = static_cast<std::uint32_t>(std::min<std::size_t>(prefix, s.max_items));
  const std::uint32_t least = s.min_items > fixed ? s.min_items - fixed : 0;
  const std::uint32_t most = s.max_items == kUnbounded ? kUnbounded : s.max_items - fixed;
  if (fixed == 0) {
    ExprId items = ExprPool::kEpsilon;
    if (most > 0) {
      items = pool.cat(rest,
                       pool.repeat(pool.cat(comma, rest), least ? least - 1 : 0, most == kUnbounded ? most : most - 1));
      if (least == 0) items = pool.optional(items);
    }
    return pool.cat({open, space, items, close});
  }
  ExprId tail = pool.repeat(pool.cat(comma, rest), least, most);
  for (std::uint32_t i = fixed; i-- > 0;) {
    tail = pool.cat({i ? comma : ExprPool::kEpsilon, value(item_key(s, i)), tail});
    if (i >= s.min_items) tail = pool.optional(tail);
  }
  return pool.cat({open, space, tail, close});
}

// One rule per number of items and of matches, both as far as they matter.  An item may count as a match of a part
// without an upper bound when it is one; with an upper bound it must count, so what does not match is needed too.
ExprId SchemaCompiler::emit_contains(const Shape& s, std::size_t prefix) {
  ExprPool& pool = grammar_.pool;
  const ExprId space = text_.space(), close = pool.cat(space, pool.byte(']'));
  const ExprId comma = pool.cat({space, pool.byte(','), space});
  std::vector<ContainsPart> parts = s.contains;
  std::size_t cap = std::max<std::size_t>({1, prefix, s.max_items == kUnbounded ? s.min_items : s.max_items});
  for (ContainsPart& c : parts) {
    cap = std::max<std::size_t>(cap, c.from);
    if (c.max == kUnbounded) continue;
    try {
      shapes_of(negation(c.key, synthetic("{}")));
    } catch (const InvalidArgument& error) {
      note(root_, "contains", gramcore::cat("maxContains is not enforced: ", error.what()));
      c.max = kUnbounded;
    }
  }
  using State = std::vector<std::size_t>;  // items, then matches of each part
  std::map<State, std::uint32_t> rules;
  std::vector<State> open_states;
  const auto rule_of = [&](const State& state) {
    const auto [at, fresh] = rules.try_emplace(state, 0u);
    if (fresh) {
      GC_CHECK_AS(GrammarTooComplex, rules.size() <= kMaxArrayRules, "schema must count at most ", kMaxArrayRules,
                  " combinations of items, got more; lower its item and contains counts");
      at->second = grammar_.add_rule("items");
      open_states.push_back(state);
    }
    return pool.call(at->second);
  };
  const ExprId start = rule_of(State(parts.size() + 1, 0));
  while (!open_states.empty()) {
    const State state = open_states.back();
    open_states.pop_back();
    const std::size_t i = state[0];
    bool may_end = i >= s.min_items;
    struct Choice {
      SchemaKey key;
      State next;
    };
    std::vector<Choice> choices{{item_key(s, i), state}};
    choices[0].next[0] = std::min(i + 1, cap);
    for (std::size_t c = 0; c < parts.size(); ++c) {
      const ContainsPart& part = parts[c];
      const std::size_t count = state[c + 1];
      may_end &= count >= part.min;
      if (i < part.from) continue;
      std::vector<Choice> more;
      for (const Choice& choice : choices) {
        if (count < (part.max == kUnbounded ? part.min : part.max)) {
          more.push_back({join(choice.key, part.key), choice.next});
          ++more.back().next[c + 1];
        }
        more.push_back(choice);
        if (part.max != kUnbounded) more.back().key = join(choice.key, negation(part.key, synthetic("{}")));
      }
      choices = std::move(more);
    }
    std::vector<ExprId> kids;
    if (may_end) kids.push_back(close);
    if (s.max_items == kUnbounded || i < s.max_items) {
      for (const Choice& choice : choices) {
        const ExprId item = value(choice.key);
        if (item == ExprPool::kEmpty) continue;
        kids.push_back(pool.cat({i ? comma : ExprPool::kEpsilon, item, rule_of(choice.next)}));
      }
    }
    grammar_.rules[rules[state]].body = pool.alt(std::move(kids));
  }
  return pool.cat({pool.byte('['), space, start});
}

// All values of a conjunction of schemas, when they are few and listed; nothing when they are not.
std::optional<std::vector<const Json*>> SchemaCompiler::finite_values(const SchemaKey& key) {
  std::vector<const Json*> out;
  const auto add = [&](const Json& v, const Shape& s) {
    const bool known = std::any_of(out.begin(), out.end(), [&](const Json* x) { return *x == v; });
    if (!known && valid(v, s)) out.push_back(&v);
  };
  for (const Shape& s : shapes_of(key)) {
    if (s.values) {
      if (s.values->size() > kMaxFinite) return std::nullopt;
      for (const Json* v : *s.values) add(*v, s);
    } else if ((s.types & ~(kNullBit | kFalseBit | kTrueBit)) == 0) {
      for (const char* text : {"null", "false", "true"}) add(synthetic(text), s);
    } else {
      return std::nullopt;
    }
    if (out.size() > kMaxFinite) return std::nullopt;
  }
  return out;
}

// The texts of items that are all scalars; nothing where some may be arrays or objects.
std::optional<ExprId> SchemaCompiler::scalar_items(const SchemaKey& key) {
  const auto is_scalar = [](const Json* v) { return !v->is(Type::kArray) && !v->is(Type::kObject); };
  std::vector<ExprId> kids;
  for (const Shape& s : shapes_of(key)) {
    const bool scalars = s.values ? std::all_of(s.values->begin(), s.values->end(), is_scalar)
                                  : (s.types & (kArrayBit | kObjectBit)) == 0;
    if (!scalars) return std::nullopt;
    kids.push_back(emit(s));
  }
  return grammar_.pool.alt(std::move(kids));
}

// Arrays of different items: of listed values the set of those used is known, of other scalars the values written.
std::optional<ExprId> SchemaCompiler::emit_unique(const Shape& s) {
  const bool by_position =
      std::any_of(s.arrays.begin(), s.arrays.end(), [](const auto& p) { return !p.prefix.empty(); });
  if (by_position || !s.contains.empty()) return std::nullopt;
  ExprPool& pool = grammar_.pool;
  const ExprId space = text_.space(), open = pool.cat(pool.byte('['), space);
  const ExprId comma = pool.cat({space, pool.byte(','), space}), close = pool.cat(space, pool.byte(']'));
  if (const auto values = finite_values(item_key(s, 0))) {
    KeySet set;
    for (const Json* v : *values) {
      set.members.push_back({constant(*v), static_cast<std::uint32_t>(set.required.size()), 0});
      set.required.push_back(false);
    }
    set.comma = comma, set.close = close;
    set.least = s.min_items, set.most = s.max_items;
    return pool.cat(open, add_key_set(&grammar_, std::move(set)));
  }
  const auto items = scalar_items(item_key(s, 0));
  if (!items || s.min_items > kMaxDifferent) return std::nullopt;
  UniqueSet set;
  set.item = *items, set.comma = comma, set.close = close;
  set.least = s.min_items, set.most = s.max_items;
  set.places = options_.max_digits;
  if (!has_values(&pool, set, set.least)) return ExprPool::kEmpty;
  return pool.cat(open, add_unique_set(&grammar_, std::move(set)));
}

}  // namespace gramcore::grammar
