// Schemas to disjunctions of shapes.
#include <algorithm>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;
constexpr std::size_t kMaxShapes = 512, kMaxPairs = 1 << 16, kMaxWork = 1 << 18;  // the last of one schema

bool tighter(const Bound& a, const Bound& b, bool low) {  // a excludes more than b
  const int c = compare(a.value, b.value);
  return c == 0 ? a.exclusive && !b.exclusive : (low ? c > 0 : c < 0);
}

}  // namespace

bool trivial(const Json& node) {
  return node.is(Type::kTrue) || (node.is(Type::kObject) && node.keys.empty());
}

bool never(const SchemaKey& key) {
  return std::any_of(key.begin(), key.end(),
                     [](const SchemaRef& r) { return r.negated ? trivial(*r.node) : r.node->is(Type::kFalse); });
}

SchemaKey SchemaCompiler::key_of(const Json& node, bool negated) const {
  if (!negated && trivial(node)) return {};
  return {{&node, negated, scope_}};
}

SchemaKey join(SchemaKey a, const SchemaKey& b) {
  append(&a, b);
  std::sort(a.begin(), a.end());
  a.erase(std::unique(a.begin(), a.end()), a.end());
  return a;
}

// Narrows `a`, which is not disjoint with `b`, to what both allow; objects: whether some object may be among that.
void SchemaCompiler::meet(Shape* a, const Shape& b, bool objects) {
  Shape& s = *a;
  s.types &= objects ? b.types : b.types & ~static_cast<unsigned>(kObjectBit);
  if (b.values && s.values) {
    auto& v = *s.values;
    const auto in_b = [&](const Json* x) {
      return std::any_of(b.values->begin(), b.values->end(), [&](const Json* y) { return *x == *y; });
    };
    v.erase(std::remove_if(v.begin(), v.end(), [&](const Json* x) { return !in_b(x); }), v.end());
  } else if (b.values) {
    s.values = b.values;
  }
  append(&s.excluded, b.excluded);
  if (b.low && (!s.low || tighter(*b.low, *s.low, true))) s.low = b.low;
  if (b.high && (!s.high || tighter(*b.high, *s.high, false))) s.high = b.high;
  append(&s.multiples, b.multiples);
  s.min_length = std::max(s.min_length, b.min_length);
  s.max_length = std::min(s.max_length, b.max_length);
  append(&s.patterns, b.patterns);
  append(&s.arrays, b.arrays);
  append(&s.contains, b.contains);
  if (s.unique == nullptr) s.unique = b.unique;
  s.min_items = std::max(s.min_items, b.min_items);
  s.max_items = std::min(s.max_items, b.max_items);
  append(&s.objects, b.objects);
  append(&s.witnesses, b.witnesses);
  append(&s.required, b.required);
  s.names = join(s.names, b.names);
  s.min_properties = std::max(s.min_properties, b.min_properties);
  s.max_properties = std::min(s.max_properties, b.max_properties);
  s.evaluated.names.insert(b.evaluated.names.begin(), b.evaluated.names.end());
  s.evaluated.patterns.insert(b.evaluated.patterns.begin(), b.evaluated.patterns.end());
  s.evaluated.all_names |= b.evaluated.all_names;
  s.evaluated.prefix = std::max(s.evaluated.prefix, b.evaluated.prefix);
  s.evaluated.all_items |= b.evaluated.all_items;
  append(&s.evaluated.contained, b.evaluated.contained);
}

