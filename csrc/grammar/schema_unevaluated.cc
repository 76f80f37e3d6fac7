// unevaluatedProperties and unevaluatedItems: what no keyword in the same place has looked at.
//
// Each alternative of the schema knows which of its parts hold, and so what they have looked at; an alternative in
// which more parts hold is listed beside it and allows more.  The union is exact.
#include "grammar/schema.h"

namespace gramcore::grammar {

using Type = Json::Type;

bool SchemaCompiler::annotates(const Json& node) const {
  return node.find("unevaluatedProperties") != nullptr || node.find("unevaluatedItems") != nullptr;
}

void SchemaCompiler::close_unevaluated(const Json& node, Shapes* shapes) {
  const Json *names = node.find("unevaluatedProperties"), *items = node.find("unevaluatedItems");
  for (Shape& s : *shapes) {
    Evaluated& seen = s.evaluated;
    if (names != nullptr && !seen.all_names) {
      ObjectPart part;
      for (const std::string& name : seen.names) part.properties.push_back({name, {}});
      for (const std::string& text : seen.patterns) part.patterns.push_back({text, {}});
      part.additional = key_of(*names);
      s.objects.push_back(std::move(part));
      seen.all_names = true;
    }
    if (items != nullptr && !seen.all_items) {
      ArrayPart part;
      part.prefix.resize(seen.prefix);
      if (seen.contained.empty()) {
        part.items = key_of(*items);
      } else {  // matched by one of `contains`, or else as `items` says
        Json either = parse_json(R"({"anyOf": []})");
        for (const Json* c : seen.contained) either.items[0].items.push_back(*c);
        either.items[0].items.push_back(*items);
        part.items = key_of(adopt(std::move(either)));
      }
      s.arrays.push_back(std::move(part));
      seen.all_items = true;
    }
  }
}

// Ways to violate unevaluated* of a schema whose other keywords hold: something that none of them looked at is not as
// it must be.  Several alternatives look at different parts, and all of them would have to be violated at once.
void SchemaCompiler::negate_unevaluated(const Json& node, Shapes* out) {
  const Json *names = node.find("unevaluatedProperties"), *items = node.find("unevaluatedItems");
  ++annotating_;
  const Shapes own = constrained(node, nullptr);
  --annotating_;
  if (own.empty()) return;
  if (own.size() > 1) {
    refuse(node, names != nullptr ? "unevaluatedProperties" : "unevaluatedItems",
           "it cannot be complemented (under not, oneOf or if) beside alternatives");
  }
  ExprPool& pool = grammar_.pool;
  const Evaluated& seen = own[0].evaluated;
  if (names != nullptr && !seen.all_names && (own[0].types & kObjectBit)) {
    std::vector<ExprId> others{text_.any_spelled()};
    for (const std::string& name : seen.names) others.push_back(pool.complement(pool.literal(spell(name))));
    for (const std::string& text : seen.patterns) {
      const ExprId e = pattern(text, node);
      if (e == ExprPool::kEmpty) refuse(node, "unevaluatedProperties", "it names a pattern that is not supported");
      others.push_back(pool.complement(e));
    }
    out->push_back(own[0]);
    out->back().types &= kObjectBit;
    out->back().witnesses.push_back({pool.conj(std::move(others)), key_of(*names, true)});
  }
  if (items != nullptr && !seen.all_items && (own[0].types & kArrayBit)) {
    SchemaKey key = key_of(*items, true);
    for (const Json* c : seen.contained) key = join(key, key_of(*c, true));
    out->push_back(own[0]);
    out->back().types &= kArrayBit;
    out->back().contains.push_back({key, 1, kUnbounded, static_cast<std::uint32_t>(seen.prefix)});
  }
}

}  // namespace gramcore::grammar
