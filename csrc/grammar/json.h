// JSON values as parsed from text; numbers keep their spelling, objects their order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gramcore::grammar {

struct Json {
  enum class Type : unsigned char { kNull, kFalse, kTrue, kNumber, kString, kArray, kObject };
  Type type = Type::kNull;
  std::uint32_t number = 0;       // order of appearance
  std::string text;               // string: decoded UTF-8; number: as written
  std::vector<Json> items;        // array elements, object values
  std::vector<std::string> keys;  // object: keys, parallel to items (a later duplicate replaces an earlier one)
  std::uint64_t key_bits =
      ~std::uint64_t{0};  // of a parsed object: the bits of its keys, so that most searches end here

  bool is(Type t) const { return type == t; }
  bool is_bool() const { return type == Type::kFalse || type == Type::kTrue; }
  static std::uint64_t bit_of(std::string_view key) {
    const std::size_t n = key.size();
    return std::uint64_t{1} << (n == 0 ? 0 : (static_cast<unsigned char>(key[n - 1]) * 5u + n * 11u) & 63u);
  }
  const Json* find(std::string_view key) const {
    return keys.empty() || (key_bits & bit_of(key)) == 0 ? nullptr : search(key);
  }
  bool operator==(const Json& other) const;  // JSON Schema equality: numbers by value, objects without order

 private:
  const Json* search(std::string_view key) const;
};

// Throws InvalidArgument with line, column and what was expected.
// Values are numbered from `first` on, fewer than the text has bytes.
Json parse_json(std::string_view text, std::uint32_t first = 0);

// A number as sign, integer digits and fraction digits, without leading or trailing zeros and without exponent.
// Returns false if it would need more than 400 digits.
struct Decimal {
  bool negative = false;
  std::string whole, fraction;
  bool is_zero() const { return whole.empty() && fraction.empty(); }
};
bool to_decimal(const std::string& number, Decimal* out);
int compare(const Decimal& a, const Decimal& b);

}  // namespace gramcore::grammar
