// Shapes to expressions and rules.
#include <algorithm>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;
constexpr std::uint32_t kMaxDivisorInBounds = 5000;  // whether some multiple can follow is found by search

// What every schema's grammar begins with, made once: copying a pool is a tenth of the work of filling it.
struct Beginning {
  Beginning(bool spaces, std::uint32_t max_digits) : text(&grammar.pool, spaces, max_digits) {}
  Grammar grammar;
  JsonText text;
};
const Beginning& beginning(bool spaces) {
  static const Beginning spaced(true, kMaxDigits), tight(false, kMaxDigits);
  return spaces ? spaced : tight;
}
JsonText text_under(const SchemaOptions& options, ExprPool* pool) {
  if (options.max_digits == kMaxDigits) return {pool, beginning(options.spaces).text};
  return {pool, options.spaces, options.max_digits};
}

}  // namespace

SchemaCompiler::SchemaCompiler(const Json& root, const SchemaOptions& options, const Json* resources)
    : root_(root),
      options_(options),
      grammar_(beginning(options.spaces).grammar),
      text_(text_under(options, &grammar_.pool)) {
  const bool cuts = options.max_string != kUnbounded, rounds = options.max_digits < kMaxDigits;
  std::string bounds;
  if (cuts) bounds = gramcore::cat("strings have at most ", options.max_string, " characters");
  if (rounds) {
    bounds += gramcore::cat(cuts ? ", " : "", "numbers ", cuts ? "" : "have ", "at most ", options.max_digits,
                            " digits before and behind the point");
  }
  if (cuts || rounds) record(root, "type", "approximated", bounds);
  index_references(root, "", false);
  for (std::size_t i = 0; resources != nullptr && i < resources->keys.size(); ++i) {
    resources_.emplace(resources->keys[i], &resources->items[i]);
    index_references(resources->items[i], resources->keys[i], false);
  }
  grammar_.pool.reserve(256 + key_bytes_);  // about what names and what stands around them need
}

Grammar SchemaCompiler::run() {
  refuse_circles();
  grammar_.start = value(key_of(root_));
  for (std::size_t i = 0; i < pending_.size(); ++i) {
    const auto [key, rule] = pending_[i];
    std::vector<ExprId> kids;
    for (const Shape& s : shapes_of(key)) kids.push_back(emit(s));
    grammar_.rules[rule].body = grammar_.pool.alt(std::move(kids));
  }
  return std::move(grammar_);
}

// A call of the rule of a conjunction of schemas.
ExprId SchemaCompiler::value(const SchemaKey& key) {
  if (never(key)) return ExprPool::kEmpty;
  const auto it = rules_.find(key);
  if (it != rules_.end()) return grammar_.pool.call(it->second);
  const std::uint32_t rule = grammar_.add_rule("value");
  GC_CHECK_AS(GrammarTooComplex, rules_.size() < 20000, "schema must need at most 20000 rules, got more; simplify it");
  rules_.emplace(key, rule);
  pending_.push_back({key, rule});
  return grammar_.pool.call(rule);
}

ExprId SchemaCompiler::emit(const Shape& s) {
  ExprPool& pool = grammar_.pool;
  std::vector<ExprId> kids;
  if (s.values) {
    Shape others = s;  // a value is one of them: looking it up takes long where they are many
    others.values.reset();
    for (const Json* v : *s.values) {
      if (valid(*v, others)) kids.push_back(constant(*v));
    }
    return pool.alt(std::move(kids));
  }
  const auto excluded = [&](Type type) {
    return std::any_of(s.excluded.begin(), s.excluded.end(), [&](const Json* v) { return v->is(type); });
  };
  if ((s.types & kNullBit) && !excluded(Type::kNull)) kids.push_back(pool.literal("null"));
  if ((s.types & kFalseBit) && !excluded(Type::kFalse)) kids.push_back(pool.literal("false"));
  if ((s.types & kTrueBit) && !excluded(Type::kTrue)) kids.push_back(pool.literal("true"));
  if (s.types & (kIntegerBit | kFractionBit)) kids.push_back(emit_number(s));
  if (s.types & kStringBit) {
    const ExprId content = emit_string_content(s);
    if (content != ExprPool::kEmpty) kids.push_back(text_.quoted(content));
  }
  if (s.types & kArrayBit) kids.push_back(emit_array(s));
  if (s.types & kObjectBit) kids.push_back(emit_object(s));
  return pool.alt(std::move(kids));
}

