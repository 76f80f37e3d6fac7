#include "grammar/unique_set.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <queue>

#include "grammar/ir.h"
#include "grammar/json.h"
#include "grammar/utf8.h"

namespace gramcore::grammar {
namespace {

constexpr long kMaxExponent = 999;

// A number other than zero as digits * 10^exponent, the digits without zeros at either end.
struct Scaled {
  bool negative = false;
  std::string digits;
  long exponent = 0;
};
Scaled scaled(std::string_view text) {
  Scaled out;
  std::size_t i = 0;
  out.negative = text[0] == '-';
  if (out.negative) ++i;
  bool behind = false;  // the point
  for (; i < text.size() && text[i] != 'e' && text[i] != 'E'; ++i) {
    if (text[i] == '.') {
      behind = true;
    } else {
      out.digits.push_back(text[i]);
      out.exponent -= behind;
    }
  }
  if (i < text.size()) out.exponent += std::stol(std::string(text.substr(i + 1)));
  out.digits.erase(0, std::min(out.digits.find_first_not_of('0'), out.digits.size()));
  while (!out.digits.empty() && out.digits.back() == '0') {
    out.digits.pop_back();
    ++out.exponent;
  }
  return out;
}

ExprId hex4(ExprPool* pool, std::uint32_t unit) {
  ExprId e = ExprPool::kEpsilon;
  for (int i = 0; i < 4; ++i, unit >>= 4) {
    ByteSet digit;
    digit.add(static_cast<std::uint8_t>("0123456789abcdef"[unit & 15]));
    digit.add(static_cast<std::uint8_t>("0123456789ABCDEF"[unit & 15]));
    e = pool->cat(pool->byte_class(digit), e);
  }
  return pool->cat(pool->literal("\\u"), e);
}

ExprId character(ExprPool* pool, std::uint32_t c) {
  std::vector<ExprId> kids;
  std::string raw;
  append_utf8(&raw, c);
  if (c >= 0x20 && c != '"' && c != '\\') kids.push_back(pool->literal(raw));
  const std::string_view codes = "\"\\/\b\f\n\r\t", names = "\"\\/bfnrt";
  const std::size_t k = c < 0x80 ? codes.find(static_cast<char>(c)) : std::string_view::npos;
  if (k != std::string_view::npos) kids.push_back(pool->literal(std::string("\\") + names[k]));
  if (c < 0x10000) {
    kids.push_back(hex4(pool, c));
  } else {
    kids.push_back(pool->cat(hex4(pool, 0xD800 + ((c - 0x10000) >> 10)), hex4(pool, 0xDC00 + ((c - 0x10000) & 0x3FF))));
  }
  return pool->alt(std::move(kids));
}

ExprId string_spellings(ExprPool* pool, const std::string& text) {
  std::vector<std::uint32_t> points;
  std::uint32_t c = 0;
  for (std::size_t at = 0; next_code_point(text, &at, &c);) points.push_back(c);
  ExprId e = pool->byte('"');
  for (std::size_t i = points.size(); i-- > 0;) e = pool->cat(character(pool, points[i]), e);
  return pool->cat(pool->byte('"'), e);
}

ExprId digit_class(ExprPool* pool) {
  return pool->byte_class(ByteSet::range('0', '9'));
}
ExprId one_of_bytes(ExprPool* pool, std::string_view bytes) {
  ByteSet set;
  for (const char c : bytes) set.add(static_cast<std::uint8_t>(c));
  return pool->byte_class(set);
}

// digits * 10^exponent without an exponent of its own, with zeros behind the point.
ExprId plain_number(ExprPool* pool, const std::string& digits, long exponent) {
  const ExprId zero = pool->byte('0'), point = pool->byte('.');
  if (exponent >= 0) {
    const ExprId whole = pool->literal(digits + std::string(static_cast<std::size_t>(exponent), '0'));
    return pool->cat(whole, pool->optional(pool->cat(point, pool->repeat(zero, 1, kUnbounded))));
  }
  const auto places = static_cast<std::size_t>(-exponent);
  const std::string padded = places < digits.size() ? digits : std::string(places + 1 - digits.size(), '0') + digits;
  const std::size_t at = padded.size() - places;
  return pool->cat(pool->literal(padded.substr(0, at) + "." + padded.substr(at)), pool->star(zero));
}

ExprId exponent_part(ExprPool* pool, long exponent) {
  const std::string digits = std::to_string(std::labs(exponent));
  const ExprId plus = pool->optional(pool->byte('+'));
  const ExprId sign = exponent > 0 ? plus : exponent < 0 ? pool->byte('-') : pool->optional(one_of_bytes(pool, "+-"));
  return pool->cat({one_of_bytes(pool, "eE"), sign, pool->star(pool->byte('0')), pool->literal(digits)});
}

ExprId number_spellings(ExprPool* pool, const Scaled& n, long places) {
  constexpr long kMaxZeros = 10000;  // of a text without exponent
  if (n.digits.empty()) {
    const ExprId zeros = pool->repeat(pool->byte('0'), 1, kUnbounded);
    const ExprId sign = pool->optional(one_of_bytes(pool, "+-")),
                 digits = pool->repeat(digit_class(pool), 1, kUnbounded);
    return pool->cat({pool->optional(pool->byte('-')), pool->byte('0'),
                      pool->optional(pool->cat(pool->byte('.'), zeros)),
                      pool->optional(pool->cat({one_of_bytes(pool, "eE"), sign, digits}))});
  }
  std::vector<ExprId> kids;
  const auto length = static_cast<long>(n.digits.size());
  if (std::labs(n.exponent) <= kMaxZeros) kids.push_back(plain_number(pool, n.digits, n.exponent));
  const long from = std::max(-kMaxExponent, n.exponent + length - places);
  const long to = std::min(kMaxExponent, n.exponent + places);
  for (long x = from; x <= to; ++x) {
    kids.push_back(pool->cat(plain_number(pool, n.digits, n.exponent - x), exponent_part(pool, x)));
  }
  const ExprId e = pool->alt(std::move(kids));
  return n.negative ? pool->cat(pool->byte('-'), e) : e;
}

// What a text spells; nothing for other texts, which items that no front end makes may have.
std::optional<Json> scalar(std::string_view text) {
  constexpr std::size_t kLongExponent = 8;
  try {
    Json v = parse_json(text);
    const std::size_t e = v.text.find_first_of("eE");
    if (v.is(Json::Type::kNumber) && e != std::string::npos && v.text.size() - e > kLongExponent) return std::nullopt;
    return v;
  } catch (const InvalidArgument&) {
    return std::nullopt;
  }
}

// Some text of a call-free expression that is not empty.
std::string some_text(ExprPool* pool, ExprId e) {
  struct Place {
    ExprId e;
    std::size_t from;
    std::uint8_t byte;
  };
  std::vector<Place> places{{e, 0, 0}};
  std::unordered_map<ExprId, bool> seen{{e, true}};
  std::priority_queue<std::pair<std::uint32_t, std::size_t>> open;
  open.push({0, 0});
  while (!open.empty()) {
    const std::size_t at = open.top().second;
    open.pop();
    if ((*pool)[places[at].e].nullable) {
      std::string text;
      for (std::size_t i = at; i != 0; i = places[i].from) text.push_back(static_cast<char>(places[i].byte));
      return {text.rbegin(), text.rend()};
    }
    for (const Piece& p : pool->pieces(places[at].e)) {
      if (pool->is_empty(p.target) || !seen.emplace(p.target, true).second) continue;
      unsigned b = 0;
      while (!p.set.has(static_cast<std::uint8_t>(b))) ++b;
      places.push_back({p.target, at, static_cast<std::uint8_t>(b)});
      open.push({~(*pool)[p.target].least, places.size() - 1});
    }
  }
  throw std::logic_error("an expression that is not empty has no text");
}

}  // namespace

std::string value_of(std::string_view text) {
  const std::optional<Json> v = scalar(text);
  if (v && v->is(Json::Type::kString)) return "\"" + v->text;
  if (!v || !v->is(Json::Type::kNumber)) return std::string(text);
  const Scaled n = scaled(text);
  if (n.digits.empty()) return "0";
  return cat(n.negative ? "-" : "", n.digits, "e", n.exponent);
}

ExprId spellings(ExprPool* pool, std::string_view text, std::uint32_t places) {
  const std::optional<Json> v = scalar(text);
  if (v && v->is(Json::Type::kString)) return string_spellings(pool, v->text);
  if (v && v->is(Json::Type::kNumber)) return number_spellings(pool, scaled(text), places);
  return pool->literal(text);
}

bool has_values(ExprPool* pool, const UniqueSet& set, std::uint32_t count) {
  ExprId item = set.item;
  for (std::uint32_t i = 0; i < count; ++i) {
    if (pool->is_empty(item)) return false;
    if (i + 1 < count) item = pool->conj({item, pool->complement(spellings(pool, some_text(pool, item), set.places))});
  }
  return true;
}

std::uint32_t UniqueSet::number_of(State state) {
  const auto [at, fresh] = numbers.try_emplace(std::move(state), static_cast<std::uint32_t>(states.size()));
  if (fresh) {
    states.push_back(at->first);
    bodies.push_back(ExprPool::kEmpty);
  }
  return at->second;
}

ExprId add_unique_set(Grammar* g, UniqueSet set) {
  const auto number = static_cast<std::uint32_t>(g->unique_sets.size());
  const std::uint32_t first = set.number_of({});
  g->unique_sets.push_back(std::move(set));
  return g->pool.unique(number, first);
}

ExprId unique_set_body(Grammar* g, std::uint32_t number, std::uint32_t state) {
  UniqueSet& set = g->unique_sets[number];
  if (set.bodies[state] != ExprPool::kEmpty) return set.bodies[state];
  ExprPool& pool = g->pool;
  const UniqueSet::State written = set.states[state];
  std::vector<ExprId> used, kids;
  for (const std::uint32_t v : written) used.push_back(set.spellings[v]);
  if (written.size() >= set.least) kids.push_back(set.close);
  if (written.size() < set.most) {
    const ExprId item = pool.conj({set.item, pool.complement(pool.alt(std::move(used)))});
    const ExprId more = pool.is_empty(item) ? ExprPool::kEmpty : pool.trace(number, state, ExprPool::kNoTrail, item);
    kids.push_back(written.empty() ? more : pool.cat(set.comma, more));
  }
  return set.bodies[state] = pool.alt(std::move(kids));
}

ExprId behind_item(Grammar* g, std::uint32_t number, std::uint32_t state, std::string_view text) {
  UniqueSet& set = g->unique_sets[number];
  const auto [at, fresh] = set.values.try_emplace(value_of(text), static_cast<std::uint32_t>(set.spellings.size()));
  const std::uint32_t value = at->second;
  if (fresh) set.spellings.push_back(spellings(&g->pool, text, set.places));
  UniqueSet::State written = set.states[state];
  const auto place = std::lower_bound(written.begin(), written.end(), value);
  if (place != written.end() && *place == value) return ExprPool::kEmpty;
  written.insert(place, value);
  return g->pool.unique(number, set.number_of(std::move(written)));
}

}  // namespace gramcore::grammar
