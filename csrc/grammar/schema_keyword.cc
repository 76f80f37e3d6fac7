// Single keywords: types, bounds, patterns, formats; and what is said about those not enforced.
#include <algorithm>
#include <string_view>
#include <unordered_map>

#include "grammar/regex.h"
#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;

struct Format {
  const char* name;
  const char* regex;
};
#define GC_DATE                                                                                                      \
  "(?:[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|" \
  "1[0-9]|2[0-8]))|(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)-02-29)"
#define GC_TIME \
  "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,9})?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
#define GC_BYTE "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
#define GC_ALNUM "[A-Za-z0-9]"
#define GC_LDH "[A-Za-z0-9-]"
#define GC_LABEL GC_ALNUM "(?:" GC_LDH "{0,61}" GC_ALNUM ")?"
// Without hyphens in the third and fourth place, which RFC 5891 reserves.
#define GC_PLAIN_LABEL                                                                                        \
  GC_ALNUM "(?:" GC_LDH "?" GC_ALNUM "|" GC_LDH "{2}" GC_ALNUM "|" GC_LDH "(?:" GC_ALNUM GC_LDH "|-" GC_ALNUM \
           ")" GC_LDH "{0,58}" GC_ALNUM ")?"
#define GC_PUNYCODE "[Xx][Nn]--" GC_LDH "{0,58}" GC_ALNUM
#define GC_HOSTNAME(label) label "(?:\\." label ")*"
#define GC_ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define GC_HEX4 "[0-9A-Fa-f]{1,4}"
#define GC_HEX4S(n) "(?:(?:" GC_HEX4 ":){0," #n "}" GC_HEX4 ")?"
#define GC_LAST32 "(?:" GC_HEX4 ":" GC_HEX4 "|" GC_BYTE "(?:\\." GC_BYTE "){3})"
#define GC_DIGITS "[0-9]{1,18}"
#define GC_SECONDS GC_DIGITS "S"
#define GC_MINUTES GC_DIGITS "M(?:" GC_SECONDS ")?"
#define GC_HOURS GC_DIGITS "H(?:" GC_MINUTES ")?"
#define GC_DAYS GC_DIGITS "D"
#define GC_MONTHS GC_DIGITS "M(?:" GC_DAYS ")?"
#define GC_YEARS GC_DIGITS "Y(?:" GC_MONTHS ")?"
#define GC_CLOCK "T(?:" GC_HOURS "|" GC_MINUTES "|" GC_SECONDS ")"
#define GC_PERCENT "%[0-9A-Fa-f]{2}"
#define GC_NAME "A-Za-z0-9._~!$&'()*+,;="  // what RFC 3986 calls unreserved or sub-delims, but for the hyphen
#define GC_IPV6                                                                                                     \
  "(?:(?:" GC_HEX4 ":){6}" GC_LAST32 "|::(?:" GC_HEX4 ":){5}" GC_LAST32                                             \
  "|" GC_HEX4S(0) "::(?:" GC_HEX4 ":){4}" GC_LAST32 "|" GC_HEX4S(1) "::(?:" GC_HEX4 ":){3}" GC_LAST32 "|" GC_HEX4S( \
      2) "::(?:" GC_HEX4 ":){2}" GC_LAST32                                                                          \
         "|" GC_HEX4S(3) "::" GC_HEX4 ":" GC_LAST32 "|" GC_HEX4S(4) "::" GC_LAST32                                  \
                                                                    "|" GC_HEX4S(5) "::" GC_HEX4 "|" GC_HEX4S(6) "::)"
// `more`: the characters that IRIs (RFC 3987) have and URIs have not, and those in queries alone.
#define GC_OF(set) "(?:[" set "-]|" GC_PERCENT ")"
#define GC_SEGMENT(more) GC_OF(GC_NAME ":@" more)
#define GC_HOST(more) "(?:\\[(?:" GC_IPV6 "|[Vv][0-9A-Fa-f]+\\.[" GC_NAME ":-]+)\\]|" GC_OF(GC_NAME more) "*)"
#define GC_AUTHORITY(more) "(?:" GC_OF(GC_NAME ":" more) "*@)?" GC_HOST(more) "(?::[0-9]*)?"
#define GC_SEGMENTS(more) "(?:/" GC_SEGMENT(more) "*)*"
#define GC_HIERARCHY(more, first) \
  "(?://" GC_AUTHORITY(more)      \
      GC_SEGMENTS(more) "|/(?:" GC_SEGMENT(more) "+" GC_SEGMENTS(more) ")?|" first "+" GC_SEGMENTS(more) ")?"
