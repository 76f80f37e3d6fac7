// oneOf: alternatives, each without what the others match; and whether alternatives have a value in common at all.
#include <algorithm>
#include <utility>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

using Type = Json::Type;
constexpr const char* kSeveral = "texts that match several alternatives are not excluded";
constexpr std::size_t kMaxPatterns = 3;
constexpr std::size_t kMaxLooks = 256;       // pairs of alternatives, looked at closely for two members of a list
constexpr std::size_t kMaxApart = 512;       // alternatives of a whole list
constexpr std::size_t kMaxFutile = 1 << 15;  // pairs of alternatives of one schema, combined or looked at in vain

}  // namespace

void SchemaCompiler::back_to(const Place& place) {
  resolving_.resize(place.resolving);
  futile_ += work_ - place.work;
  work_ = place.work;
  annotating_ = place.annotating;
}

// Whether two shapes plainly have no value in common.
bool SchemaCompiler::disjoint(const Shape& a, const Shape& b) {
  if ((a.types & b.types) == 0) return true;
  if (!a.values || !b.values) return false;
  const auto in_b = [&](const Json* x) {
    return std::any_of(b.values->begin(), b.values->end(), [&](const Json* y) { return *x == *y; });
  };
  return std::none_of(a.values->begin(), a.values->end(), in_b);
}

// The same, looking at strings, at bounds and into required properties too.
bool SchemaCompiler::apart(const Shape& a, const Shape& b) {
  if (disjoint(a, b)) return true;
  if (++futile_ > kMaxFutile) return false;
  const bool objects = !no_object(a, b);
  if (!objects && (a.types & b.types) == kObjectBit) return true;
  Shape both = a;
  meet(&both, b, objects);
  if (both.types == 0) return true;
  const Place place = here();
  const bool guessing = std::exchange(guessing_, true);
  bool nothing = false;
  try {
    nothing = vacant(both);
  } catch (const InvalidArgument&) {  // what is not supported, or not enforced, is not known to be apart
    back_to(place);
  } catch (const GrammarTooComplex&) {
    back_to(place);
  }
  guessing_ = guessing;
  futile_ += work_ - place.work;
  work_ = place.work;
  return nothing;
}

// Whether a shape has no value, as far as that is plain.  Alternatives of a property may ask this of its own, and so on
// without end: all of them together look into so many required properties.
bool SchemaCompiler::vacant(const Shape& s) {
  if (s.values) {
    return std::none_of(s.values->begin(), s.values->end(), [&](const Json* v) { return valid(*v, s); });
  }
  unsigned types = s.types;
  const auto rule_out = [&](unsigned bits) { types &= ~bits; };
  if (s.low && s.high) {
    const int c = compare(s.low->value, s.high->value);
    if (c > 0 || (c == 0 && (s.low->exclusive || s.high->exclusive))) rule_out(kIntegerBit | kFractionBit);
  }
  if ((types & ~static_cast<unsigned>(kStringBit | kArrayBit | kObjectBit)) != 0) return false;
  if (s.min_items > s.max_items) rule_out(kArrayBit);
  if ((types & kArrayBit) != 0) return false;
  if (s.patterns.size() > kMaxPatterns) return false;  // emptiness of many at once takes long to decide
  if ((types & kStringBit) && emit_string_content(s) == ExprPool::kEmpty) rule_out(kStringBit);
  if ((types & kStringBit) != 0) return false;
  if (types == 0 || s.min_properties > s.max_properties) return true;
  return std::any_of(s.required.begin(), s.required.end(), [&](const std::string& name) {
    const SchemaKey key = key_for(s, name);
    if (key.size() < 2 || looks_left_ == 0) return never(key);
    const Restored looks(&looks_left_);
    --looks_left_;
    const Shapes shapes = shapes_of(key);
    return std::all_of(shapes.begin(), shapes.end(), [&](const Shape& one) { return vacant(one); });
  });
}

