// Complements of schemas: one shape per way to violate one keyword.
#include <algorithm>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;
constexpr const char* kNoComplement = "it cannot be complemented (under not, oneOf or if)";

// A schema that this array or object alone matches, with `const` for its parts.
Json schema_of(const Json& value) {
  const auto set = [](Json* object, const char* key, Json item) {
    object->type = Type::kObject;
    object->keys.push_back(key);
    object->items.push_back(std::move(item));
  };
  const bool array = value.is(Type::kArray);
  Json out, parts;
  parts.type = array ? Type::kArray : Type::kObject;
  parts.keys = value.keys;
  for (const Json& item : value.items) {
    parts.items.emplace_back();
    set(&parts.items.back(), "const", item);
  }
  const auto text = [](Type type, std::string s) {
    Json v;
    v.type = type;
    v.text = std::move(s);
    return v;
  };
  const Json count = text(Type::kNumber, std::to_string(value.items.size()));
  set(&out, "type", text(Type::kString, array ? "array" : "object"));
  set(&out, array ? "minItems" : "minProperties", count);
  set(&out, array ? "maxItems" : "maxProperties", count);
  set(&out, array ? "prefixItems" : "properties", std::move(parts));
  if (array) return out;
  Json names;
  names.type = Type::kArray;
  for (const std::string& key : value.keys) names.items.push_back(text(Type::kString, key));
  set(&out, "required", std::move(names));
  return out;
}

}  // namespace

Shapes SchemaCompiler::negated(const Json& node) {
  if (node.is(Type::kFalse)) return Shapes(1);
  if (node.is(Type::kTrue)) return {};
  if (!node.is(Type::kObject)) refuse(node, "", "schema must be an object or a boolean");
  const Restored scope(&scope_);
  enter(node);
  Shapes out;
  negate_references(node, &out);
  if (is_lone(node)) return out;
  scan(node);
  const Json* unique = node.find("uniqueItems");
  if (unique != nullptr && unique->is(Type::kTrue)) refuse(node, "uniqueItems", kNoComplement);
  if (annotates(node)) negate_unevaluated(node, &out);
  if (const Json* type = node.find("type")) {
    const unsigned rest = kAllBits & ~type_bits(*type, node);
    if (rest) out.push_back(only(rest));
  }
  if (const Json* v = node.find("const")) append(&out, differing({v}));
  if (const Json* list = node.find("enum")) {
    std::vector<const Json*> values;
    for (const Json& v : list->items) values.push_back(&v);
    append(&out, differing(values));
  }
  negate_scalars(node, &out);
  negate_arrays(node, &out);
  negate_objects(node, &out);
  negate_dependencies(node, &out);
  if (const Json* one = node.find("oneOf")) negate_one_of(*one, &out);
  if (const Json* all = node.find("allOf")) {
    for (const Json& part : all->items) append(&out, negated(part));
  }
  if (const Json* any = node.find("anyOf")) {
    Shapes none{Shape{}};
    for (const Json& part : any->items) none = narrowed(std::move(none), part, "not", [&] { return negated(part); });
    append(&out, none);
  }
  if (const Json* inner = node.find("not")) append(&out, shapes(*inner));
  if (const Json* condition = node.find("if")) {
    if (const Json* then = node.find("then")) {
      append(&out, narrowed(shapes(*condition), *then, "not", [&] { return negated(*then); }));
    }
    if (const Json* otherwise = node.find("else")) {
      append(&out, narrowed(negated(*condition), *otherwise, "not", [&] { return negated(*otherwise); }));
    }
  }
  for (Shape& s : out) s.evaluated = {};  // what holds under `not` says nothing about what was looked at
  return out;
}

void SchemaCompiler::negate_references(const Json& node, Shapes* out) {
  for (const Json* target : referenced(node)) {
    if (std::find(resolving_.begin(), resolving_.end(), target) != resolving_.end()) {
      refuse(node, "$ref", "a chain of references must reach a schema, got a circle");
    }
    resolving_.push_back(target);
    append(out, negated(*target));
    resolving_.pop_back();
  }
}

// Values that are none of these.
Shapes SchemaCompiler::differing(const std::vector<const Json*>& values) {
  Shape scalars;
  Shapes out;
  for (const Json* v : values) {
    if (!v->is(Type::kArray) && !v->is(Type::kObject)) scalars.excluded.push_back(v);
  }
  out.push_back(std::move(scalars));
  for (const Json* v : values) {
    if (!v->is(Type::kArray) && !v->is(Type::kObject)) continue;
    const Json& same = adopt(schema_of(*v));
    out = narrowed(std::move(out), same, "not", [&] { return negated(same); });
  }
  return out;
}

// One alternative matches no value, or two match it.
void SchemaCompiler::negate_one_of(const Json& list, Shapes* out) {
  Shapes none{Shape{}};
  for (const Json& part : list.items) none = narrowed(std::move(none), part, "not", [&] { return negated(part); });
  append(out, none);
  for (std::size_t i = 0; i < list.items.size(); ++i) {
    const Shapes mine = shapes(list.items[i]);
    for (std::size_t j = 0; j < i; ++j) {
      append(out, narrowed(shapes(list.items[j]), list, "not", [&] { return mine; }));
    }
  }
}

