// References: base URIs, anchors, embedded and given resources (RFC 3986 section 5, JSON Schema 2020-12 section 8.2).
#include <algorithm>
#include <cctype>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;

bool has_scheme(std::string_view uri) {
  std::size_t i = 0;
  while (i < uri.size() &&
         (std::isalnum(static_cast<unsigned char>(uri[i])) || uri[i] == '+' || uri[i] == '-' || uri[i] == '.')) {
    ++i;
  }
  return i > 0 && i < uri.size() && uri[i] == ':' && std::isalpha(static_cast<unsigned char>(uri[0]));
}

std::string without_dots(std::string_view path) {
  std::vector<std::string_view> parts;
  std::size_t from = 0;
  while (from <= path.size()) {
    const std::size_t to = std::min(path.find('/', from), path.size());
    const std::string_view part = path.substr(from, to - from);
    const bool last = to == path.size();
    if (part == "..") {
      if (parts.size() > 1) parts.pop_back();
      if (last) parts.push_back("");
    } else if (part != ".") {
      parts.push_back(part);
    } else if (last) {
      parts.push_back("");
    }
    from = to + 1;
  }
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) out += (i ? "/" : "") + std::string(parts[i]);
  return out;
}

// `ref` without its fragment, resolved against `base` (which has none).
std::string join_uri(const std::string& base, const std::string& reference) {
  const std::string ref = reference.substr(0, reference.find('#'));
  if (ref.empty()) return base;
  if (has_scheme(ref)) return ref;
  const std::size_t colon = has_scheme(base) ? base.find(':') + 1 : 0;
  if (ref.compare(0, 2, "//") == 0) return base.substr(0, colon) + ref;
  std::size_t root = colon;  // where the path of the base begins
  if (base.compare(colon, 2, "//") == 0) root = std::min(base.find('/', colon + 2), base.size());
  if (ref[0] == '/') return base.substr(0, root) + without_dots(ref);
  const std::size_t slash = base.rfind('/');
  const std::string folder = slash == std::string::npos || slash < root ? "" : base.substr(root, slash + 1 - root);
  return base.substr(0, root) + without_dots(folder + ref);
}

const Json* text_of(const Json& node, const char* keyword) {
  const Json* v = node.find(keyword);
  return v != nullptr && v->is(Type::kString) ? v : nullptr;
}

const Json* find_named(const Json& from, const std::string& name) {
  for (const char* k : {"$anchor", "$id", "id", "$dynamicAnchor"}) {
    const Json* v = text_of(from, k);
    if (v != nullptr && (v->text == name || v->text == "#" + name)) return &from;
  }
  for (const Json& item : from.items) {
    if (const Json* found = find_named(item, name)) return found;
  }
  return nullptr;
}

// A JSON pointer's part behind a slash, its escapes resolved.
std::string unescaped(const std::string& path, std::size_t from, std::size_t to) {
  std::string key;
  for (std::size_t i = from; i < to; ++i) {
    if (path[i] == '~' && i + 1 < to) {
      key.push_back(path[++i] == '1' ? '/' : '~');
    } else if (path[i] == '%' && i + 2 < to && std::isxdigit(static_cast<unsigned char>(path[i + 1])) &&
               std::isxdigit(static_cast<unsigned char>(path[i + 2]))) {
      key.push_back(static_cast<char>(std::stoi(path.substr(i + 1, 2), nullptr, 16)));
      i += 2;
    } else {
      key.push_back(path[i]);
    }
  }
  return key;
}

const Json* at_pointer(const Json* at, const std::string& path) {
  for (std::size_t from = 1; from <= path.size() && at != nullptr;) {
    const std::size_t to = std::min(path.find('/', from), path.size());
    const std::string key = unescaped(path, from, to);
    if (at->is(Type::kObject)) {
      at = at->find(key);
    } else if (at->is(Type::kArray) && !key.empty() && key.size() < 9 &&
               key.find_first_not_of("0123456789") == std::string::npos && std::stoul(key) < at->items.size()) {
      at = &at->items[std::stoul(key)];
    } else {
      at = nullptr;
    }
    from = to + 1;
  }
  return at;
}

}  // namespace