// Whether a property that one of two shapes requires plainly has no value in both: what is listed for it, or its types,
// exclude each other.
bool SchemaCompiler::clashes(const Shape& a, const Shape& b) {
  const auto excludes = [&](const std::string& name) {
    unsigned types = kAllBits;
    std::optional<std::vector<const Json*>> values;
    std::vector<const Json*> excluded;
    const auto narrow = [&](const SchemaRef& ref) {
      const Json& node = *ref.node;
      if (trivial(node) || node.is(Type::kFalse)) return ref.negated == trivial(node);
      const Json *one = node.find("const"), *list = node.find("enum");
      std::vector<const Json*> listed;
      if (one != nullptr) listed.push_back(one);
      for (std::size_t i = 0; one == nullptr && list != nullptr && i < list->items.size(); ++i) {
        listed.push_back(&list->items[i]);
      }
      if (ref.negated) {
        if (node.keys.size() == 1) append(&excluded, listed);
        return false;
      }
      if (const Json* type = node.find("type")) types &= type_bits(*type, node);
      if (one == nullptr && list == nullptr) return types == 0;
      if (!values) values = listed;
      const auto is_listed = [&](const Json* v) {
        return std::any_of(listed.begin(), listed.end(), [&](const Json* x) { return *x == *v; });
      };
      values->erase(std::remove_if(values->begin(), values->end(), [&](const Json* v) { return !is_listed(v); }),
                    values->end());
      return types == 0;
    };
    const auto empties = [&](const ObjectPart& part) {
      bool known = !part.patterns.empty();
      for (const auto& [declared, key] : part.properties) {
        if (declared != name) continue;
        known = true;
        if (std::any_of(key.begin(), key.end(), narrow)) return true;
      }
      return !known && std::any_of(part.additional.begin(), part.additional.end(), narrow);
    };
    if (std::any_of(a.objects.begin(), a.objects.end(), empties)) return true;
    if (std::any_of(b.objects.begin(), b.objects.end(), empties)) return true;
    return values && std::all_of(values->begin(), values->end(), [&](const Json* v) {
             return std::any_of(excluded.begin(), excluded.end(), [&](const Json* x) { return *x == *v; });
           });
  };
  return std::any_of(a.required.begin(), a.required.end(), excludes) ||
         std::any_of(b.required.begin(), b.required.end(), excludes);
}

// Whether two shapes that both say something of objects plainly have none in common.
bool SchemaCompiler::no_object(const Shape& a, const Shape& b) {
  const auto speaks = [](const Shape& x) { return !x.objects.empty() || !x.required.empty(); };
  return (a.types & b.types & kObjectBit) && speaks(a) && speaks(b) && clashes(a, b);
}

// What does not match one of the alternatives; anything where this is not supported, which strict mode refuses.
Shapes SchemaCompiler::complement_of(const Json& list, std::size_t i) {
  const Place place = here();
  try {
    return negated(list.items[i]);
  } catch (const InvalidArgument& error) {
    back_to(place);
    note(list, "oneOf", gramcore::cat(kSeveral, ": ", error.what()));
    return Shapes(1);
  }
}

// One of the list and not another, within what the schema says beside it.
Shapes SchemaCompiler::exactly_one(const Json& list, const Shapes& within) {
  std::vector<Shapes> each;
  for (const Json& part : list.items) each.push_back(shapes(part));
  const Place place = here();
  try {
    Shapes out;
    for (std::size_t i = 0; i < each.size(); ++i) {
      GC_CHECK_AS(GrammarTooComplex, options_.strict || futile_ <= kMaxFutile,
                  "finding what alternatives share must take at most ", kMaxFutile, " combinations, got more");
      append(&out, without_others(list, each, i, product(within, each[i])));
      GC_CHECK_AS(GrammarTooComplex, out.size() <= std::max(kMaxApart, each.size()),
                  "alternatives must come to at most ", kMaxApart, " without what they share, got more");
    }
    return out;
  } catch (const GrammarTooComplex& error) {
    if (options_.strict) throw;
    back_to(place);
    note(list, "oneOf", gramcore::cat(kSeveral, ": ", error.what()));
  }
  Shapes any;
  for (const Shapes& one : each) append(&any, one);
  return narrowed(within, list, "oneOf", [&] { return any; });
}

// What is left of one alternative without what it shares with the others.
Shapes SchemaCompiler::without_others(const Json& list, const std::vector<Shapes>& each, std::size_t i, Shapes mine) {
  const auto meets = [&](const Shape& a, std::size_t j) {
    const bool closely = mine.size() * each[j].size() <= kMaxLooks;
    return std::any_of(each[j].begin(), each[j].end(),
                       [&](const Shape& b) { return closely ? !apart(a, b) : !disjoint(a, b); });
  };
  for (std::size_t j = 0; j < each.size(); ++j) {
    if (j == i) continue;
    Shapes kept, shared;
    for (const Shape& s : mine) (meets(s, j) ? shared : kept).push_back(s);
    if (!shared.empty()) append(&kept, product(std::move(shared), complement_of(list, j)));
    mine = std::move(kept);
  }
  return mine;
}

}  // namespace gramcore::grammar
