// Grammars as versioned bytes: expressions in the order of their numbers, rules, then sets of keys, items and tokens.
#include <algorithm>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "grammar/catalogue.h"
#include "grammar/copy.h"

namespace gramcore::grammar {
namespace {

constexpr std::uint32_t kMaxPlaces = 400;
constexpr char kMagic[8] = {'g', 'c', 'g', 'r', 'a', 'm', '0', '3'};

class Writer {
 public:
  explicit Writer(const Grammar& g) : g_(g) {}

  std::string write() {
    for (const char c : kMagic) put(c);
    expressions();
    put(count(g_.rules));
    for (const Rule& r : g_.rules) {
      text(r.name);
      put(number_.at(r.body));
    }
    put(number_.at(g_.start));
    key_sets();
    unique_sets();
    token_sets();
    return std::move(out_);
  }

 private:
  template <class T>
  static std::uint32_t count(const T& list) {
    return static_cast<std::uint32_t>(list.size());
  }
  template <class T>
  void put(T value) {
    out_.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }
  void text(std::string_view s) {
    put(count(s));
    out_.append(s);
  }

  void expressions() {
    const std::vector<ExprId> order = in_order(g_);
    put(count(order));
    for (const ExprId e : order) {
      const Node& n = g_.pool[e];
      GC_CHECK(n.kind != Kind::kTrie, "grammar must not use a catalogue to be written, got one of ",
               g_.pool.catalogue_of(e)->size(), " texts; keep the catalogue and build the grammar again");
      put(static_cast<std::uint8_t>(n.kind));
      if (n.kind == Kind::kClass) {
        for (const auto word : g_.pool.set_of(e).words) put(word);
      } else if (n.kind == Kind::kCall || n.kind == Kind::kKeys || n.kind == Kind::kToken || n.kind == Kind::kUnique) {
        put(n.a);
      } else if (n.kind == Kind::kText) {
        text(g_.pool.text_of(e));
      } else if (n.kind == Kind::kMultiple) {
        for (const std::uint32_t field : {n.a, n.b, n.min, n.max}) put(field);
      } else {
        const std::vector<ExprId> parts = parts_of(g_, e);
        put(count(parts));
        for (const ExprId p : parts) put(number_.at(p));
        if (n.kind == Kind::kRepeat) put(n.min), put(n.max);
      }
      number_.emplace(e, count(number_));
    }
  }

  void key_sets() {
    put(count(g_.key_sets));
    for (const KeySet& set : g_.key_sets) {
      put(count(set.members));
      for (const KeySet::Member& m : set.members) put(number_.at(m.e)), put(m.key), put(m.marks);
      put(count(set.required));
      for (const bool required : set.required) put(static_cast<std::uint8_t>(required));
      for (const ExprId e : {set.comma, set.close}) put(number_.at(e));
      put(set.num_marks), put(set.least), put(set.most);
    }
  }

  void unique_sets() {
    put(count(g_.unique_sets));
    for (const UniqueSet& set : g_.unique_sets) {
      for (const ExprId e : {set.item, set.comma, set.close}) put(number_.at(e));
      put(set.least), put(set.most), put(set.places);
    }
  }

  void token_sets() {
    put(count(g_.token_sets));
    for (const TokenSet& set : g_.token_sets) {
      text(set.name);
      put(static_cast<std::uint8_t>(set.negated));
      put(count(set.ranges));
      for (const auto& [first, last] : set.ranges) put(first), put(last);
    }
  }

  const Grammar& g_;
  std::unordered_map<ExprId, std::uint32_t> number_;
  std::string out_;
};

class Reader {
 public:
  explicit Reader(std::string_view data) : data_(data) {}

  Grammar read() {
    GC_CHECK_AS(FormatError, data_.size() >= sizeof(kMagic) && raw(sizeof(kMagic)) == std::string_view(kMagic, 8),
                "grammar bytes must begin with 'gcgram03', got something else; they were made by another version");
    const auto num_exprs = number();
    for (std::uint32_t i = 0; i < num_exprs; ++i) expression(i);
    const auto num_rules = number();
    for (std::uint32_t i = 0; i < num_rules; ++i) {
      std::string name = text();
      g_.add_rule(std::move(name), made());
    }
    g_.start = made();
    GC_CHECK_AS(FormatError, used_rules_ <= num_rules, "rule must be < ", num_rules, ", got ", used_rules_ - 1);
    const auto num_key_sets = number();
    GC_CHECK_AS(FormatError, used_key_sets_ <= num_key_sets, "key set must be < ", num_key_sets, ", got ",
                used_key_sets_ - 1);
    for (std::uint32_t k = 0; k < num_key_sets; ++k) key_set();
    const auto num_unique = number();
    GC_CHECK_AS(FormatError, used_unique_sets_ <= num_unique, "set of items must be < ", num_unique, ", got ",
                used_unique_sets_ - 1);
    for (std::uint32_t k = 0; k < num_unique; ++k) unique_set(k);
    const auto num_token_sets = number();
    GC_CHECK_AS(FormatError, used_token_sets_ <= num_token_sets, "token set must be < ", num_token_sets, ", got ",
                used_token_sets_ - 1);
    for (std::uint32_t k = 0; k < num_token_sets; ++k) token_set();
    GC_CHECK_AS(FormatError, at_ == data_.size(), "grammar bytes must end behind the token sets, got more");
    return std::move(g_);
  }