// Notes base URIs, resources and anchors below `node`.
void SchemaCompiler::hide_beside_reference(const Json& node) {
  lone_references_.insert(&node);
  constexpr std::string_view kSayNothing[] = {"$ref",  "$schema", "$id",      "id",       "title",      "description",
                                              "$defs", "default", "examples", "$comment", "definitions"};
  for (const std::string& keyword : node.keys) {
    if (std::find(std::begin(kSayNothing), std::end(kSayNothing), keyword) == std::end(kSayNothing)) {
      annotate(node, keyword, "$ref hides it in this draft");
    }
  }
}

// lone: the draft in force is one of those in which $ref hides what stands beside it.
void SchemaCompiler::index_references(const Json& node, std::string base, bool lone) {
  if (node.is(Type::kObject)) {
    if (const Json* draft = text_of(node, "$schema")) lone = draft->text.find("/draft-0") != std::string::npos;
    const bool refers = text_of(node, "$ref") != nullptr, hides = lone && refers;
    if (refers) referring_.push_back(&node);
    if (hides) hide_beside_reference(node);
    for (const char* keyword : {"$id", "id"}) {
      const Json* id = hides ? nullptr : text_of(node, keyword);
      if (id == nullptr || id->text.empty()) continue;
      if (id->text[0] == '#') {
        anchors_[base + id->text] = &node;
      } else {
        base = join_uri(base, id->text);
        resources_.emplace(base, &node);
      }
    }
    if (const Json* name = text_of(node, "$anchor")) anchors_[base + "#" + name->text] = &node;
    if (const Json* name = text_of(node, "$dynamicAnchor")) {
      anchors_[base + "#" + name->text] = &node;
      dynamic_anchors_[base].emplace(name->text, &node);
    }
    const Json* recursive = node.find("$recursiveAnchor");
    if (recursive != nullptr && recursive->is(Type::kTrue)) dynamic_anchors_[base].emplace("#", &node);
    bases_[&node] = base;
  }
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    if (node.is(Type::kObject)) {
      const std::string& key = node.keys[i];
      key_bytes_ += key.size();
      if (key == "enum" || key == "const" || key == "default" || key == "examples") continue;
    }
    index_references(node.items[i], base, lone);
  }
}

const Json& SchemaCompiler::resolve(const Json& node, const std::string& ref) {
  const auto known = bases_.find(&node);
  const std::string base = known == bases_.end() ? bases_[&root_] : known->second;
  const std::string uri = join_uri(base, ref);
  const std::size_t hash = ref.find('#');
  const std::string fragment = hash == std::string::npos ? "" : ref.substr(hash + 1);
  const auto resource = resources_.find(uri);
  const Json* at = resource != resources_.end() ? resource->second : uri.empty() ? &root_ : nullptr;
  if (at == nullptr) at = find_named(root_, ref.substr(0, hash));
  if (at == nullptr) {
    refuse(node, "$ref", cat("references must name a part of the schema or of the resources given, got '", ref, "'"));
  }
  if (fragment.empty()) return *at;
  const Json* found = nullptr;
  if (fragment[0] == '/') {
    found = at_pointer(at, fragment);
    if (found == nullptr) found = at_pointer(&root_, fragment);  // as written by those who embed a resource untold
  } else {
    const auto anchor = anchors_.find(uri + "#" + fragment);
    found = anchor != anchors_.end() ? anchor->second : find_named(*at, fragment);
  }
  if (found == nullptr) refuse(node, "$ref", cat("references must name a part of the schema, got '", ref, "'"));
  return *found;
}

// The schemas that `node` refers to.
std::vector<const Json*> SchemaCompiler::referenced(const Json& node) {
  std::vector<const Json*> out;
  if (const Json* ref = text_of(node, "$ref")) out.push_back(&resolve(node, ref->text));
  for (const char* keyword : {"$dynamicRef", "$recursiveRef"}) {
    const Json* ref = text_of(node, keyword);
    if (ref == nullptr) continue;
    const Json& target = resolve(node, ref->text);
    const Json *name = text_of(target, "$dynamicAnchor"), *recursive = target.find("$recursiveAnchor");
    std::string anchor;
    if (keyword[1] == 'd' && name != nullptr && ref->text.substr(ref->text.find('#') + 1) == name->text) {
      anchor = name->text;
    } else if (keyword[1] == 'r' && recursive != nullptr && recursive->is(Type::kTrue)) {
      anchor = "#";
    }
    const auto outermost = scopes_[scope_].find(anchor);
    out.push_back(outermost == scopes_[scope_].end() ? &target : outermost->second);
  }
  return out;
}