Shapes SchemaCompiler::product(Shapes a, const Shapes& b) {
  const std::size_t most = std::max({kMaxShapes, a.size(), b.size()});
  GC_CHECK_AS(GrammarTooComplex, a.size() * b.size() <= kMaxPairs, "schema must combine at most ", kMaxPairs,
              " pairs of alternatives, got more; split or simplify its anyOf, oneOf, not and if");
  Shapes out;
  for (Shape& x : a) {
    for (std::size_t i = 0; i < b.size(); ++i) {
      GC_CHECK_AS(GrammarTooComplex, ++work_ <= kMaxWork && out.size() <= most, "schema must combine at most ", most,
                  " alternatives, got more; split or simplify its anyOf, oneOf, not and if");
      if (disjoint(x, b[i])) continue;
      const bool objects = !no_object(x, b[i]);
      if (!objects && (x.types & b[i].types) == kObjectBit) continue;
      if (i + 1 < b.size()) {
        out.push_back(x);
      } else {
        out.push_back(std::move(x));
      }
      meet(&out.back(), b[i], objects);
      if (out.back().types == 0) out.pop_back();
    }
  }
  return out;
}

// What both allow; all of `a` where that has too many alternatives, which strict mode refuses.
Shapes SchemaCompiler::narrowed(Shapes a, const Json& node, const char* keyword, const std::function<Shapes()>& other) {
  const Place place = here();
  try {
    const Shapes b = other();
    return product(a, b);
  } catch (const GrammarTooComplex& error) {
    if (options_.strict) throw;
    back_to(place);
    note(node, keyword, gramcore::cat("it is not enforced: ", error.what()));
    return a;
  }
}

Shapes SchemaCompiler::shapes_of(const SchemaKey& key) {
  if (key.empty()) return Shapes(1);
  const auto one = [&](const SchemaRef& ref) {
    const Restored scope(&scope_);
    scope_ = ref.scope;
    return ref.negated ? negated(*ref.node) : shapes(*ref.node);
  };
  Shapes out = one(key[0]);
  for (std::size_t i = 1; i < key.size(); ++i) {
    out = narrowed(std::move(out), *key[i].node, key[i].negated ? "not" : "allOf", [&] { return one(key[i]); });
  }
  return out;
}

// What the schema allows, of `within` if given.
Shapes SchemaCompiler::shapes(const Json& node, Shapes* within) {
  if (node.is(Type::kFalse)) return {};
  if (node.is(Type::kTrue)) return within != nullptr ? std::move(*within) : Shapes(1);
  if (!node.is(Type::kObject)) refuse(node, "", "schema must be an object or a boolean");
  const Restored scope(&scope_);
  enter(node);
  if (is_lone(node)) return followed(node, within != nullptr ? std::move(*within) : Shapes(1));
  scan(node);
  if (!annotates(node)) return constrained(node, within);
  ++annotating_;
  Shapes own = constrained(node, nullptr);
  --annotating_;
  close_unevaluated(node, &own);
  return within == nullptr ? own : narrowed(std::move(*within), node, "unevaluatedProperties", [&] { return own; });
}

Shapes SchemaCompiler::constrained(const Json& node, Shapes* within) {
  Shapes own(1);
  base(node, &own[0]);
  base_array(node, &own[0]);
  base_object(node, &own[0]);
  if (own[0].types == 0) return {};
  return applicators(node, within == nullptr ? std::move(own) : product(std::move(*within), own));
}

// What the schemas that `node` refers to allow.
Shapes SchemaCompiler::followed(const Json& node, Shapes result) {
  for (const Json* target : referenced(node)) {
    if (std::find(resolving_.begin(), resolving_.end(), target) != resolving_.end()) {
      refuse(node, "$ref", "a chain of references must reach a schema, got a circle");
    }
    resolving_.push_back(target);
    result = shapes(*target, &result);
    resolving_.pop_back();
  }
  return result;
}

