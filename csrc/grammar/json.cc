#include "grammar/json.h"

#include <algorithm>

#include "core/check.h"
#include "grammar/limits.h"
#include "grammar/utf8.h"

namespace gramcore::grammar {
namespace {

class Parser {
 public:
  Parser(std::string_view text, std::uint32_t first) : text_(text), next_(first) {}

  Json run() {
    Json value = parse();
    space();
    if (at_ < text_.size()) fail("the end");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* expected) const {
    std::string got = "the end";
    if (at_ < text_.size()) got = gramcore::cat("'", std::string(text_.substr(at_, 1)), "'");
    throw InvalidArgument(gramcore::cat("JSON must have ", expected, " here, got ",
                                        static_cast<unsigned char>(got[1]) >= 0x80 ? "a non-ASCII character" : got,
                                        " (", place_of(text_, at_), ")"));
  }
  void space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t' || text_[at_] == '\n' || text_[at_] == '\r'))
      ++at_;
  }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool take(std::string_view s) {
    if (text_.substr(at_, s.size()) != s) return false;
    at_ += s.size();
    return true;
  }
  Json parse() {
    if (++depth_ > kMaxNesting) {
      throw GrammarTooComplex(
          gramcore::cat("JSON must nest at most ", kMaxNesting, " levels, got more (", place_of(text_, at_), ")"));
    }
    space();
    Json v;
    v.number = next_++;
    if (take('{')) {
      object(&v);
    } else if (take('[')) {
      array(&v);
    } else if (at_ < text_.size() && text_[at_] == '"') {
      v.type = Json::Type::kString;
      v.text = string();
    } else if (take("null")) {
      v.type = Json::Type::kNull;
    } else if (take("true")) {
      v.type = Json::Type::kTrue;
    } else if (take("false")) {
      v.type = Json::Type::kFalse;
    } else {
      number(&v);
    }
    --depth_;
    return v;
  }
  void object(Json* v) {
    v->type = Json::Type::kObject;
    v->key_bits = 0;
    space();
    if (take('}')) return;
    for (;;) {
      space();
      if (at_ >= text_.size() || text_[at_] != '"') fail("a key in double quotes");
      std::string key = string();
      space();
      if (!take(':')) fail("':'");
      Json item = parse();
      const auto it = v->keys.size() < 16 ? std::find(v->keys.begin(), v->keys.end(), key) : v->keys.end();
      if (it != v->keys.end()) {
        v->items[static_cast<std::size_t>(it - v->keys.begin())] = std::move(item);
      } else {
        v->key_bits |= Json::bit_of(key);
        v->keys.push_back(std::move(key));
        v->items.push_back(std::move(item));
      }
      space();
      if (take('}')) return;
      if (!take(',')) fail("',' or '}'");
    }
  }
  void array(Json* v) {
    v->type = Json::Type::kArray;
    space();
    if (take(']')) return;
    for (;;) {
      v->items.push_back(parse());
      space();
      if (take(']')) return;
      if (!take(',')) fail("',' or ']'");
    }
  }
  std::uint32_t hex4() {
    std::uint32_t c = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char x = at_ < text_.size() ? text_[at_] : ' ';
      const int d = x >= '0' && x <= '9'   ? x - '0'
                    : x >= 'a' && x <= 'f' ? x - 'a' + 10
                    : x >= 'A' && x <= 'F' ? x - 'A' + 10
                                           : -1;
      if (d < 0) fail("four hexadecimal digits");
      c = c * 16 + static_cast<std::uint32_t>(d);
    }
    return c;
  }
  static bool plain(char c) { return c >= 0x20 && c < 0x7F && c != '"' && c != '\\'; }
  std::string string() {
    std::string out;
    ++at_;
    for (;;) {
      std::size_t run = at_;  // of letters that stand for themselves
      while (run < text_.size() && plain(text_[run])) ++run;
      out.append(text_.data() + at_, run - at_);
      at_ = run;
      if (at_ >= text_.size()) fail("'\"'");
      const char c = text_[at_];
      if (c == '"') {
        ++at_;
        return out;
      }
      if (static_cast<unsigned char>(c) < 0x20) fail("no raw control character in a string");
      if (c != '\\') {
        std::uint32_t code = 0;
        if (!next_code_point(text_, &at_, &code)) fail("UTF-8 text");
        append_utf8(&out, code);
        continue;
      }
      ++at_;
      const char e = at_ < text_.size() ? text_[at_] : ' ';
      const std::string_view from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      if (e == 'u') {
        ++at_;
        std::uint32_t code = hex4();
        if (code >= 0xD800 && code < 0xDC00 && take("\\u")) {
          const std::uint32_t low = hex4();
          code = low >= 0xDC00 && low < 0xE000 ? 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00) : 0xFFFD;
        }
        append_utf8(&out, code >= 0xD800 && code < 0xE000 ? 0xFFFD : code);
      } else if (from.find(e) != std::string_view::npos) {
        out.push_back(to[from.find(e)]);
        ++at_;
      } else {
        fail("an escape of JSON");
      }
    }
  }
  void number(Json* v) {
    const std::size_t first = at_;
    const auto digits = [&] {
      const std::size_t from = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
      return at_ > from;
    };
    take('-');
    if (!take('0') && !digits()) {
      at_ = first;
      fail("a value");
    }
    if (take('.') && !digits()) fail("a digit");
    if (take('e') || take('E')) {
      if (!take('+')) take('-');
      if (!digits()) fail("a digit");
    }
    v->type = Json::Type::kNumber;
    v->text = std::string(text_.substr(first, at_ - first));
  }

  std::string_view text_;
  std::size_t at_ = 0;
  std::uint32_t depth_ = 0, next_;
};

}  // namespace

