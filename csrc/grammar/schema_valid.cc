// Validation of given values (enum, const) against schemas, with the same meaning as the grammar.
#include <algorithm>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;

unsigned bit_of(const Json& v) {
  switch (v.type) {
    case Type::kNull: return kNullBit;
    case Type::kFalse: return kFalseBit;
    case Type::kTrue: return kTrueBit;
    case Type::kString: return kStringBit;
    case Type::kArray: return kArrayBit;
    case Type::kObject: return kObjectBit;
    case Type::kNumber: break;
  }
  Decimal d;
  return to_decimal(v.text, &d) && d.fraction.empty() ? kIntegerBit : kFractionBit;
}

// Whether value / divisor is an integer, by long division of the digits; false for a divisor of zero.
bool is_multiple(const Decimal& value, const Decimal& divisor) {
  const std::size_t places = std::max(value.fraction.size(), divisor.fraction.size());
  const auto scaled = [&](const Decimal& d) {
    std::string digits = d.whole + d.fraction + std::string(places - d.fraction.size(), '0');
    digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
    return digits;
  };
  const auto less = [](const std::string& a, const std::string& b) {
    return a.size() != b.size() ? a.size() < b.size() : a < b;
  };
  const std::string by = scaled(divisor);
  if (by.empty()) return false;
  std::string rest;  // without leading zeros
  for (const char digit : scaled(value)) {
    if (!rest.empty() || digit != '0') rest.push_back(digit);
    while (!less(rest, by)) {
      int borrow = 0;
      for (std::size_t i = 0; i < rest.size(); ++i) {
        char& r = rest[rest.size() - 1 - i];
        int d = r - '0' - borrow - (i < by.size() ? by[by.size() - 1 - i] - '0' : 0);
        borrow = d < 0;
        r = static_cast<char>('0' + d + 10 * borrow);
      }
      rest.erase(0, std::min(rest.find_first_not_of('0'), rest.size()));
    }
  }
  return rest.empty();
}

}  // namespace

std::uint32_t code_points(const std::string& text) {
  return static_cast<std::uint32_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

bool SchemaCompiler::matches(ExprId content, const std::string& text) {
  ByteSet same = ByteSet::all();
  for (const char c : spell(text)) {
    content = grammar_.pool.derivative(content, static_cast<std::uint8_t>(c), &same);
    if (content == ExprPool::kEmpty) return false;
  }
  return grammar_.pool[content].nullable;
}

bool SchemaCompiler::valid(const Json& value, const SchemaKey& key) {
  const auto shapes = shapes_of(key);
  return std::any_of(shapes.begin(), shapes.end(), [&](const Shape& s) { return valid(value, s); });
}

bool SchemaCompiler::valid(const Json& v, const Shape& s) {
  const unsigned bit = bit_of(v);
  if (!(s.types & bit)) return false;
  const auto equal = [&](const Json* other) { return *other == v; };
  if (s.values && std::none_of(s.values->begin(), s.values->end(), equal)) return false;
  if (std::any_of(s.excluded.begin(), s.excluded.end(), equal)) return false;
  if (bit & (kIntegerBit | kFractionBit)) {
    Decimal d;
    if (!to_decimal(v.text, &d)) return !s.low && !s.high && s.multiples.empty();
    for (const Multiple& m : s.multiples) {
      Decimal by;
      if (!to_decimal(m.of, &by) || is_multiple(d, by) == m.negated) return false;
    }
    const int low = s.low ? compare(d, s.low->value) : 1, high = s.high ? compare(d, s.high->value) : -1;
    return (low > 0 || (low == 0 && !s.low->exclusive)) && (high < 0 || (high == 0 && !s.high->exclusive));
  }
  if (bit == kStringBit) {
    const std::uint32_t length = code_points(v.text);
    if (length < s.min_length || length > s.max_length) return false;
    return std::all_of(s.patterns.begin(), s.patterns.end(), [&](ExprId p) { return matches(p, v.text); });
  }
  if (bit == kArrayBit) return valid_array(v, s);
  return bit != kObjectBit || valid_object(v, s);
}

bool SchemaCompiler::valid_array(const Json& v, const Shape& s) {
  if (v.items.size() < s.min_items || v.items.size() > s.max_items) return false;
  for (const ArrayPart& part : s.arrays) {
    for (std::size_t i = 0; i < v.items.size(); ++i) {
      if (!valid(v.items[i], i < part.prefix.size() ? part.prefix[i] : part.items)) return false;
    }
  }
  for (const ContainsPart& c : s.contains) {
    const auto from = v.items.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(c.from, v.items.size()));
    const auto n = std::count_if(from, v.items.end(), [&](const Json& x) { return valid(x, c.key); });
    if (n < static_cast<std::ptrdiff_t>(c.min) || n > static_cast<std::ptrdiff_t>(c.max)) return false;
  }
  for (std::size_t i = 0; s.unique != nullptr && i < v.items.size(); ++i) {
    if (std::find(v.items.begin(), v.items.begin() + static_cast<std::ptrdiff_t>(i), v.items[i]) !=
        v.items.begin() + static_cast<std::ptrdiff_t>(i)) {
      return false;
    }
  }
  return true;
}

bool SchemaCompiler::valid_object(const Json& v, const Shape& s) {
  if (v.keys.size() < s.min_properties || v.keys.size() > s.max_properties) return false;
  for (const std::string& name : s.required) {
    if (!v.find(name)) return false;
  }
  for (std::size_t i = 0; i < v.keys.size(); ++i) {
    Json name;
    name.type = Type::kString;
    name.text = v.keys[i];
    if (!s.names.empty() && !valid(name, s.names)) return false;
    if (!valid(v.items[i], key_for(s, v.keys[i]))) return false;
  }
  return std::all_of(s.witnesses.begin(), s.witnesses.end(), [&](const Witness& w) {
    for (std::size_t i = 0; i < v.keys.size(); ++i) {
      if (matches(w.names, v.keys[i]) && valid(v.items[i], w.key)) return true;
    }
    return false;
  });
}

}  // namespace gramcore::grammar
