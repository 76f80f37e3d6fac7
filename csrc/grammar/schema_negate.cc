// Complements of schemas: one shape per way to violate one keyword.
#include <algorithm>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;

Shape only(unsigned types) {
  Shape s;
  s.types = types;
  return s;
}

template <class T>
void append(std::vector<T>* to, const std::vector<T>& from) {
  to->insert(to->end(), from.begin(), from.end());
}

}  // namespace

Shapes SchemaCompiler::negated(const Json& node) {
  if (node.is(Type::kFalse)) return {Shape{}};
  if (node.is(Type::kTrue)) return {};
  if (!node.is(Type::kObject)) refuse(node, "", "schema must be an object or a boolean");
  scan(node);
  for (const char* keyword : {"oneOf", "uniqueItems", "additionalProperties", "patternProperties", "prefixItems",
                              "dependentRequired", "dependentSchemas", "dependencies", "propertyNames", "format",
                              "additionalItems", "unevaluatedProperties", "unevaluatedItems"}) {
    const Json* value = node.find(keyword);
    if (value != nullptr && !value->is(Type::kTrue) && !(value->is_bool() && std::string(keyword) == "uniqueItems")) {
      refuse(node, keyword, "it cannot be complemented (under not, oneOf or if)");
    }
  }
  Shapes out;
  if (const Json* type = node.find("type")) {
    const unsigned rest = kAllBits & ~type_bits(*type, node);
    if (rest) out.push_back(only(rest));
  }
  for (const char* keyword : {"enum", "const"}) {
    if (const Json* v = node.find(keyword)) {
      Shape s;
      if (std::string(keyword) == "const") {
        s.excluded = {v};
      } else {
        for (const Json& x : v->items) s.excluded.push_back(&x);
      }
      out.push_back(std::move(s));
    }
  }
  negate_numbers(node, &out);
  negate_objects(node, &out);
  if (const Json* p = node.find("pattern")) {
    const ExprId e = pattern(p->text, node);
    if (e == ExprPool::kEmpty) refuse(node, "pattern", "it cannot be complemented (under not, oneOf or if)");
    Shape s = only(kStringBit);
    s.patterns.push_back(grammar_.pool.complement(e));
    out.push_back(std::move(s));
  }
  if (const Json* all = node.find("allOf")) {
    for (const Json& part : all->items) append(&out, negated(part));
  }
  if (const Json* any = node.find("anyOf")) {
    Shapes none{Shape{}};
    for (const Json& part : any->items) none = product(none, negated(part));
    append(&out, none);
  }
  if (const Json* inner = node.find("not")) append(&out, shapes(*inner));
  for (const Json* target : referenced(node)) {
    if (std::find(resolving_.begin(), resolving_.end(), target) != resolving_.end()) {
      refuse(node, "$ref", "a chain of references must reach a schema, got a circle");
    }
    resolving_.push_back(target);
    append(&out, negated(*target));
    resolving_.pop_back();
  }
  if (const Json* condition = node.find("if")) {
    if (const Json* then = node.find("then")) append(&out, product(shapes(*condition), negated(*then)));
    if (const Json* otherwise = node.find("else")) append(&out, product(negated(*condition), negated(*otherwise)));
  }
  for (Shape& s : out) s.evaluated = {};  // what holds under `not` says nothing about what was looked at
  return out;
}

void SchemaCompiler::negate_numbers(const Json& node, Shapes* out) {
  Shape s;
  base(node, &s);
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

void SchemaCompiler::negate_objects(const Json& node, Shapes* out) {
  Shape s;
  base_array(node, &s);
  base_object(node, &s);
  if (s.min_items > 0) {
    out->push_back(only(kArrayBit));
    out->back().max_items = s.min_items - 1;
  }
  if (s.max_items != kUnbounded) {
    out->push_back(only(kArrayBit));
    out->back().min_items = s.max_items + 1;
  }
  for (const ArrayPart& part : s.arrays) {
    if (part.items.empty()) continue;
    if (!part.prefix.empty()) refuse(node, "items", "it cannot be complemented after prefixItems");
    out->push_back(only(kArrayBit));
    out->back().contains.push_back({key_of(*part.items[0].node, true), 1, kUnbounded});
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
  for (const ObjectPart& part : s.objects) {
    for (const auto& [name, key] : part.properties) {
      if (key.empty()) continue;
      out->push_back(only(kObjectBit));
      out->back().required.push_back(name);
      out->back().objects.push_back({{{name, key_of(*key[0].node, true)}}, {}, {}});
    }
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