Json parse_json(std::string_view text, std::uint32_t first) {
  return Parser(text, first).run();
}

const Json* Json::search(std::string_view key) const {
  for (std::size_t i = keys.size(); i-- > 0;) {
    if (keys[i] == key) return &items[i];
  }
  return nullptr;
}

bool Json::operator==(const Json& o) const {
  if (type != o.type) return false;
  switch (type) {
    case Type::kString: return text == o.text;
    case Type::kNumber: {
      Decimal a, b;
      return to_decimal(text, &a) && to_decimal(o.text, &b) ? compare(a, b) == 0 : text == o.text;
    }
    case Type::kArray: return items == o.items;
    case Type::kObject: {
      if (keys.size() != o.keys.size()) return false;
      for (std::size_t i = 0; i < keys.size(); ++i) {
        const Json* other = o.find(keys[i]);
        if (other == nullptr || !(items[i] == *other)) return false;
      }
      return true;
    }
    default: return true;
  }
}

bool to_decimal(const std::string& number, Decimal* out) {
  *out = {};
  std::size_t i = 0;
  out->negative = number[0] == '-';
  if (out->negative) ++i;
  std::string digits;
  long point = 0;
  while (i < number.size() && number[i] >= '0' && number[i] <= '9') digits.push_back(number[i++]);
  point = static_cast<long>(digits.size());
  if (i < number.size() && number[i] == '.') {
    for (++i; i < number.size() && number[i] >= '0' && number[i] <= '9'; ++i) digits.push_back(number[i]);
  }
  if (i < number.size()) {  // e or E
    bool minus = false;
    ++i;
    if (number[i] == '+' || number[i] == '-') minus = number[i++] == '-';
    long e = 0;
    for (; i < number.size(); ++i) e = std::min(e * 10 + (number[i] - '0'), 100000L);
    point += minus ? -e : e;
  }
  if (point > 400 || point < -400 || digits.size() > 400) return false;
  if (point < 0) {
    digits.insert(0, static_cast<std::size_t>(-point), '0');
    point = 0;
  }
  if (static_cast<std::size_t>(point) > digits.size())
    digits.append(static_cast<std::size_t>(point) - digits.size(), '0');
  out->whole = digits.substr(0, static_cast<std::size_t>(point));
  out->fraction = digits.substr(static_cast<std::size_t>(point));
  out->whole.erase(0, std::min(out->whole.find_first_not_of('0'), out->whole.size()));
  out->fraction.erase(out->fraction.find_last_not_of('0') + 1);
  if (out->is_zero()) out->negative = false;
  return true;
}

int compare(const Decimal& a, const Decimal& b) {
  if (a.negative != b.negative) return a.negative ? -1 : 1;
  int c = a.whole.size() != b.whole.size() ? (a.whole.size() < b.whole.size() ? -1 : 1) : a.whole.compare(b.whole);
  if (c == 0) c = a.fraction.compare(b.fraction);
  c = c < 0 ? -1 : c > 0 ? 1 : 0;
  return a.negative ? -c : c;
}

}  // namespace gramcore::grammar
