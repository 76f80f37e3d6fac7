#include "grammar/regex.h"

#include <algorithm>

#include "grammar/json_text.h"
#include "grammar/look_around.h"
#include "grammar/utf8.h"

namespace gramcore::grammar {
namespace {

constexpr std::uint32_t kMaxRepeat = 1000000000;

CodeSet digit_set() {
  return {{'0', '9'}};
}
CodeSet word_set() {
  return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
}
CodeSet space_set() {
  return {{'\t', '\r'}, {' ', ' '}};
}

class Parser {
 public:
  Parser(std::string_view text, const RegexOptions& options, ExprPool* pool, LookArounds* looks)
      : text_(text), options_(options), pool_(*pool), looks_(*looks) {}

  ExprId run() {
    const ExprId e = alternation();
    if (at_ < text_.size()) fail("regular expression must close only open groups, got ')'");
    return e;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const { fail_at(what, at_); }
  [[noreturn]] void fail_at(const std::string& what, std::size_t at) const {
    throw InvalidArgument(gramcore::cat(what, " (", place_of(text_, at), ")"));
  }
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view s) {
    if (text_.substr(at_, s.size()) != s) return false;
    at_ += s.size();
    return true;
  }

  ExprId alternation() {
    if (++depth_ > kMaxNesting) {
      throw GrammarTooComplex(gramcore::cat("regular expression must nest at most ", kMaxNesting, " groups, got more (",
                                            place_of(text_, at_), "); flatten it"));
    }
    std::vector<ExprId> kids{intersection()};
    while (take('|')) kids.push_back(intersection());
    --depth_;
    return pool_.alt(std::move(kids));
  }
  ExprId intersection() {
    std::vector<ExprId> kids{sequence()};
    while (options_.boolean_operators && take('&')) kids.push_back(sequence());
    return kids.size() == 1 ? kids[0] : pool_.conj(std::move(kids));
  }
  ExprId sequence() {
    std::vector<ExprId> parts;
    while (!done() && peek() != '|' && peek() != ')' && !(options_.boolean_operators && peek() == '&')) {
      parts.push_back(repeated());
    }
    ExprId e = ExprPool::kEpsilon;
    for (std::size_t i = parts.size(); i-- > 0;) e = pool_.cat(parts[i], e);
    return e;
  }
  ExprId repeated() {
    if (options_.boolean_operators && take('~')) {
      if (++depth_ > kMaxNesting) fail("regular expression must nest fewer complements");
      const ExprId inner = repeated();
      --depth_;
      return pool_.conj({any_text(&pool_), pool_.complement(inner)});
    }
    const std::size_t start = at_;
    ExprId e = atom();
    for (;;) {
      std::uint32_t min = 0, max = kUnbounded;
      const std::size_t before = at_;
      if (take('*')) {
      } else if (take('+')) {
        min = 1;
      } else if (take('?')) {
        max = 1;
      } else if (!bounds(&min, &max)) {
        return e;
      }
      if (before == start) fail_at("repetition must follow something, got nothing before it", start);
      if (min > max) fail_at(gramcore::cat("repetition must have min <= max, got {", min, ",", max, "}"), before);
      e = pool_.repeat(e, min, max);
      if (take('?')) continue;  // lazy: the same language
      if (peek() == '+') fail("possessive repetition must not be used, got '+' after a repetition; remove it");
    }
  }
  // {m}, {m,}, {m,n}, {,n}; anything else after { is a literal
  bool bounds(std::uint32_t* min, std::uint32_t* max) {
    if (peek() != '{') return false;
    std::size_t i = at_ + 1;
    const auto number = [&](std::uint32_t* out) {
      const std::size_t first = i;
      std::uint64_t value = 0;
      while (i < text_.size() && text_[i] >= '0' && text_[i] <= '9') {
        value = std::min<std::uint64_t>(value * 10 + static_cast<std::uint64_t>(text_[i++] - '0'), 1ull << 40);
      }
      if (i == first) return false;
      if (value > kMaxRepeat) {
        fail_at(gramcore::cat("repetition must be at most ", kMaxRepeat, ", got more"), first);
      }
      *out = static_cast<std::uint32_t>(value);
      return true;
    };
    const bool has_min = number(min);
    if (i < text_.size() && text_[i] == ',') {
      ++i;
      if (!number(max)) {
        if (!has_min) return false;
        *max = kUnbounded;
      }
    } else if (has_min) {
      *max = *min;
    } else {
      return false;
    }
    if (i >= text_.size() || text_[i] != '}') return false;
    at_ = i + 1;
    return true;
  }

