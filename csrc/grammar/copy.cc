#include "grammar/copy.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "grammar/catalogue.h"

namespace gramcore::grammar {
namespace {

constexpr std::uint32_t kMaxPlaces = 400;
constexpr char kMagic[8] = {'g', 'c', 'g', 'r', 'a', 'm', '0', '3'};

// The expressions that `g` uses, each after its parts.
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

// Makes the expression of kind `n` in `pool`; parts are given in the new pool.
ExprId make(ExprPool* pool, const Node& n, const ByteSet& set, std::vector<ExprId> parts, std::uint32_t rule,
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

class Writer {
 public:
  template <class T>
  void put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void text(std::string_view s) {
    put(static_cast<std::uint32_t>(s.size()));
    out_.append(s);
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

class Reader {
 public:
  explicit Reader(std::string_view data) : data_(data) {}
  std::string_view raw(std::size_t n) {
    GC_CHECK_AS(FormatError, n <= data_.size() - at_, "grammar bytes must be whole, got ", data_.size(),
                " bytes where more are said to follow byte ", at_);
    at_ += n;
    return data_.substr(at_ - n, n);
  }
  template <class T>
  T get() {
    T value;
    std::memcpy(&value, raw(sizeof(T)).data(), sizeof(T));
    return value;
  }
  bool done() const { return at_ == data_.size(); }

 private:
  std::string_view data_;
  std::size_t at_ = 0;
};

}  // namespace

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
    made[e] = make(&g->pool, n, set, std::move(parts), first_rule + (n.kind == Kind::kCall ? n.a : 0), text);
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

std::string to_bytes(const Grammar& g) {
  Writer w;
  for (const char c : kMagic) w.put(c);
  const std::vector<ExprId> order = in_order(g);
  std::unordered_map<ExprId, std::uint32_t> number;
  w.put(static_cast<std::uint32_t>(order.size()));
  for (const ExprId e : order) {
    const Node& n = g.pool[e];
    GC_CHECK(n.kind != Kind::kTrie, "grammar must not use a catalogue to be written, got one of ",
             g.pool.catalogue_of(e)->size(), " texts; keep the catalogue and build the grammar again");
    w.put(static_cast<std::uint8_t>(n.kind));
    if (n.kind == Kind::kClass) {
      for (const auto word : g.pool.set_of(e).words) w.put(word);
    } else if (n.kind == Kind::kCall || n.kind == Kind::kKeys || n.kind == Kind::kToken || n.kind == Kind::kUnique) {
      w.put(n.a);
    } else if (n.kind == Kind::kText) {
      w.text(g.pool.text_of(e));
    } else if (n.kind == Kind::kMultiple) {
      for (const std::uint32_t field : {n.a, n.b, n.min, n.max}) w.put(field);
    } else {
      const std::vector<ExprId> parts = parts_of(g, e);
      w.put(static_cast<std::uint32_t>(parts.size()));
      for (const ExprId p : parts) w.put(number.at(p));
      if (n.kind == Kind::kRepeat) w.put(n.min), w.put(n.max);
    }
    number.emplace(e, static_cast<std::uint32_t>(number.size()));
  }
  w.put(static_cast<std::uint32_t>(g.rules.size()));
  for (const Rule& r : g.rules) {
    w.text(r.name);
    w.put(number.at(r.body));
  }
  w.put(number.at(g.start));
  w.put(static_cast<std::uint32_t>(g.key_sets.size()));
  for (const KeySet& set : g.key_sets) {
    w.put(static_cast<std::uint32_t>(set.members.size()));
    for (const KeySet::Member& m : set.members) w.put(number.at(m.e)), w.put(m.key), w.put(m.marks);
    w.put(static_cast<std::uint32_t>(set.required.size()));
    for (const bool required : set.required) w.put(static_cast<std::uint8_t>(required));
    for (const ExprId e : {set.comma, set.close}) w.put(number.at(e));
    w.put(set.num_marks), w.put(set.least), w.put(set.most);
  }
  w.put(static_cast<std::uint32_t>(g.unique_sets.size()));
  for (const UniqueSet& set : g.unique_sets) {
    for (const ExprId e : {set.item, set.comma, set.close}) w.put(number.at(e));
    w.put(set.least), w.put(set.most), w.put(set.places);
  }
  w.put(static_cast<std::uint32_t>(g.token_sets.size()));
  for (const TokenSet& set : g.token_sets) {
    w.text(set.name);
    w.put(static_cast<std::uint8_t>(set.negated));
    w.put(static_cast<std::uint32_t>(set.ranges.size()));
    for (const auto& [first, last] : set.ranges) w.put(first), w.put(last);
  }
  return w.take();
}

Grammar from_bytes(std::string_view data) {
  Reader r(data);
  GC_CHECK_AS(FormatError, data.size() >= sizeof(kMagic) && r.raw(sizeof(kMagic)) == std::string_view(kMagic, 8),
              "grammar bytes must begin with 'gcgram03', got something else; they were made by another version");
  Grammar g;
  std::vector<ExprId> made;
  const auto num_exprs = r.get<std::uint32_t>();
  std::uint32_t most_rule = 0;
  std::uint64_t num_sets = 0, num_token_sets = 0, num_unique = 0;
  bool calls = false;
  for (std::uint32_t i = 0; i < num_exprs; ++i) {
    const auto kind = r.get<std::uint8_t>();
    GC_CHECK_AS(FormatError,
                kind <= static_cast<std::uint8_t>(Kind::kUnique) && kind != static_cast<std::uint8_t>(Kind::kTrie),
                "kind of expression ", i, " must be known, got ", int{kind});
    Node n{};
    n.kind = static_cast<Kind>(kind);
    ByteSet set;
    std::string_view text;
    std::vector<ExprId> parts;
    if (n.kind == Kind::kText) {
      text = r.raw(r.get<std::uint32_t>());
    } else if (n.kind == Kind::kClass) {
      for (auto& word : set.words) word = r.get<std::uint64_t>();
    } else if (n.kind == Kind::kCall) {
      n.a = r.get<std::uint32_t>();
      most_rule = std::max(most_rule, n.a);
      calls = true;
    } else if (n.kind == Kind::kToken) {
      n.a = r.get<std::uint32_t>();
      num_token_sets = std::max(num_token_sets, std::uint64_t{n.a} + 1);
    } else if (n.kind == Kind::kUnique) {
      n.a = r.get<std::uint32_t>();
      num_unique = std::max(num_unique, std::uint64_t{n.a} + 1);
    } else if (n.kind == Kind::kKeys) {
      n.a = r.get<std::uint32_t>();
      num_sets = std::max(num_sets, std::uint64_t{n.a} + 1);
    } else if (n.kind == Kind::kMultiple) {
      for (std::uint32_t* field : {&n.a, &n.b, &n.min, &n.max}) *field = r.get<std::uint32_t>();
      GC_CHECK_AS(FormatError, ExprPool::is_multiple(n), "expression ", i, " must be a multiple, got divisor ", n.a,
                  ", remainder ", n.b, " and phase ", n.min);
    } else {
      const auto count = r.get<std::uint32_t>();
      const std::uint32_t exact = n.kind == Kind::kCat                              ? 2
                                  : n.kind == Kind::kNot || n.kind == Kind::kRepeat ? 1
                                                                                    : count;
      const bool leaf = n.kind == Kind::kEmpty || n.kind == Kind::kEpsilon;
      GC_CHECK_AS(FormatError, count == exact && (!leaf || count == 0), "expression ", i, " must have ",
                  leaf ? 0 : exact, " parts, got ", count);
      for (std::uint32_t k = 0; k < count; ++k) {
        const auto p = r.get<std::uint32_t>();
        GC_CHECK_AS(FormatError, p < made.size(), "part of expression ", i, " must come before it, got ", p);
        parts.push_back(made[p]);
      }
      if (n.kind == Kind::kRepeat) {
        n.min = r.get<std::uint32_t>();
        n.max = r.get<std::uint32_t>();
        GC_CHECK_AS(FormatError, n.min <= n.max, "repetition must have minimum <= maximum, got ", n.min, " and ",
                    n.max);
      }
      const bool no_calls = n.kind == Kind::kAnd || n.kind == Kind::kNot;
      for (const ExprId p : parts) {
        GC_CHECK_AS(FormatError, !no_calls || !g.pool[p].has_call, "expression ", i,
                    " must not call rules inside an intersection or complement");
      }
    }
    made.push_back(make(&g.pool, n, set, std::move(parts), n.a, text));
  }
  const auto expr = [&] {
    const auto e = r.get<std::uint32_t>();
    GC_CHECK_AS(FormatError, e < made.size(), "expression must be < ", made.size(), ", got ", e);
    return made[e];
  };
  const auto num_rules = r.get<std::uint32_t>();
  for (std::uint32_t i = 0; i < num_rules; ++i) {
    std::string name(r.raw(r.get<std::uint32_t>()));
    g.add_rule(std::move(name), expr());
  }
  g.start = expr();
  GC_CHECK_AS(FormatError, !calls || most_rule < num_rules, "rule must be < ", num_rules, ", got ", most_rule);
  const auto sets = r.get<std::uint32_t>();
  GC_CHECK_AS(FormatError, num_sets <= sets, "key set must be < ", sets, ", got ", num_sets - 1);
  for (std::uint32_t k = 0; k < sets; ++k) {
    KeySet set;
    const auto members = r.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < members; ++i) {
      const ExprId e = expr();
      const auto key = r.get<std::uint32_t>();
      set.members.push_back({e, key, r.get<std::uint32_t>()});
    }
    const auto keys = r.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < keys; ++i) set.required.push_back(r.get<std::uint8_t>() != 0);
    for (ExprId* e : {&set.comma, &set.close}) *e = expr();
    set.num_marks = r.get<std::uint32_t>();
    GC_CHECK_AS(FormatError, set.num_marks <= KeySet::kMaxMarks, "key set must have at most ", KeySet::kMaxMarks,
                " marks, got ", set.num_marks);
    for (const KeySet::Member& m : set.members) {
      GC_CHECK_AS(FormatError, (m.key < keys || m.key == KeySet::kOpen) && m.marks >> set.num_marks == 0,
                  "key must be < ", keys, " and its marks < ", 1u << set.num_marks, ", got ", m.key, " and ", m.marks);
    }
    set.least = r.get<std::uint32_t>();
    set.most = r.get<std::uint32_t>();
    add_key_set(&g, std::move(set));
  }
  const auto unique_sets = r.get<std::uint32_t>();
  GC_CHECK_AS(FormatError, num_unique <= unique_sets, "set of items must be < ", unique_sets, ", got ", num_unique - 1);
  for (std::uint32_t k = 0; k < unique_sets; ++k) {
    UniqueSet set;
    for (ExprId* e : {&set.item, &set.comma, &set.close}) *e = expr();
    set.least = r.get<std::uint32_t>();
    set.most = r.get<std::uint32_t>();
    set.places = r.get<std::uint32_t>();
    GC_CHECK_AS(FormatError, set.places <= kMaxPlaces && !g.pool[set.item].has_call && !g.pool[set.item].nullable,
                "items must have at most ", kMaxPlaces, " places and be plain texts that are not empty, got set ", k);
    add_unique_set(&g, std::move(set));
  }
  const auto token_sets = r.get<std::uint32_t>();
  GC_CHECK_AS(FormatError, num_token_sets <= token_sets, "token set must be < ", token_sets, ", got ",
              num_token_sets - 1);
  for (std::uint32_t k = 0; k < token_sets; ++k) {
    TokenSet set;
    set.name = std::string(r.raw(r.get<std::uint32_t>()));
    set.negated = r.get<std::uint8_t>() != 0;
    const auto ranges = r.get<std::uint32_t>();
    for (std::uint32_t i = 0; i < ranges; ++i) {
      const auto first = r.get<std::uint32_t>();
      set.ranges.push_back({first, r.get<std::uint32_t>()});
    }
    g.token_sets.push_back(std::move(set));
  }
  GC_CHECK_AS(FormatError, r.done(), "grammar bytes must end behind the token sets, got more");
  return g;
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