// The schemas in a schema that speak of the same value as it does, the ones it refers to among them, or (parts) all
// that speak of some value.
std::vector<const Json*> SchemaCompiler::inner(const Json& node, bool parts) {
  constexpr std::string_view kSame[] = {"allOf", "anyOf", "oneOf", "not", "if", "then", "else"};
  constexpr std::string_view kPart[] = {"prefixItems",      "items",         "additionalItems",
                                        "contains",         "propertyNames", "additionalProperties",
                                        "unevaluatedItems", "properties",    "unevaluatedProperties",
                                        "patternProperties"};
  const auto in = [](const auto& list, const std::string& key) {
    return std::find(std::begin(list), std::end(list), key) != std::end(list);
  };
  std::vector<const Json*> out;
  for (std::size_t i = 0; i < node.keys.size(); ++i) {
    const std::string& key = node.keys[i];
    const Json& value = node.items[i];
    if (key == "$ref" && value.is(Type::kString)) {
      try {
        out.push_back(&resolve(node, value.text));
      } catch (const InvalidArgument&) {  // refused where it is needed
      }
    } else if (!is_lone(node) &&
               (in(kSame, key) || key == "dependentSchemas" || key == "dependencies" || (parts && in(kPart, key)))) {
      const bool holds = value.is(Type::kArray) || key == "properties" || key == "patternProperties" ||
                         key == "dependentSchemas" || key == "dependencies";
      if (!holds) out.push_back(&value);
      for (std::size_t k = 0; holds && k < value.items.size(); ++k) out.push_back(&value.items[k]);
    }
  }
  return out;
}

// Refuses circles of references before the rest of the schema is worked out, which may take long.
void SchemaCompiler::refuse_circles() {
  enum : char { kOpen = 1, kDone = 2 };
  std::unordered_map<const Json*, char> seen;
  std::vector<const Json*> circles, path;
  std::vector<std::vector<const Json*>> next;  // of the path, not gone yet
  for (const Json* start : referring_) {
    if (seen.count(start) != 0) continue;
    path = {start};
    next = {inner(*start, false)};
    seen[start] = kOpen;
    while (!path.empty()) {
      if (next.back().empty()) {
        seen[path.back()] = kDone;
        path.pop_back();
        next.pop_back();
        continue;
      }
      const Json* to = next.back().back();
      next.back().pop_back();
      char& state = seen[to];
      if (state == kOpen) circles.push_back(path.back());
      if (state != 0) continue;
      state = kOpen;
      path.push_back(to);
      next.push_back(inner(*to, false));
    }
  }
  if (circles.empty()) return;
  std::unordered_set<const Json*> reached{&root_};
  for (std::vector<const Json*> open{&root_}; !open.empty();) {
    const Json* at = open.back();
    open.pop_back();
    if (std::find(circles.begin(), circles.end(), at) != circles.end()) {
      refuse(*at, "$ref", "a chain of references must reach a schema, got a circle");
    }
    for (const Json* to : inner(*at, true)) {
      if (reached.insert(to).second) open.push_back(to);
    }
  }
}

// What is looked at stands in its resource's dynamic scope too, behind those that were entered before.
void SchemaCompiler::enter(const Json& node) {
  if (dynamic_anchors_.empty()) return;
  const auto base = bases_.find(&node);
  const auto anchors = base == bases_.end() ? dynamic_anchors_.end() : dynamic_anchors_.find(base->second);
  if (anchors == dynamic_anchors_.end()) return;
  DynamicScope inner = scopes_[scope_];
  inner.insert(anchors->second.begin(), anchors->second.end());
  const auto known = std::find(scopes_.begin(), scopes_.end(), inner);
  scope_ = static_cast<std::uint32_t>(known - scopes_.begin());
  if (known == scopes_.end()) scopes_.push_back(std::move(inner));
}

}  // namespace gramcore::grammar