// All of allOf, one of anyOf, ...: what combines whole schemas.
Shapes SchemaCompiler::applicators(const Json& node, Shapes result) {
  result = followed(node, std::move(result));
  if (const Json* all = node.find("allOf")) {
    for (const Json& part : all->items) result = shapes(part, &result);
  }
  const auto narrow = [&](const char* keyword, const auto& meaning) {
    if (const Json* value = node.find(keyword)) {
      result = narrowed(std::move(result), node, keyword, [&] { return meaning(*value); });
    }
  };
  narrow("anyOf", [&](const Json& list) { return any_of(list); });
  if (const Json* one = node.find("oneOf")) result = exactly_one(*one, result);
  narrow("not", [&](const Json& inner) { return negated(inner); });
  narrow("if", [&](const Json& condition) { return conditional(node, condition); });
  for (const char* keyword : {"dependentRequired", "dependentSchemas", "dependencies"}) {
    const Json* list = node.find(keyword);
    for (std::size_t i = 0; list != nullptr && i < list->keys.size(); ++i) {
      result = narrowed(std::move(result), node, keyword, [&] { return dependency(list->keys[i], list->items[i]); });
    }
  }
  return result;
}

// The property is absent, or what depends on it holds.
Shapes SchemaCompiler::dependency(const std::string& name, const Json& needs) {
  Shape absent = only(kAllBits), present = only(kObjectBit);
  absent.objects.push_back({{{name, key_of(synthetic("false"))}}, {}, {}});
  present.required.push_back(name);
  if (needs.is(Type::kArray)) {
    for (const Json& other : needs.items) present.required.push_back(other.text);
  }
  Shapes out{present};
  if (!needs.is(Type::kArray)) out = product(std::move(out), shapes(needs));
  out.push_back(std::move(absent));
  return out;
}

// Some of the list.  What counts as evaluated depends on which: then every choice of several is an alternative too.
Shapes SchemaCompiler::any_of(const Json& list) {
  Shapes some;
  for (const Json& part : list.items) {
    const Shapes one = shapes(part);
    Shapes both;
    if (annotating_ > 0) both = product(some, one);
    append(&some, one);
    append(&some, both);
  }
  return some;
}

Shapes SchemaCompiler::conditional(const Json& node, const Json& condition) {
  const Json *then = node.find("then"), *otherwise = node.find("else");
  if (then == nullptr && otherwise == nullptr && annotating_ == 0) return Shapes(1);
  Shapes sum = shapes(condition);
  if (then != nullptr) sum = product(std::move(sum), shapes(*then));
  Shapes rest = then == nullptr && otherwise == nullptr ? Shapes(1) : negated(condition);
  if (otherwise != nullptr) rest = product(std::move(rest), shapes(*otherwise));
  append(&sum, rest);
  return sum;
}

void SchemaCompiler::base(const Json& node, Shape* s) {
  if (const Json* type = node.find("type")) s->types = type_bits(*type, node);
  if (const Json* one = node.find("const")) s->values = {one};
  if (const Json* list = node.find("enum")) {
    Shape with;
    with.values.emplace();
    for (const Json& v : list->items) with.values->push_back(&v);
    if (disjoint(*s, with)) {
      *s = only(0);
    } else {
      meet(s, with, true);
    }
  }
  const Json *low = node.find("minimum"), *above = node.find("exclusiveMinimum");
  if (low && low->is(Type::kNumber)) s->low = bound(*low, node, "minimum", above && above->is(Type::kTrue));
  if (above && above->is(Type::kNumber)) {
    const Bound b = bound(*above, node, "exclusiveMinimum", true);
    if (!s->low || tighter(b, *s->low, true)) s->low = b;
  }
  const Json *high = node.find("maximum"), *below = node.find("exclusiveMaximum");
  if (high && high->is(Type::kNumber)) s->high = bound(*high, node, "maximum", below && below->is(Type::kTrue));
  if (below && below->is(Type::kNumber)) {
    const Bound b = bound(*below, node, "exclusiveMaximum", true);
    if (!s->high || tighter(b, *s->high, false)) s->high = b;
  }
  if (const Json* m = node.find("multipleOf")) s->multiples.push_back({m->text, false});
  if (const Json* m = node.find("divisibleBy")) s->multiples.push_back({m->text, false});
  if (const Json* n = node.find("minLength")) s->min_length = count(*n, node, "minLength");
  if (const Json* n = node.find("maxLength")) s->max_length = count(*n, node, "maxLength");
  if (const Json* p = node.find("pattern")) {
    const ExprId e = pattern(p->text, node);
    if (e != ExprPool::kEmpty) s->patterns.push_back(e);
  }
  if (const Json* f = node.find("format")) {
    const ExprId e = format(f->text);
    if (e != ExprPool::kEmpty) {
      s->patterns.push_back(e);
    } else if (standard_format(f->text)) {
      note(node, "format", gramcore::cat("format '", f->text, "' is not enforced"));
    } else {
      annotate(node, "format", gramcore::cat("format '", f->text, "' is none of JSON Schema's"));
    }
  }
}