#define GC_BEHIND_PATH(more, query) "(?:\\?" GC_OF(GC_NAME ":@/?" more query) "*)?(?:#" GC_OF(GC_NAME ":@/?" more) "*)?"
#define GC_URI(more, query) "[A-Za-z][A-Za-z0-9+.-]*:" GC_HIERARCHY(more, GC_SEGMENT(more)) GC_BEHIND_PATH(more, query)
#define GC_REFERENCE(more, query) \
  "(?:" GC_URI(more, query) "|" GC_HIERARCHY(more, GC_OF(GC_NAME "@" more)) GC_BEHIND_PATH(more, query) ")"
#define GC_IRI                                                                                               \
  "\\u00A0-\\uD7FF\\uF900-\\uFDCF\\uFDF0-\\uFFEF\\U00010000-\\U0001FFFD\\U00020000-\\U0002FFFD\\U00030000-"  \
  "\\U0003FFFD\\U00040000-\\U0004FFFD\\U00050000-\\U0005FFFD\\U00060000-\\U0006FFFD\\U00070000-\\U0007FFFD"  \
  "\\U00080000-\\U0008FFFD\\U00090000-\\U0009FFFD\\U000A0000-\\U000AFFFD\\U000B0000-\\U000BFFFD\\U000C0000-" \
  "\\U000CFFFD\\U000D0000-\\U000DFFFD\\U000E1000-\\U000EFFFD"
#define GC_PRIVATE "\\uE000-\\uF8FF\\U000F0000-\\U000FFFFD\\U00100000-\\U0010FFFD"
#define GC_VARCHARS "(?:[A-Za-z0-9_]|%[0-9A-Fa-f]{2})+"
#define GC_VARIABLE GC_VARCHARS "(?:\\." GC_VARCHARS ")*(?::[1-9][0-9]{0,3}|\\*)?"
constexpr Format kFormats[] = {
    {"date-time", GC_DATE "[Tt]" GC_TIME},
    {"date", GC_DATE},
    {"time", GC_TIME},
    {"duration", "P(?:" GC_DIGITS "W|(?:" GC_YEARS "|" GC_MONTHS "|" GC_DAYS ")(?:" GC_CLOCK ")?|" GC_CLOCK ")"},
    {"email", GC_ATOM "(?:\\." GC_ATOM ")*@" GC_HOSTNAME(GC_LABEL)},
    {"hostname", GC_HOSTNAME("(?:" GC_PLAIN_LABEL "|" GC_PUNYCODE ")")},
    {"ipv4", GC_BYTE "(?:\\." GC_BYTE "){3}"},
    {"ipv6", GC_IPV6},
    {"uuid", "[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}"},
    {"uri", GC_URI("", "")},
    {"uri-reference", GC_REFERENCE("", "")},
    {"iri", GC_URI(GC_IRI, GC_PRIVATE)},
    {"iri-reference", GC_REFERENCE(GC_IRI, GC_PRIVATE)},
    {"uri-template", "(?:[!#$&-;=?-\\[\\]_a-z~" GC_IRI GC_PRIVATE "]|" GC_PERCENT "|\\{[+#./;?&=,!@|]?" GC_VARIABLE
                     "(?:," GC_VARIABLE ")*\\})*"},
    {"relative-json-pointer", "(?:0|[1-9][0-9]{0,18})(?:#|(?:/(?:[^/~]|~[01])*)*)"},
    {"json-pointer", "(?:/(?:[^/~]|~[01])*)*"},
};

// Formats that JSON Schema defines and kFormats has not; others say nothing about validity.
constexpr std::string_view kOtherFormats[] = {"idn-email", "idn-hostname", "regex"};
// Those of draft 3 that later drafts dropped or named anew.
constexpr std::string_view kDraft3Formats[] = {"color", "host-name", "ip-address", "phone", "style"};

std::string_view kind_of(const Json& value) {
  switch (value.type) {
    case Type::kNull: return "null";
    case Type::kFalse: return "false";
    case Type::kTrue: return "true";
    case Type::kNumber: return "a number";
    case Type::kString: return "a string";
    case Type::kArray: return "an array";
    case Type::kObject: break;
  }
  return "an object";
}

// What the value of a keyword must be to say anything.
struct Form {
  std::string_view words;
  bool (*holds)(const Json&);
};

