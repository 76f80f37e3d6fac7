#include "grammar/bnf.h"

#include <string>
#include <unordered_map>
#include <vector>

#include "grammar/utf8.h"

namespace gramcore::grammar {
namespace {

constexpr std::uint32_t kMaxCount = 1u << 30, kNoRule = 0xFFFFFFFFu;

bool name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

class BnfParser {
 public:
  BnfParser(std::string_view text, BnfSyntax syntax) : text_(text), ebnf_(syntax == BnfSyntax::kEbnf) {}

  Grammar parse() {
    space();
    if (at_ == text_.size()) fail("a rule (name ::= ...)");
    while (at_ < text_.size()) rule();
    for (std::size_t r = 0; r < g_.rules.size(); ++r) {
      GC_CHECK(defined_[r], "rule must be defined, got '", g_.rules[r].name, "' without a definition (used at ",
               place_of(text_, first_use_[r]), ")");
    }
    const auto root = numbers_.find("root");
    GC_CHECK(ebnf_ || root != numbers_.end(), "grammar must define a rule named root, got none; rename the start rule");
    g_.start = g_.pool.call(root != numbers_.end() ? root->second : first_rule_);
    return std::move(g_);
  }

 private:
  [[noreturn]] void fail(const char* expected) const {
    const std::string found = at_ < text_.size() ? cat("'", text_.substr(at_, 12), "'") : std::string("the end");
    throw InvalidArgument(cat("grammar must have ", expected, " at ", place_of(text_, at_), ", got ", found));
  }
  bool eat(std::string_view token) {
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void space() {
    for (;;) {
      while (at_ < text_.size() && (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r')) ++at_;
      if (ebnf_ && eat("/*")) {
        const std::size_t end = text_.find("*/", at_);
        if (end == std::string_view::npos) fail("'*/' behind this comment");
        at_ = end + 2;
      } else if (peek() == '#' && !(ebnf_ && text_.substr(at_, 2) == "#x")) {
        while (at_ < text_.size() && peek() != '\n') ++at_;
      } else {
        return;
      }
    }
  }

  std::string_view name() {
    const std::size_t start = at_;
    while (at_ < text_.size() && name_char(peek()) && !(ebnf_ && peek() == '-' && at_ == start)) ++at_;
    if (at_ == start) fail("a rule name");
    return text_.substr(start, at_ - start);
  }

  // Whether `name ::=` starts here: the rule before has ended.
  bool at_rule() {
    const std::size_t before = at_;
    while (at_ < text_.size() && name_char(peek())) ++at_;
    const bool named = at_ > before;
    if (named) space();
    const bool found = named && text_.substr(at_, 3) == "::=";
    at_ = before;
    return found;
  }

  std::uint32_t number_of(std::string_view rule_name, std::size_t place) {
    const auto [it, fresh] = numbers_.try_emplace(std::string(rule_name), static_cast<std::uint32_t>(g_.rules.size()));
    if (fresh) {
      g_.add_rule(std::string(rule_name));
      defined_.push_back(false);
      first_use_.push_back(place);
    }
    return it->second;
  }

  void rule() {
    const std::size_t place = at_;
    const std::uint32_t number = number_of(name(), place);
    space();
    if (!eat("::=")) fail("'::=' behind the rule name");
    GC_CHECK(!defined_[number], "rule must be defined once, got '", g_.rules[number].name, "' again at ",
             place_of(text_, place));
    if (first_rule_ == kNoRule) first_rule_ = number;
    defined_[number] = true;
    space();
    const ExprId body = alternatives();
    if (ebnf_ && eat(";")) space();
    if (at_ < text_.size() && !at_rule()) fail("'|', another item or a new rule");
    g_.rules[number].body = body;
  }

  ExprId alternatives() {
    std::vector<ExprId> all;
    do {
      space();
      all.push_back(sequence());
    } while (eat("|"));
    return g_.pool.alt(std::move(all));
  }

  // Items up to | ) ; or the next rule.
  ExprId sequence() {
    std::vector<ExprId> items;
    while (at_ < text_.size() && peek() != '|' && peek() != ')' && !(ebnf_ && peek() == ';') && !at_rule()) {
      items.push_back(difference());
    }
    ExprId all = ExprPool::kEpsilon;
    for (std::size_t i = items.size(); i-- > 0;) all = g_.pool.cat(items[i], all);
    return all;
  }

  ExprId difference() {
    ExprId e = repeated();
    while (ebnf_ && peek() == '-') {
      ++at_;
      space();
      const std::size_t place = at_;
      const ExprId without = repeated();
      GC_CHECK(!g_.pool[e].has_call && !g_.pool[without].has_call,
               "'-' must stand between texts without rule names, got one (at ", place_of(text_, place),
               "); write its characters out");
      e = g_.pool.conj({e, g_.pool.complement(without)});
    }
    return e;
  }

  ExprId repeated() {
    ExprId e = item();
    for (;;) {
      if (eat("*")) {
        e = g_.pool.star(e);
      } else if (eat("+")) {
        e = g_.pool.repeat(e, 1, kUnbounded);
      } else if (eat("?")) {
        e = g_.pool.optional(e);
      } else if (peek() == '{') {
        e = counted(e);
      } else {
        space();
        return e;
      }
    }
  }

  std::uint32_t count() {
    if (peek() < '0' || peek() > '9') fail("a repetition count");
    std::uint64_t value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<std::uint64_t>(text_[at_++] - '0');
      if (value > kMaxCount) fail("a repetition count of at most 2^30 before this");
    }
    return static_cast<std::uint32_t>(value);
  }

  ExprId counted(ExprId e) {
    ++at_;
    space();
    const std::uint32_t min = count();
    std::uint32_t max = min;
    space();
    if (eat(",")) {
      space();
      max = peek() == '}' ? kUnbounded : count();
      space();
    }
    if (!eat("}")) fail("'}'");
    if (min > max) fail("a repetition with minimum <= maximum before this");
    return g_.pool.repeat(e, min, max);
  }

  ExprId item() {
    const char c = peek();
    if (c == '"' || (ebnf_ && c == '\'')) return literal();
    if (c == '[') return char_class().to_expr(&g_.pool);
    if (eat(".")) return CodeSet{{0, kMaxCodePoint}}.to_expr(&g_.pool);
    if (ebnf_ && eat("#x")) {
      const std::uint32_t code = hex(1, 6);
      return CodeSet{{code, code}}.to_expr(&g_.pool);
    }
    if (eat("(")) {
      if (++depth_ > kMaxNesting) {
        throw GrammarTooComplex(
            cat("grammar must nest groups at most ", kMaxNesting, " deep, got more at ", place_of(text_, at_)));
      }
      const ExprId all = alternatives();
      if (!eat(")")) fail("')'");
      --depth_;
      return all;
    }
    const std::size_t place = at_;
    if (!name_char(c)) fail("a text, a class, a group or a rule name");
    return g_.pool.call(number_of(name(), place));
  }

  ExprId literal() {
    const char quote = text_[at_++];
    std::string bytes;
    while (peek() != quote) {
      if (at_ >= text_.size() || peek() == '\n') fail("the closing quote");
      append_utf8(&bytes, character());
    }
    ++at_;
    return g_.pool.literal(bytes);
  }

  CodeSet char_class() {
    ++at_;
    const bool inverted = eat("^");
    CodeSet set;
    while (peek() != ']') {
      if (at_ >= text_.size()) fail("']'");
      const std::uint32_t low = character();
      std::uint32_t high = low;
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        high = character();
      }
      if (high < low) fail("a range in ascending order before this");
      set.add(low, high);
    }
    ++at_;
    return inverted ? set.complement() : set;
  }

  // One character of a literal or class, escapes resolved.
  std::uint32_t character() {
    std::uint32_t code = 0;
    if (ebnf_ && eat("#x")) return hex(1, 6);
    if (!eat("\\")) {
      if (!next_code_point(text_, &at_, &code)) fail("valid UTF-8");
      return code;
    }
    const char c = peek();
    static const std::string_view kNames = "nrtfvab0", kValues("\n\r\t\f\v\a\b\0", 8);
    if (eat("x")) return hex(2, 2);
    if (eat("u")) return hex(4, 4);
    if (eat("U")) return hex(8, 8);
    if (const std::size_t known = kNames.find(c); known != std::string_view::npos && at_ < text_.size()) {
      ++at_;
      return static_cast<unsigned char>(kValues[known]);
    }
    if (at_ >= text_.size() || (name_char(c) && c != '-' && c != '_'))
      fail("an escape among n r t f v a b 0 x u U or of a sign");
    if (!next_code_point(text_, &at_, &code)) fail("valid UTF-8");
    return code;
  }

  std::uint32_t hex(int least, int most) {
    std::uint64_t value = 0;
    int n = 0;
    for (; n < most && at_ < text_.size(); ++n, ++at_) {
      const char c = text_[at_], lower = static_cast<char>(c | 32);
      if (c >= '0' && c <= '9') {
        value = value * 16 + static_cast<std::uint64_t>(c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        value = value * 16 + static_cast<std::uint64_t>(lower - 'a' + 10);
      } else {
        break;
      }
    }
    if (n < least) fail("a hexadecimal digit");
    if (value > kMaxCodePoint || (value >= 0xD800 && value < 0xE000))
      fail("a code point (not a surrogate) before this");
    return static_cast<std::uint32_t>(value);
  }

  std::string_view text_;
  bool ebnf_;
  std::size_t at_ = 0;
  std::uint32_t depth_ = 0;
  Grammar g_;
  std::unordered_map<std::string, std::uint32_t> numbers_;
  std::vector<bool> defined_;
  std::vector<std::size_t> first_use_;
  std::uint32_t first_rule_ = kNoRule;
};

}  // namespace

Grammar parse_bnf(std::string_view text, BnfSyntax syntax) {
  return BnfParser(text, syntax).parse();
}

}  // namespace gramcore::grammar
