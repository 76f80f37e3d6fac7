#include "grammar/json_text.h"

#include <algorithm>

namespace gramcore::grammar {
namespace {

constexpr std::uint32_t kMaxExponentDigits = 3, kMaxIndent = 40;  // bounded as kMaxDigits

ExprId hex_range(ExprPool* pool, std::uint32_t lo, std::uint32_t hi, int digits) {  // [lo, hi] in hexadecimal
  if (digits == 0) return ExprPool::kEpsilon;
  if (lo == 0 && hi + 1 == 1u << (4 * digits)) {
    const ByteSet any = ByteSet::range('0', '9') | ByteSet::range('a', 'f') | ByteSet::range('A', 'F');
    ExprId all = ExprPool::kEpsilon;
    for (int i = 0; i < digits; ++i) all = pool->cat(pool->byte_class(any), all);
    return all;
  }
  const std::uint32_t unit = 1u << (4 * (digits - 1));
  std::vector<ExprId> kids;
  for (std::uint32_t d = 0; d < 16; ++d) {
    const std::uint32_t a = std::max(lo, d * unit), b = std::min(hi, (d + 1) * unit - 1);
    if (a > b) continue;
    ByteSet set;
    set.add(static_cast<std::uint8_t>("0123456789abcdef"[d]));
    set.add(static_cast<std::uint8_t>("0123456789ABCDEF"[d]));
    kids.push_back(pool->cat(pool->byte_class(set), hex_range(pool, a - d * unit, b - d * unit, digits - 1)));
  }
  return pool->alt(std::move(kids));
}

}  // namespace

JsonText::JsonText(ExprPool* pool, bool spaces, std::uint32_t max_digits) : pool_(*pool), max_digits_(max_digits) {
  quote_ = pool->byte('"');
  digit_ = pool->byte_class(ByteSet::range('0', '9'));
  ByteSet blank;
  blank.add(' ');
  blank.add('\t');
  const ExprId indent = pool->cat(pool->byte('\n'), pool->repeat(pool->byte_class(blank), 0, kMaxIndent));
  space_ = spaces ? pool->alt({ExprPool::kEpsilon, pool->byte(' '), indent}) : ExprPool::kEpsilon;
  spelled_letter_ = spelled(CodeSet{{0, kMaxCodePoint}});
  any_spelled_ = pool->star(spelled_letter_);
  const ExprId escape_u = pool->literal("\\u");
  const ExprId pair =
      pool->cat({escape_u, hex_range(pool, 0xD800, 0xDBFF, 4), escape_u, hex_range(pool, 0xDC00, 0xDFFF, 4)});
  const ExprId unit =
      pool->cat(escape_u, pool->alt({hex_range(pool, 0, 0xD7FF, 4), hex_range(pool, 0xE000, 0xFFFF, 4)}));
  character_ = pool->alt({spelled_letter_, pool->literal("\\/"), unit, pair});
  const ExprId sign = pool->optional(pool->byte('-'));
  ByteSet e_set, sign_set;
  e_set.add('e'), e_set.add('E'), sign_set.add('+'), sign_set.add('-');
  const ExprId exponent =
      pool->cat({pool->byte_class(e_set), pool->optional(pool->byte_class(sign_set)), digits(1, kMaxExponentDigits)});
  integer_ = pool->cat(sign, unsigned_number(true));
  number_ = pool->cat(pool->cat(sign, unsigned_number(false)), pool->optional(exponent));
}

ExprId JsonText::spelled(const CodeSet& set) {
  CodeSet raw;
  ByteSet plain;
  std::vector<ExprId> kids;
  const std::string_view codes = "\"\\\b\f\n\r\t", names = "\"\\bfnrt";
  for (auto [lo, hi] : set.ranges()) {
    for (std::uint32_t c = lo; c <= std::min(hi, 0x7Fu); ++c) {
      const std::size_t k = codes.find(static_cast<char>(c));
      if (k != std::string_view::npos) {
        kids.push_back(pool_.cat(pool_.byte('\\'), pool_.byte(static_cast<std::uint8_t>(names[k]))));
      } else if (c < 0x20) {
        kids.push_back(pool_.cat(pool_.literal("\\u"), hex_range(&pool_, c, c, 4)));
      } else {
        plain.add(static_cast<std::uint8_t>(c));
      }
    }
    if (hi > 0x7F) raw.add(std::max(lo, 0x80u), hi);
  }
  kids.push_back(pool_.byte_class(plain));
  if (!raw.empty()) kids.push_back(raw.to_expr(&pool_));
  return pool_.alt(std::move(kids));
}

std::string spell(std::string_view utf8) {
  const std::string_view codes = "\"\\\b\f\n\r\t", names = "\"\\bfnrt";
  std::string out;
  for (const char c : utf8) {
    const std::size_t k = codes.find(c);
    if (k != std::string_view::npos) {
      out.push_back('\\');
      out.push_back(names[k]);
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += "\\u00";
      out.push_back("0123456789abcdef"[c >> 4]);
      out.push_back("0123456789abcdef"[c & 15]);
    } else {
      out.push_back(c);
    }
  }
  return out;
}

ExprId JsonText::digits(std::uint32_t min, std::uint32_t max) {
  return pool_.repeat(digit_, min, max);
}

ExprId JsonText::unsigned_number(bool integer) {
  const ExprId whole =
      pool_.alt({pool_.byte('0'), pool_.cat(pool_.byte_class(ByteSet::range('1', '9')), digits(0, max_digits_ - 1))});
  return integer ? whole : pool_.cat(whole, pool_.optional(pool_.cat(pool_.byte('.'), digits(1, max_digits_))));
}

// Integers without leading zero that are greater than `whole` (digits without leading zeros, "" is 0).
ExprId JsonText::whole_above(const std::string& whole) {
  const auto length = static_cast<std::uint32_t>(whole.size());
  std::vector<ExprId> kids{
      pool_.cat(pool_.byte_class(ByteSet::range('1', '9')), digits(length, std::max(length, max_digits_ - 1)))};
  for (std::uint32_t i = 0; i < length; ++i) {
    if (whole[i] == '9') continue;
    kids.push_back(pool_.cat({pool_.literal(whole.substr(0, i)),
                              pool_.byte_class(ByteSet::range(static_cast<unsigned>(whole[i]) + 1, '9')),
                              digits(length - 1 - i, length - 1 - i)}));
  }
  return pool_.alt(std::move(kids));
}

// The fraction, with zeros behind it; at least one digit.
ExprId JsonText::fraction_equal(const std::string& fraction) {
  const ExprId zero = pool_.byte('0');
  return fraction.empty() ? pool_.repeat(zero, 1, kUnbounded) : pool_.cat(pool_.literal(fraction), pool_.star(zero));
}

// Fraction digits that are greater than (or equal to) `fraction`, at least one digit.
ExprId JsonText::fraction_above(const std::string& fraction, bool or_equal) {
  const ExprId more = digits(0, max_digits_), zeros = pool_.star(pool_.byte('0'));
  const ExprId nonzero = pool_.byte_class(ByteSet::range('1', '9'));
  std::vector<ExprId> kids{pool_.cat({pool_.literal(fraction), zeros, nonzero, more})};
  for (std::size_t i = 0; i < fraction.size(); ++i) {
    if (fraction[i] == '9') continue;
    kids.push_back(pool_.cat({pool_.literal(fraction.substr(0, i)),
                              pool_.byte_class(ByteSet::range(static_cast<unsigned>(fraction[i]) + 1, '9')), more}));
  }
  if (or_equal) kids.push_back(fraction_equal(fraction));
  return pool_.alt(std::move(kids));
}

// Integers without leading zero that are smaller than `whole`.
ExprId JsonText::whole_below(const std::string& whole) {
  const auto length = static_cast<std::uint32_t>(whole.size());
  if (length == 0) return ExprPool::kEmpty;
  std::vector<ExprId> kids{pool_.byte('0')};
  if (length > 1) kids.push_back(pool_.cat(pool_.byte_class(ByteSet::range('1', '9')), digits(0, length - 2)));
  for (std::uint32_t i = 0; i < length; ++i) {
    const unsigned first = i == 0 ? '1' : '0', last = static_cast<unsigned>(whole[i]) - 1;
    if (first > last) continue;
    kids.push_back(pool_.cat({pool_.literal(whole.substr(0, i)), pool_.byte_class(ByteSet::range(first, last)),
                              digits(length - 1 - i, length - 1 - i)}));
  }
  return pool_.alt(std::move(kids));
}

// Fraction digits that are smaller than (or equal to) `fraction`, at least one digit.
ExprId JsonText::fraction_below(const std::string& fraction, bool or_equal) {
  const ExprId more = digits(0, max_digits_);
  std::vector<ExprId> kids;
  for (std::size_t i = 0; i < fraction.size(); ++i) {
    const ExprId same = pool_.literal(fraction.substr(0, i));
    if (i > 0) kids.push_back(same);
    if (fraction[i] == '0') continue;
    const ByteSet smaller = ByteSet::range('0', static_cast<unsigned>(fraction[i]) - 1);
    kids.push_back(pool_.cat({same, pool_.byte_class(smaller), more}));
  }
  if (or_equal) kids.push_back(fraction_equal(fraction));
  return pool_.alt(std::move(kids));
}

// Numbers without sign on one side of a bound >= 0.
ExprId JsonText::beyond(const Decimal& bound, bool above, bool or_equal, bool integer) {
  const ExprId dot = pool_.byte('.');
  const ExprId fraction = integer ? ExprPool::kEpsilon : pool_.optional(pool_.cat(dot, digits(1, max_digits_)));
  const ExprId same = pool_.literal(bound.whole.empty() ? "0" : bound.whole);
  std::vector<ExprId> kids{pool_.cat(above ? whole_above(bound.whole) : whole_below(bound.whole), fraction)};
  if (!integer) {
    kids.push_back(pool_.cat(
        {same, dot, above ? fraction_above(bound.fraction, or_equal) : fraction_below(bound.fraction, or_equal)}));
  }
  if (bound.fraction.empty() ? or_equal : !above) kids.push_back(same);
  return pool_.alt(std::move(kids));
}

ExprId JsonText::number(bool integer, const std::optional<Bound>& low, const std::optional<Bound>& high) {
  if (!low && !high) return integer ? integer_ : number_;
  const ExprId minus = pool_.byte('-'), plain = unsigned_number(integer);
  const auto nearer = [&](const Bound& b) { return beyond(b.value, false, !b.exclusive, integer); };  // to zero
  const Decimal zero;
  std::vector<ExprId> positive, negative;
  if (low) {
    if (low->value.negative) {
      negative.push_back(nearer(*low));
    } else {
      positive.push_back(beyond(low->value, true, !low->exclusive, integer));
      negative = {low->value.is_zero() && !low->exclusive ? beyond(zero, false, true, integer) : ExprPool::kEmpty};
    }
  }
  if (high) {
    if (!high->value.negative) {
      positive.push_back(nearer(*high));
      if (high->value.is_zero() && high->exclusive) negative.push_back(beyond(zero, true, false, integer));
    } else {
      positive = {ExprPool::kEmpty};
      negative.push_back(beyond(high->value, true, !high->exclusive, integer));
    }
  }
  if (positive.empty()) positive = {plain};
  if (negative.empty()) negative = {plain};
  return pool_.alt({pool_.conj(std::move(positive)), pool_.cat(minus, pool_.conj(std::move(negative)))});
}

ExprId JsonText::fractions() {
  const ExprId nonzero = pool_.byte_class(ByteSet::range('1', '9'));
  return pool_.cat({pool_.optional(pool_.byte('-')), unsigned_number(true), pool_.byte('.'), digits(0, max_digits_),
                    nonzero, digits(0, max_digits_)});
}

ExprId JsonText::value(const Json& v) {
  switch (v.type) {
    case Json::Type::kNull: return pool_.literal("null");
    case Json::Type::kFalse: return pool_.literal("false");
    case Json::Type::kTrue: return pool_.literal("true");
    case Json::Type::kNumber: return pool_.literal(v.text);
    case Json::Type::kString: return quoted(pool_.literal(spell(v.text)));
    default: break;
  }
  const bool object = v.is(Json::Type::kObject);
  ExprId e = pool_.cat(space_, pool_.byte(object ? '}' : ']'));
  if (v.items.empty()) return pool_.cat(pool_.byte(object ? '{' : '['), e);
  for (std::size_t i = v.items.size(); i-- > 0;) {
    e = pool_.cat(value(v.items[i]), e);
    if (object) e = pool_.cat({quoted(pool_.literal(spell(v.keys[i]))), space_, pool_.byte(':'), space_, e});
    e = pool_.cat({pool_.byte(i ? ',' : (object ? '{' : '[')), space_, e});
    if (i) e = pool_.cat(space_, e);
  }
  return e;
}

}  // namespace gramcore::grammar