const std::unordered_map<std::string_view, Form>& forms() {
  static const Form number{"a number", [](const Json& v) { return v.is(Type::kNumber); }};
  static const Form limit{"a number", [](const Json& v) {  // a boolean in draft 4
                            return v.is(Type::kNumber) || v.is(Type::kTrue) || v.is(Type::kFalse);
                          }};
  static const Form text{"a string", [](const Json& v) { return v.is(Type::kString); }};
  static const Form flag{"a boolean", [](const Json& v) { return v.is(Type::kTrue) || v.is(Type::kFalse); }};
  static const Form list{"an array", [](const Json& v) { return v.is(Type::kArray); }};
  static const Form map{"an object", [](const Json& v) { return v.is(Type::kObject); }};
  static const Form names{"an array of strings", [](const Json& v) {
                            const auto is_text = [](const Json& x) { return x.is(Type::kString); };
                            return v.is(Type::kArray) && std::all_of(v.items.begin(), v.items.end(), is_text);
                          }};
  static const std::unordered_map<std::string_view, Form> table{
      {"minimum", number},
      {"maximum", number},
      {"multipleOf", number},
      {"exclusiveMinimum", limit},
      {"exclusiveMaximum", limit},
      {"pattern", text},
      {"$ref", text},
      {"$dynamicRef", text},
      {"$recursiveRef", text},
      {"uniqueItems", flag},
      {"enum", list},
      {"prefixItems", list},
      {"allOf", list},
      {"anyOf", list},
      {"oneOf", list},
      {"properties", map},
      {"patternProperties", map},
      {"dependentRequired", map},
      {"dependentSchemas", map},
      {"dependencies", map},
      {"required", names},
  };
  return table;
}

}  // namespace

std::string SchemaCompiler::pointer_of(const Json& node) {
  if (parents_.empty()) {  // all at once: a schema may have as many notes as nodes
    std::vector<const Json*> open{&root_};
    while (!open.empty()) {
      const Json* at = open.back();
      open.pop_back();
      for (std::size_t i = 0; i < at->items.size(); ++i) {
        parents_.emplace(&at->items[i], std::make_pair(at, i));
        open.push_back(&at->items[i]);
      }
    }
  }
  std::vector<std::string> parts;
  for (const Json* at = &node; at != &root_;) {
    const auto found = parents_.find(at);
    if (found == parents_.end()) return "#";
    const auto [parent, i] = found->second;
    parts.push_back(parent->is(Type::kObject) ? parent->keys[i] : std::to_string(i));
    at = parent;
  }
  std::string path = "#";
  for (std::size_t i = parts.size(); i-- > 0;) path.append("/").append(parts[i]);
  return path;
}

void SchemaCompiler::refuse(const Json& node, const std::string& keyword, const std::string& why) {
  const std::string at = pointer_of(node);
  if (keyword.empty()) throw InvalidArgument(gramcore::cat(why, ", got ", kind_of(node), " at ", at));
  throw InvalidArgument(
      gramcore::cat("schema must use supported keywords only, got '", keyword, "' at ", at, ": ", why));
}

void SchemaCompiler::note(const Json& node, const std::string& keyword, const std::string& detail) {
  if (options_.strict || guessing_) refuse(node, keyword, detail + " (strict)");
  record(node, keyword, "approximated", detail);
}

void SchemaCompiler::annotate(const Json& node, const std::string& keyword, const std::string& detail) {
  record(node, keyword, "annotation", detail);
}

void SchemaCompiler::record(const Json& node, const std::string& keyword, const char* status,
                            const std::string& detail) {
  const std::string at = pointer_of(node);
  if (noted_.insert(at + "\n" + keyword).second) report_.push_back({at, keyword, status, detail});
}

void SchemaCompiler::scan(const Json& node) {
  for (const char* k : {"extends", "disallow"}) {
    if (node.find(k)) refuse(node, k, "it is not supported");
  }
  for (std::size_t i = 0; i < node.keys.size(); ++i) {
    const auto form = forms().find(node.keys[i]);
    if (form == forms().end() || form->second.holds(node.items[i])) continue;
    note(node, node.keys[i], gramcore::cat("it must be ", form->second.words, ", got ", kind_of(node.items[i])));
  }
}

const Json& SchemaCompiler::synthetic(std::string_view text) {
  const auto [at, fresh] = constants_.try_emplace(std::string(text), nullptr);
  if (fresh) at->second = &adopt(parse_json(text));
  return *at->second;
}