  // With the other case of its ASCII letters, if case is ignored.
  CodeSet folded(CodeSet set) const {
    if (!options_.ignore_case) return set;
    CodeSet more = set;
    for (const auto& [lo, hi] : set.ranges()) {
      for (std::uint32_t c = std::max<std::uint32_t>(lo, 'A'); c <= std::min<std::uint32_t>(hi, 'z'); ++c) {
        const std::uint32_t lower_case = c | 32;
        if (lower_case >= 'a' && lower_case <= 'z') more.add(c ^ 32, c ^ 32);
      }
    }
    return more;
  }

  ExprId lower(const CodeSet& set) { return options_.json ? options_.json->spelled(set) : set.to_expr(&pool_); }

  ExprId atom() {
    const std::size_t start = at_;
    if (take('(')) {
      for (const char* kind : {"?=", "?!", "?<=", "?<!"}) {
        if (!take(std::string_view(kind))) continue;
        if (!options_.look_around) {
          fail_at("look-around must not stand in a terminal, which other texts may surround; write it without", start);
        }
        const ExprId e = alternation();
        if (!take(')')) fail_at("group must be closed, got no ')' for this '('", start);
        return looks_.add(e, kind[1] == '<', std::string_view(kind).back() == '!');
      }
      if (take("?:") || take("?P<") || take("?<")) {
        if (text_[at_ - 1] == '<') {
          while (!done() && peek() != '>') ++at_;
          if (!take('>')) fail("group name must end with '>'");
        }
      } else if (peek() == '?') {
        fail_at(
            "group must be ( ), (?: ) or a named group, got flags or a group of another kind; write it without them",
            start);
      }
      const ExprId e = alternation();
      if (!take(')')) fail_at("group must be closed, got no ')' for this '('", start);
      return e;
    }
    if (take('[')) return lower(char_class(start));
    if (take('.')) {
      CodeSet newline{{'\n', '\n'}};
      return lower(options_.dot_all ? CodeSet{{0, kMaxCodePoint}} : newline.complement());
    }
    if (take('^')) return pool_.byte(kStartMark);
    if (take('$')) return pool_.byte(kEndMark);
    if (peek() == '*' || peek() == '+' || peek() == '?') {
      fail(gramcore::cat("repetition must follow something, got '", std::string(1, peek()), "' first"));
    }
    CodeSet set;
    if (take('\\')) {
      escape(start, false, &set);
    } else {
      const std::uint32_t c = code_point();
      set.add(c, c);
      set = folded(std::move(set));
    }
    return lower(set);
  }