 private:
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
  std::uint32_t number() { return get<std::uint32_t>(); }
  std::string text() { return std::string(raw(number())); }
  // A number of rules or sets that are to come; `used` becomes what it asks for.
  std::uint32_t use(std::uint64_t* used) {
    const std::uint32_t a = number();
    *used = std::max(*used, std::uint64_t{a} + 1);
    return a;
  }
  ExprId made() {
    const auto e = number();
    GC_CHECK_AS(FormatError, e < made_.size(), "expression must be < ", made_.size(), ", got ", e);
    return made_[e];
  }

  void expression(std::uint32_t i) {
    const auto kind = get<std::uint8_t>();
    GC_CHECK_AS(FormatError,
                kind <= static_cast<std::uint8_t>(Kind::kUnique) && kind != static_cast<std::uint8_t>(Kind::kTrie),
                "kind of expression ", i, " must be known, got ", int{kind});
    Node n{};
    n.kind = static_cast<Kind>(kind);
    ByteSet set;
    std::string_view text;
    std::vector<ExprId> parts;
    switch (n.kind) {
      case Kind::kText: text = raw(number()); break;
      case Kind::kClass:
        for (auto& word : set.words) word = get<std::uint64_t>();
        break;
      case Kind::kCall: n.a = use(&used_rules_); break;
      case Kind::kToken: n.a = use(&used_token_sets_); break;
      case Kind::kUnique: n.a = use(&used_unique_sets_); break;
      case Kind::kKeys: n.a = use(&used_key_sets_); break;
      case Kind::kMultiple:
        for (std::uint32_t* field : {&n.a, &n.b, &n.min, &n.max}) *field = number();
        GC_CHECK_AS(FormatError, ExprPool::is_multiple(n), "expression ", i, " must be a multiple, got divisor ", n.a,
                    ", remainder ", n.b, " and phase ", n.min);
        break;
      default: parts = parts_of_next(&n, i);
    }
    made_.push_back(make_expr(&g_.pool, n, set, std::move(parts), n.a, text));
  }

  std::vector<ExprId> parts_of_next(Node* n, std::uint32_t i) {
    const auto count = number();
    const std::uint32_t exact = n->kind == Kind::kCat                               ? 2
                                : n->kind == Kind::kNot || n->kind == Kind::kRepeat ? 1
                                                                                    : count;
    const bool leaf = n->kind == Kind::kEmpty || n->kind == Kind::kEpsilon;
    GC_CHECK_AS(FormatError, count == exact && (!leaf || count == 0), "expression ", i, " must have ", leaf ? 0 : exact,
                " parts, got ", count);
    const bool no_calls = n->kind == Kind::kAnd || n->kind == Kind::kNot;
    std::vector<ExprId> parts;
    for (std::uint32_t k = 0; k < count; ++k) {
      const auto p = number();
      GC_CHECK_AS(FormatError, p < made_.size(), "part of expression ", i, " must come before it, got ", p);
      parts.push_back(made_[p]);
      GC_CHECK_AS(FormatError, !no_calls || !g_.pool[made_[p]].has_call, "expression ", i,
                  " must not call rules inside an intersection or complement");
    }
    if (n->kind == Kind::kRepeat) {
      n->min = number();
      n->max = number();
      GC_CHECK_AS(FormatError, n->min <= n->max, "repetition must have minimum <= maximum, got ", n->min, " and ",
                  n->max);
    }
    return parts;
  }

  void key_set() {
    KeySet set;
    const auto members = number();
    for (std::uint32_t i = 0; i < members; ++i) {
      const ExprId e = made();
      const auto key = number();
      set.members.push_back({e, key, number()});
    }
    const auto keys = number();
    for (std::uint32_t i = 0; i < keys; ++i) set.required.push_back(get<std::uint8_t>() != 0);
    for (ExprId* e : {&set.comma, &set.close}) *e = made();
    set.num_marks = number();
    GC_CHECK_AS(FormatError, set.num_marks <= KeySet::kMaxMarks, "key set must have at most ", KeySet::kMaxMarks,
                " marks, got ", set.num_marks);
    for (const KeySet::Member& m : set.members) {
      GC_CHECK_AS(FormatError, (m.key < keys || m.key == KeySet::kOpen) && m.marks >> set.num_marks == 0,
                  "key must be < ", keys, " and its marks < ", 1u << set.num_marks, ", got ", m.key, " and ", m.marks);
    }
    set.least = number();
    set.most = number();
    add_key_set(&g_, std::move(set));
  }

  void unique_set(std::uint32_t k) {
    UniqueSet set;
    for (ExprId* e : {&set.item, &set.comma, &set.close}) *e = made();
    set.least = number();
    set.most = number();
    set.places = number();
    GC_CHECK_AS(FormatError, set.places <= kMaxPlaces && !g_.pool[set.item].has_call && !g_.pool[set.item].nullable,
                "items must have at most ", kMaxPlaces, " places and be plain texts that are not empty, got set ", k);
    add_unique_set(&g_, std::move(set));
  }

  void token_set() {
    TokenSet set;
    set.name = text();
    set.negated = get<std::uint8_t>() != 0;
    const auto ranges = number();
    for (std::uint32_t i = 0; i < ranges; ++i) {
      const auto first = number();
      set.ranges.push_back({first, number()});
    }
    g_.token_sets.push_back(std::move(set));
  }

  std::string_view data_;
  std::size_t at_ = 0;
  Grammar g_;
  std::vector<ExprId> made_;
  // One more than the largest number that expressions name.
  std::uint64_t used_rules_ = 0, used_key_sets_ = 0, used_unique_sets_ = 0, used_token_sets_ = 0;
};

}  // namespace

std::string to_bytes(const Grammar& g) {
  return Writer(g).write();
}

Grammar from_bytes(std::string_view data) {
  return Reader(data).read();
}

}  // namespace gramcore::grammar