// Keeps a schema that is made from others, numbered behind all of them.
const Json& SchemaCompiler::adopt(Json made) {
  synthetic_.push_back(std::make_unique<Json>(std::move(made)));
  std::vector<Json*> open{synthetic_.back().get()};
  while (!open.empty()) {
    Json* at = open.back();
    open.pop_back();
    at->number = next_number_++;
    for (Json& item : at->items) open.push_back(&item);
  }
  return *synthetic_.back();
}

unsigned SchemaCompiler::type_bits(const Json& type, const Json& node) {
  if (type.is(Type::kArray)) {
    unsigned bits = 0;
    for (const Json& t : type.items) bits |= type_bits(t, node);
    return bits;
  }
  constexpr std::pair<const char*, unsigned> kNames[] = {
      {"null", kNullBit},       {"boolean", kFalseBit | kTrueBit},
      {"integer", kIntegerBit}, {"number", kIntegerBit | kFractionBit},
      {"string", kStringBit},   {"array", kArrayBit},
      {"object", kObjectBit},   {"any", kAllBits}};
  for (const auto& [name, bits] : kNames) {
    if (type.text == name) return bits;
  }
  refuse(node, "type", gramcore::cat("type must be a type of JSON, got '", type.text, "'"));
}

Bound SchemaCompiler::bound(const Json& value, const Json& node, const char* keyword, bool exclusive) {
  Bound b;
  b.exclusive = exclusive;
  if (!to_decimal(value.text, &b.value)) refuse(node, keyword, "bounds must have at most 400 digits");
  return b;
}

std::uint32_t SchemaCompiler::count(const Json& value, const Json& node, const char* keyword) {
  Decimal d;
  if (!value.is(Type::kNumber) || !to_decimal(value.text, &d) || d.negative || !d.fraction.empty()) {
    refuse(node, keyword, "it must be a non-negative integer");
  }
  return d.whole.size() > 9 ? 1000000000u : static_cast<std::uint32_t>(std::stoul("0" + d.whole));
}

// A string's content, or kEmpty where the expression cannot be enforced (which the report then says).
ExprId SchemaCompiler::pattern(const std::string& text, const Json& node, const char* keyword) {
  const auto it = plain_patterns_.find(text);
  if (it != plain_patterns_.end()) return it->second;
  ExprId e = ExprPool::kEmpty;
  try {
    RegexOptions options;
    options.search = true;
    options.json = &text_;
    e = parse_regex(text, options, &grammar_.pool);
  } catch (const InvalidArgument& error) {
    note(node, keyword, gramcore::cat("the pattern is not enforced: ", error.what()));
  }
  plain_patterns_[text] = e;
  return e;
}

// Whether the schema as a whole is of one of these drafts.
bool SchemaCompiler::of_draft(std::initializer_list<const char*> numbers) const {
  const Json* draft = root_.find("$schema");
  return draft != nullptr && std::any_of(numbers.begin(), numbers.end(), [&](const char* number) {
           return draft->text.find(gramcore::cat("/draft-0", number)) != std::string::npos;
         });
}

bool SchemaCompiler::standard_format(const std::string& name) const {
  const auto in = [&](const auto& list) { return std::find(std::begin(list), std::end(list), name) != std::end(list); };
  return in(kOtherFormats) || (in(kDraft3Formats) && of_draft({"3"}));
}

ExprId SchemaCompiler::format(const std::string& name) {
  const auto [at, fresh] = formats_.try_emplace(name, ExprPool::kEmpty);
  const auto* found =
      std::find_if(std::begin(kFormats), std::end(kFormats), [&](const Format& f) { return name == f.name; });
  if (!fresh || found == std::end(kFormats)) return at->second;
  RegexOptions options;
  options.json = &text_;
  if (name != "hostname") return at->second = parse_regex(found->regex, options, &grammar_.pool);
  // Punycode is not decoded: strict mode, which takes nothing invalid, does without.
  const char* regex = of_draft({"3", "4", "6"}) ? GC_HOSTNAME(GC_LABEL)
                      : options_.strict         ? GC_HOSTNAME("(?:" GC_PLAIN_LABEL ")")
                                                : found->regex;
  const ExprId letter = grammar_.pool.byte_class(ByteSet::range(0x2D, 0x7A));  // - . digits letters, one byte each
  const ExprId text = parse_regex(regex, options, &grammar_.pool);
  return at->second = grammar_.pool.conj({text, grammar_.pool.repeat(letter, 1, 253)});
}

}  // namespace gramcore::grammar
