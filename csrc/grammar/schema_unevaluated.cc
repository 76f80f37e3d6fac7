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

}  // namespace gramcore::grammar