void SchemaCompiler::negate_dependencies(const Json& node, Shapes* out) {
  for (const char* keyword : {"dependentRequired", "dependentSchemas", "dependencies"}) {
    const Json* list = node.find(keyword);
    for (std::size_t i = 0; list != nullptr && i < list->keys.size(); ++i) {
      Shape present = only(kObjectBit);
      present.required.push_back(list->keys[i]);
      if (!list->items[i].is(Type::kArray)) {
        append(out, narrowed({present}, node, keyword, [&] { return negated(list->items[i]); }));
        continue;
      }
      for (const Json& name : list->items[i].items) {
        out->push_back(present);
        out->back().objects.push_back({{{name.text, key_of(synthetic("false"))}}, {}, {}});
      }
    }
  }
}

void SchemaCompiler::negate_scalars(const Json& node, Shapes* out) {
  Shape s;
  base(node, &s);
  for (const char* keyword : {"pattern", "format"}) {
    const Json* text = node.find(keyword);
    if (text == nullptr || !text->is(Type::kString)) continue;
    const bool is_format = std::string(keyword) == "format";
    const ExprId e = is_format ? format(text->text) : pattern(text->text, node);
    if (e == ExprPool::kEmpty && is_format && !standard_format(text->text)) continue;  // an annotation
    if (e == ExprPool::kEmpty) refuse(node, keyword, kNoComplement);
    out->push_back(only(kStringBit));
    out->back().patterns.push_back(grammar_.pool.complement(e));
  }
  const auto flip = [](Bound b) {
    b.exclusive = !b.exclusive;
    return b;
  };
  if (s.low) {
    out->push_back(only(kIntegerBit | kFractionBit));
    out->back().high = flip(*s.low);
  }
  if (s.high) {
    out->push_back(only(kIntegerBit | kFractionBit));
    out->back().low = flip(*s.high);
  }
  for (const Multiple& m : s.multiples) {
    out->push_back(only(kIntegerBit | kFractionBit));
    out->back().multiples.push_back({m.of, !m.negated});
  }
  if (s.min_length > 0) {
    out->push_back(only(kStringBit));
    out->back().max_length = s.min_length - 1;
  }
  if (s.max_length != kUnbounded) {
    out->push_back(only(kStringBit));
    out->back().min_length = s.max_length + 1;
  }
}

void SchemaCompiler::negate_arrays(const Json& node, Shapes* out) {
  Shape s;
  base_array(node, &s);
  if (s.min_items > 0) {
    out->push_back(only(kArrayBit));
    out->back().max_items = s.min_items - 1;
  }
  if (s.max_items != kUnbounded) {
    out->push_back(only(kArrayBit));
    out->back().min_items = s.max_items + 1;
  }
  for (const ArrayPart& part : s.arrays) {
    for (std::size_t i = 0; i < part.prefix.size(); ++i) {
      if (part.prefix[i].empty()) continue;
      out->push_back(only(kArrayBit));
      out->back().min_items = static_cast<std::uint32_t>(i + 1);
      ArrayPart violated;
      violated.prefix.resize(i);
      violated.prefix.push_back(key_of(*part.prefix[i][0].node, true));
      out->back().arrays.push_back(std::move(violated));
    }
    if (part.items.empty()) continue;
    out->push_back(only(kArrayBit));
    const auto from = static_cast<std::uint32_t>(part.prefix.size());
    out->back().contains.push_back({key_of(*part.items[0].node, true), 1, kUnbounded, from});
  }
  for (const ContainsPart& c : s.contains) {
    if (c.min > 0) {
      out->push_back(only(kArrayBit));
      out->back().contains.push_back({c.key, 0, c.min - 1});
    }
    if (c.max != kUnbounded) {
      out->push_back(only(kArrayBit));
      out->back().contains.push_back({c.key, c.max + 1, kUnbounded});
    }
  }
}

// Some member violates what this part says of it.
void SchemaCompiler::negate_members(const Json& node, const ObjectPart& part, Shapes* out) {
  ExprPool& pool = grammar_.pool;
  std::vector<ExprId> others{text_.any_spelled()};
  const auto violated = [&](ExprId names, const SchemaKey& key) {
    if (key.empty()) return;
    out->push_back(only(kObjectBit));
    out->back().witnesses.push_back({names, key_of(*key[0].node, true)});
  };
  for (const auto& [name, key] : part.properties) {
    others.push_back(pool.complement(pool.literal(spell(name))));
    if (key.empty()) continue;
    out->push_back(only(kObjectBit));
    out->back().required.push_back(name);
    out->back().objects.push_back({{{name, key_of(*key[0].node, true)}}, {}, {}});
  }
  for (const auto& [text, key] : part.patterns) {
    const ExprId e = pattern(text, node);
    if (e == ExprPool::kEmpty) refuse(node, "patternProperties", kNoComplement);
    violated(e, key);
    others.push_back(pool.complement(e));
  }
  violated(pool.conj(std::move(others)), part.additional);
}

void SchemaCompiler::negate_objects(const Json& node, Shapes* out) {
  Shape s;
  base_object(node, &s);
  for (const ObjectPart& part : s.objects) negate_members(node, part, out);
  if (!s.names.empty()) {
    const ExprId bad = grammar_.pool.conj({text_.any_spelled(), grammar_.pool.complement(name_content(s.names))});
    out->push_back(only(kObjectBit));
    out->back().witnesses.push_back({bad, {}});
  }
  for (const std::string& name : s.required) {
    out->push_back(only(kObjectBit));
    out->back().objects.push_back({{{name, key_of(synthetic("false"))}}, {}, {}});
  }
  if (s.min_properties > 0) {
    out->push_back(only(kObjectBit));
    out->back().max_properties = s.min_properties - 1;
  }
  if (s.max_properties != kUnbounded) {
    out->push_back(only(kObjectBit));
    out->back().min_properties = s.max_properties + 1;
  }
}

}  // namespace gramcore::grammar