void SchemaCompiler::base_array(const Json& node, Shape* s) {
  const Json *prefix = node.find("prefixItems"), *items = node.find("items"), *more = node.find("additionalItems");
  if (prefix == nullptr && items != nullptr && items->is(Type::kArray)) {  // drafts before 2020-12
    prefix = items;
    items = more;
  }
  if (prefix != nullptr || items != nullptr) {
    ArrayPart part;
    for (std::size_t i = 0; prefix != nullptr && i < prefix->items.size(); ++i) {
      part.prefix.push_back(key_of(prefix->items[i]));
    }
    if (items != nullptr) part.items = key_of(*items);
    s->evaluated.prefix = part.prefix.size();
    s->evaluated.all_items = items != nullptr;
    s->arrays.push_back(std::move(part));
  }
  if (const Json* n = node.find("minItems")) s->min_items = count(*n, node, "minItems");
  if (const Json* n = node.find("maxItems")) s->max_items = count(*n, node, "maxItems");
  if (const Json* c = node.find("contains")) {
    const Json *least = node.find("minContains"), *most = node.find("maxContains");
    s->contains.push_back({key_of(*c), least ? count(*least, node, "minContains") : 1,
                           most ? count(*most, node, "maxContains") : kUnbounded});
    s->evaluated.contained.push_back(c);
    if (s->contains.back().min > s->contains.back().max) s->types &= ~static_cast<unsigned>(kArrayBit);
  }
  const Json* unique = node.find("uniqueItems");
  if (unique != nullptr && unique->is(Type::kTrue)) s->unique = &node;
}

void SchemaCompiler::base_object(const Json& node, Shape* s) {
  const Json *properties = node.find("properties"), *patterns = node.find("patternProperties"),
             *more = node.find("additionalProperties");
  if (properties || patterns || more) {
    ObjectPart part;
    for (std::size_t i = 0; properties && i < properties->keys.size(); ++i) {
      part.properties.push_back({properties->keys[i], key_of(properties->items[i])});
    }
    for (std::size_t i = 0; patterns && i < patterns->keys.size(); ++i) {
      pattern(patterns->keys[i], node, "patternProperties");  // noted here if it is not supported
      part.patterns.push_back({patterns->keys[i], key_of(patterns->items[i])});
    }
    if (more) part.additional = key_of(*more);
    if (annotating_ > 0) {
      for (const auto& [name, key] : part.properties) s->evaluated.names.insert(name);
      for (const auto& [text, key] : part.patterns) s->evaluated.patterns.insert(text);
    }
    s->evaluated.all_names = more != nullptr;
    s->objects.push_back(std::move(part));
  }
  const Json* required = node.find("required");
  if (required && required->is(Type::kArray)) {
    for (const Json& name : required->items) s->required.push_back(name.text);
  }
  for (std::size_t i = 0; properties && i < properties->keys.size(); ++i) {  // draft 3 and 4: required inside
    const Json* inside = properties->items[i].find("required");
    if (inside && inside->is(Type::kTrue)) s->required.push_back(properties->keys[i]);
  }
  if (const Json* names = node.find("propertyNames")) s->names = key_of(*names);
  if (const Json* n = node.find("minProperties")) s->min_properties = count(*n, node, "minProperties");
  if (const Json* n = node.find("maxProperties")) s->max_properties = count(*n, node, "maxProperties");
}

}  // namespace gramcore::grammar
