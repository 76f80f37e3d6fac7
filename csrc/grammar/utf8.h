// Code points: decoding, and ranges of them as byte expressions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/expr.h"

namespace gramcore::grammar {

constexpr std::uint32_t kMaxCodePoint = 0x10FFFF;

void append_utf8(std::string* out, std::uint32_t code_point);

// The code point at text[*at], moving *at behind it.  Returns false (and *at stays) where the text is not UTF-8.
bool next_code_point(std::string_view text, std::size_t* at, std::uint32_t* code_point);

// A set of code points as sorted, disjoint, non-adjacent ranges.
class CodeSet {
 public:
  CodeSet() = default;
  CodeSet(std::initializer_list<std::pair<std::uint32_t, std::uint32_t>> ranges);
  void add(std::uint32_t lo, std::uint32_t hi);
  void add(const CodeSet& other);
  CodeSet complement() const;
  bool empty() const { return ranges_.empty(); }
  const std::vector<std::pair<std::uint32_t, std::uint32_t>>& ranges() const { return ranges_; }
  // The UTF-8 encodings of all its code points (surrogates have none).
  ExprId to_expr(ExprPool* pool) const;

 private:
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges_;
};

// Line and column, both from 1, of a byte offset: "line 2, column 5".
std::string place_of(std::string_view text, std::size_t at);

}  // namespace gramcore::grammar
