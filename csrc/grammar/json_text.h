// Expressions of JSON spellings: white space, strings, numbers in ranges, given values.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "grammar/json.h"
#include "grammar/utf8.h"

namespace gramcore::grammar {

constexpr std::uint32_t kMaxDigits = 40;  // before and behind the point, so that a model cannot be caught in them

struct Bound {
  Decimal value;
  bool exclusive = false;
};

// A string's content in the spelling that spelled() describes.
std::string spell(std::string_view utf8);

class JsonText {
 public:
  JsonText(ExprPool* pool, bool spaces, std::uint32_t max_digits = kMaxDigits);
  // The expressions of `made`, in a copy of its pool.
  JsonText(ExprPool* pool, const JsonText& made)
      : pool_(*pool),
        max_digits_(made.max_digits_),
        space_(made.space_),
        quote_(made.quote_),
        digit_(made.digit_),
        character_(made.character_),
        spelled_letter_(made.spelled_letter_),
        any_spelled_(made.any_spelled_),
        integer_(made.integer_),
        number_(made.number_) {}

  ExprId space() const { return space_; }          // between tokens
  ExprId character() const { return character_; }  // of a string, any spelling
  ExprId quoted(ExprId content) { return pool_.cat({quote_, content, quote_}); }
  // The code points as they must be spelled inside a string: raw, or the short escape where one is needed.
  ExprId spelled(const CodeSet& set);
  ExprId spelled_letter() const { return spelled_letter_; }  // any code point so
  ExprId any_spelled() const { return any_spelled_; }
  ExprId number(bool integer, const std::optional<Bound>& low, const std::optional<Bound>& high);
  ExprId fractions();  // numbers that are not integers
  // A value with its keys in the order given.
  ExprId value(const Json& value);

 private:
  ExprId digits(std::uint32_t min, std::uint32_t max);
  ExprId whole_above(const std::string& whole);
  ExprId fraction_above(const std::string& fraction, bool or_equal);
  ExprId whole_below(const std::string& whole);
  ExprId fraction_below(const std::string& fraction, bool or_equal);
  ExprId fraction_equal(const std::string& fraction);
  ExprId beyond(const Decimal& bound, bool above, bool or_equal, bool integer);
  ExprId unsigned_number(bool integer);

  ExprPool& pool_;
  std::uint32_t max_digits_;
  ExprId space_, quote_, digit_, character_, spelled_letter_, any_spelled_;
  ExprId integer_ = ExprPool::kEmpty, number_ = ExprPool::kEmpty;  // without bounds
};

}  // namespace gramcore::grammar