  std::uint32_t code_point() {
    std::uint32_t c = 0;
    if (!next_code_point(text_, &at_, &c)) fail("regular expression must be UTF-8 text, got a byte that is not");
    return c;
  }
  std::uint32_t hex(std::size_t digits, std::size_t start) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < digits; ++i, ++at_) {
      const char c = peek();
      const int d = c >= '0' && c <= '9'   ? c - '0'
                    : c >= 'a' && c <= 'f' ? c - 'a' + 10
                    : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                           : -1;
      if (d < 0) fail_at(gramcore::cat("escape must have ", digits, " hexadecimal digits"), start);
      value = value * 16 + static_cast<std::uint32_t>(d);
    }
    return value;
  }
  std::uint32_t unicode_escape(std::size_t start) {
    if (!take('{')) {
      const std::uint32_t c = hex(4, start);
      if (c >= 0xD800 && c < 0xDC00 && take("\\u")) {
        const std::uint32_t low = hex(4, start);
        if (low < 0xDC00 || low > 0xDFFF) fail_at("surrogate escapes must come in pairs", start);
        return 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
      }
      return c;
    }
    std::size_t digits = 0;
    while (at_ + digits < text_.size() && text_[at_ + digits] != '}') ++digits;
    if (digits == 0 || digits > 6) fail_at("escape \\u{...} must hold 1 to 6 hexadecimal digits", start);
    const std::uint32_t c = hex(digits, start);
    if (!take('}') || c > kMaxCodePoint) fail_at("escape \\u{...} must name a code point", start);
    return c;
  }
  // After a backslash: adds what it means to `set`; returns the code point, or -1 for a class.
  std::int64_t escape(std::size_t start, bool in_class, CodeSet* set) {
    if (done()) fail_at("escape must be followed by a character, got the end", start);
    const std::uint32_t c = code_point();
    const auto add_class = [&](const CodeSet& s, bool negated) {
      set->add(negated ? s.complement() : s);
      return std::int64_t{-1};
    };
    std::uint32_t value = c;
    switch (c) {
      case 'd':
      case 'D': return add_class(digit_set(), c == 'D');
      case 'w':
      case 'W': return add_class(word_set(), c == 'W');
      case 's':
      case 'S': return add_class(space_set(), c == 'S');
      case 'n': value = '\n'; break;
      case 'r': value = '\r'; break;
      case 't': value = '\t'; break;
      case 'f': value = '\f'; break;
      case 'v': value = '\v'; break;
      case 'a': value = '\a'; break;
      case '0': value = 0; break;
      case 'x': value = hex(2, start); break;
      case 'u': value = unicode_escape(start); break;
      case 'U': value = hex(8, start); break;
      case 'b':
        if (in_class) {
          value = '\b';
          break;
        }
        [[fallthrough]];
      default:
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) {
          std::string got;
          append_utf8(&got, c);
          fail_at(gramcore::cat("escape must be one this engine supports, got \\", got,
                                " (back references, boundaries and properties are not)"),
                  start);
        }
    }
    if (value > kMaxCodePoint) fail_at("escape must name a code point", start);
    set->add(value, value);
    return value;
  }
  CodeSet char_class(std::size_t start) {
    const bool negated = take('^');
    CodeSet set;
    bool first = true;
    for (;; first = false) {
      if (done()) fail_at("character class must be closed, got no ']' for this '['", start);
      if (!first && take(']')) break;
      const std::size_t item = at_;
      CodeSet one;
      std::int64_t lo = take('\\') ? escape(item, true, &one) : (one.add(peek_point(), peek_point()), code_point());
      if (lo >= 0 && peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        ++at_;
        CodeSet end;
        const std::size_t second = at_;
        const std::int64_t hi = take('\\') ? escape(second, true, &end) : std::int64_t{code_point()};
        if (hi < 0) fail_at("range must end with a character, got a class", second);
        if (hi < lo) fail_at("range must ascend, got its end before its start", item);
        set.add(static_cast<std::uint32_t>(lo), static_cast<std::uint32_t>(hi));
      } else {
        set.add(one);
      }
    }
    set = folded(std::move(set));
    return negated ? set.complement() : set;
  }
  std::uint32_t peek_point() {
    const std::size_t before = at_;
    const std::uint32_t c = code_point();
    at_ = before;
    return c;
  }

  std::string_view text_;
  RegexOptions options_;
  ExprPool& pool_;
  LookArounds& looks_;
  std::size_t at_ = 0;
  std::uint32_t depth_ = 0;
};

}  // namespace

ExprId any_text(ExprPool* pool) {
  return pool->star(CodeSet{{0, kMaxCodePoint}}.to_expr(pool));
}

ExprId parse_regex(std::string_view text, const RegexOptions& options, ExprPool* pool) {
  const ExprId any = options.json ? options.json->any_spelled() : any_text(pool);
  LookArounds looks(pool, any);
  const ExprId parsed = Parser(text, options, pool, &looks).run();
  const Anchors anchors(pool, options.search ? any : ExprPool::kEpsilon);
  const ExprId e = looks.resolved(parsed, anchors);
  GC_CHECK(e != ExprPool::kEmpty || looks.none(), "regular expression must match some text, got '", std::string(text),
           "', whose look-around excludes all");
  GC_CHECK(!anchors.holds(e), "anchors beside look-around must stand at the ends of the expression, got one inside '",
           std::string(text), "'; write it without");
  GC_CHECK(e != ExprPool::kEmpty || parsed == ExprPool::kEmpty,
           "anchors must stand where a text can begin or end, got only others in '", std::string(text), "'");
  return e;
}

}  // namespace gramcore::grammar