// A given value; its keys in the order given, or in any.
ExprId SchemaCompiler::constant(const Json& v) {
  if (v.items.empty() || !options_.any_order) return text_.value(v);
  ExprPool& pool = grammar_.pool;
  const ExprId space = text_.space(), comma = pool.cat({space, pool.byte(','), space});
  if (v.is(Type::kArray)) {
    ExprId e = pool.cat(space, pool.byte(']'));
    for (std::size_t i = v.items.size(); i-- > 0;) {
      e = pool.cat({i ? comma : pool.cat(pool.byte('['), space), constant(v.items[i]), e});
    }
    return e;
  }
  KeySet set;
  const ExprId colon = pool.cat({space, pool.byte(':'), space});
  for (std::uint32_t i = 0; i < v.items.size(); ++i) {
    const ExprId name = text_.quoted(pool.literal(spell(v.keys[i])));
    set.members.push_back({pool.cat({name, colon, constant(v.items[i])}), i, 0});
  }
  set.required.assign(v.items.size(), true);
  set.comma = comma;
  set.close = pool.cat(space, pool.byte('}'));
  return pool.cat({pool.byte('{'), space, add_key_set(&grammar_, std::move(set))});
}

ExprId SchemaCompiler::emit_number(const Shape& s) {
  ExprPool& pool = grammar_.pool;
  const bool integer = !(s.types & kFractionBit);
  std::vector<ExprId> parts;
  if (!(s.types & kIntegerBit)) parts.push_back(text_.fractions());
  bool plain = false;  // without exponents, which the parts below cannot read
  for (const Json* v : s.excluded) {
    Decimal d;
    if (v->is(Type::kNumber) && to_decimal(v->text, &d)) {
      parts.push_back(pool.complement(text_.number(false, Bound{d, false}, Bound{d, false})));
      plain = true;
    }
  }
  bool alone = parts.empty() && !s.low && !s.high && s.multiples.size() == 1;
  for (const Multiple& m : s.multiples) {
    alone &= !m.negated;
    const ExprId e = multiple_of(m.of, !integer);
    const bool known = e != ExprPool::kEmpty;
    if (!known || (!alone && pool[pool[e].b].a > kMaxDivisorInBounds)) {
      note(root_, "multipleOf",
           gramcore::cat("multiples of ", m.of, known ? " are not enforced beside other bounds" : " are not enforced"));
      continue;
    }
    if (alone) return e;
    parts.push_back(m.negated ? pool.complement(e) : e);
    plain |= m.negated;
  }
  parts.push_back(text_.number(integer, s.low, s.high));
  if (plain && !integer && !s.low && !s.high) {
    parts.push_back(text_.number(false, Bound{{true, std::string(41, '9'), ""}, false}, std::nullopt));
  }
  return pool.conj(std::move(parts));
}

// Numbers that are multiples, without exponents; kEmpty where unsupported.
ExprId SchemaCompiler::multiple_of(const std::string& divisor, bool point) {
  ExprPool& pool = grammar_.pool;
  Decimal d;
  if (!to_decimal(divisor, &d) || d.negative || d.is_zero()) return ExprPool::kEmpty;
  std::string digits = d.whole + d.fraction;
  digits.erase(0, digits.find_first_not_of('0'));
  if (digits.size() > 9 || std::stoul(digits) > ExprPool::kMaxDivisor) return ExprPool::kEmpty;
  const ExprId e = pool.multiple(static_cast<std::uint32_t>(std::stoul(digits)),
                                 static_cast<std::uint32_t>(d.fraction.size()), point);
  return pool.cat(pool.optional(pool.byte('-')), e);
}

// Puts the length bounds into one of `parts`, if that needs no intersection: a pattern is spelled text already, and one
// that repeats single letters takes the bounds as its own.
bool SchemaCompiler::bound_length(const Shape& s, ExprId letter, std::vector<ExprId>* parts) {
  ExprPool& pool = grammar_.pool;
  for (ExprId& part : *parts) {
    const Node n = pool[part];
    if (n.has_boolean) continue;  // a complement holds texts that are not spelled so
    if (s.min_length == 0 && s.max_length == kUnbounded) return true;
    if (n.kind != Kind::kRepeat || !pool.is_empty(pool.conj({n.a, pool.complement(letter)}))) continue;
    const std::uint32_t min = std::max(n.min, s.min_length), max = std::min(n.max, s.max_length);
    part = min <= max ? pool.repeat(n.a, min, max) : ExprPool::kEmpty;
    return true;
  }
  return false;
}

ExprId SchemaCompiler::emit_string_content(const Shape& shape) {
  ExprPool& pool = grammar_.pool;
  Shape s = shape;
  s.max_length = std::min(s.max_length, std::max(s.min_length, options_.max_string));
  std::vector<ExprId> parts = s.patterns;
  for (const Json* v : s.excluded) {
    if (v->is(Type::kString)) parts.push_back(pool.complement(pool.literal(spell(v->text))));
  }
  if (s.min_length > s.max_length) return ExprPool::kEmpty;
  const ExprId letter = parts.empty() ? text_.character() : text_.spelled_letter();
  if (!bound_length(s, letter, &parts)) parts.push_back(pool.repeat(letter, s.min_length, s.max_length));
  const ExprId e = pool.conj(std::move(parts));
  return pool.is_empty(e) ? ExprPool::kEmpty : e;
}

}  // namespace gramcore::grammar
