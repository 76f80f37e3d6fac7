// JSON Schema -> grammar.
//
// A schema (or a conjunction of schemas, some negated) is brought into a disjunction of shapes: flat conjunctions of
// constraints per JSON type.  Subschemas stay symbolic in a shape, as conjunctions of schema nodes, and become rules
// keyed by that conjunction; recursion through $ref, allOf and not therefore ends by itself.
#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "grammar/ir.h"
#include "grammar/json.h"
#include "grammar/json_text.h"

namespace gramcore::grammar {

struct SchemaOptions {
  bool strict = false;                    // refuse what cannot be enforced exactly
  bool any_order = false;                 // keys of objects in any order, instead of the schema's
  bool spaces = true;                     // at most one space, or a line break and indentation, between tokens
  std::uint32_t max_string = kUnbounded;  // characters of a string, unless its schema demands more
  std::uint32_t max_digits = kMaxDigits;  // of a number before the point, and behind it
};

struct ReportEntry {
  std::string pointer, keyword, status, detail;  // status: "exact", "approximated", "refused"
};

struct SchemaRef {
  const Json* node;
  bool negated;
  std::uint32_t scope = 0;  // what dynamic references in it mean, by number
  bool operator<(const SchemaRef& o) const {
    if (node == o.node) return negated != o.negated ? negated < o.negated : scope < o.scope;
    return node->number != o.node->number ? node->number < o.node->number : node < o.node;
  }
  bool operator==(const SchemaRef& o) const { return node == o.node && negated == o.negated && scope == o.scope; }
};
using SchemaKey = std::vector<SchemaRef>;  // a conjunction, sorted; empty: anything

enum TypeBit : unsigned {
  kNullBit = 1,
  kFalseBit = 2,
  kTrueBit = 4,
  kIntegerBit = 8,
  kFractionBit = 16,
  kStringBit = 32,
  kArrayBit = 64,
  kObjectBit = 128,
  kAllBits = 255
};

// The properties of one schema object; `additional` holds for the keys that the other two leave open.
struct ObjectPart {
  std::vector<std::pair<std::string, SchemaKey>> properties;
  std::vector<std::pair<std::string, SchemaKey>> patterns;
  SchemaKey additional;
};
struct ArrayPart {
  std::vector<SchemaKey> prefix;
  SchemaKey items;
};
struct Multiple {
  std::string of;
  bool negated;
};
// Items from index `from` on, of which so many match.
struct ContainsPart {
  SchemaKey key;
  std::uint32_t min, max;
  std::uint32_t from = 0;
};
// Some property has a name like this (spelled content) and a value that matches.
struct Witness {
  ExprId names;
  SchemaKey key;
};

// What the keywords of a schema and of the schemas applied in its place have looked at, for unevaluated*.
struct Evaluated {
  std::set<std::string> names, patterns;  // of properties
  bool all_names = false;
  std::size_t prefix = 0;  // of items
  bool all_items = false;
  std::vector<const Json*> contained;  // items that match one of these
};

struct Shape {
  unsigned types = kAllBits;
  std::optional<std::vector<const Json*>> values;  // enum, const
  std::vector<const Json*> excluded;
  std::optional<Bound> low, high;
  std::vector<Multiple> multiples;
  std::uint32_t min_length = 0, max_length = kUnbounded;
  std::vector<ExprId> patterns;  // of a string's content, in JSON spelling
  std::vector<ArrayPart> arrays;
  std::vector<ContainsPart> contains;
  std::uint32_t min_items = 0, max_items = kUnbounded;
  const Json* unique = nullptr;  // the schema that says uniqueItems
  std::vector<ObjectPart> objects;
  std::vector<Witness> witnesses;
  std::vector<std::string> required;
  SchemaKey names;
  std::uint32_t min_properties = 0, max_properties = kUnbounded;
  Evaluated evaluated;
};
using Shapes = std::vector<Shape>;

// What the dynamic anchors of the resources that were entered name: the outermost of each name; "#" is
// $recursiveAnchor.
using DynamicScope = std::map<std::string, const Json*>;

// Puts a value back at the end of a block.
class Restored {
 public:
  explicit Restored(std::uint32_t* value) : value_(value), before_(*value) {}
  ~Restored() { *value_ = before_; }
  Restored(const Restored&) = delete;
  Restored& operator=(const Restored&) = delete;

 private:
  std::uint32_t* value_;
  std::uint32_t before_;
};

class SchemaCompiler {
 public:
  // resources: an object of schemas by URI that references may name, or null; both are used until run() ends.
  SchemaCompiler(const Json& root, const SchemaOptions& options, const Json* resources = nullptr);
  // Throws InvalidArgument: not a schema, or refused keywords; GrammarTooComplex: a budget.
  Grammar run();
  const std::vector<ReportEntry>& report() const { return report_; }

 private:
  // schema_shape.cc: schemas to shapes
  Shapes shapes_of(const SchemaKey& key);
  Shapes shapes(const Json& node, Shapes* within = nullptr);
  Shapes constrained(const Json& node, Shapes* within);
  Shapes followed(const Json& node, Shapes result);
  Shapes product(Shapes a, const Shapes& b);
  Shapes narrowed(Shapes a, const Json& node, const char* keyword, const std::function<Shapes()>& other);
  void meet(Shape* a, const Shape& b, bool objects);
  void base(const Json& node, Shape* shape);
  void base_object(const Json& node, Shape* shape);
  void base_array(const Json& node, Shape* shape);
  Shapes applicators(const Json& node, Shapes result);
  Shapes any_of(const Json& list);
  Shapes conditional(const Json& node, const Json& condition);
  Shapes dependency(const std::string& name, const Json& needs);
  // schema_one_of.cc
  struct Place {  // what a try that fails has to put back
    std::size_t resolving, work;
    int annotating;
  };
  Place here() const { return {resolving_.size(), work_, annotating_}; }
  void back_to(const Place& place);
  static bool disjoint(const Shape& a, const Shape& b);
  bool apart(const Shape& a, const Shape& b);
  bool vacant(const Shape& shape);
  bool clashes(const Shape& a, const Shape& b);
  bool no_object(const Shape& a, const Shape& b);
  Shapes exactly_one(const Json& list, const Shapes& within);
  Shapes without_others(const Json& list, const std::vector<Shapes>& each, std::size_t i, Shapes mine);
  Shapes complement_of(const Json& list, std::size_t i);
  // schema_negate.cc
  Shapes negated(const Json& node);
  void negate_references(const Json& node, Shapes* out);
  Shapes differing(const std::vector<const Json*>& values);
  void negate_scalars(const Json& node, Shapes* out);
  void negate_arrays(const Json& node, Shapes* out);
  void negate_objects(const Json& node, Shapes* out);
  void negate_members(const Json& node, const ObjectPart& part, Shapes* out);
  void negate_one_of(const Json& list, Shapes* out);
  void negate_dependencies(const Json& node, Shapes* out);
  // schema_reference.cc
  void index_references(const Json& node, std::string base, bool lone);
  SchemaKey key_of(const Json& node, bool negated = false) const;
  void enter(const Json& node);
  void hide_beside_reference(const Json& node);
  const Json& resolve(const Json& node, const std::string& ref);
  bool is_lone(const Json& node) const { return lone_references_.count(&node) != 0; }
  std::vector<const Json*> referenced(const Json& node);
  std::vector<const Json*> inner(const Json& node, bool parts);
  void refuse_circles();
  // schema_unevaluated.cc
  bool annotates(const Json& node) const;
  void close_unevaluated(const Json& node, Shapes* shapes);
  void negate_unevaluated(const Json& node, Shapes* out);
  // schema_keyword.cc
  unsigned type_bits(const Json& type, const Json& node);
  Bound bound(const Json& value, const Json& node, const char* keyword, bool exclusive);
  std::uint32_t count(const Json& value, const Json& node, const char* keyword);
  ExprId pattern(const std::string& text, const Json& node, const char* keyword = "pattern");
  ExprId format(const std::string& name);
  bool of_draft(std::initializer_list<const char*> numbers) const;
  bool standard_format(const std::string& name) const;
  const Json& synthetic(std::string_view text);
  const Json& adopt(Json made);
  // What is not exact: refused in strict mode, else reported.
  void note(const Json& node, const std::string& keyword, const std::string& detail);
  // What says nothing about validity.
  void annotate(const Json& node, const std::string& keyword, const std::string& detail);
  void record(const Json& node, const std::string& keyword, const char* status, const std::string& detail);
  [[noreturn]] void refuse(const Json& node, const std::string& keyword, const std::string& why);
  std::string pointer_of(const Json& node);
  void scan(const Json& node);
  // schema_valid.cc
  bool valid(const Json& value, const SchemaKey& key);
  bool valid(const Json& value, const Shape& shape);
  bool valid_object(const Json& value, const Shape& shape);
  bool valid_array(const Json& value, const Shape& shape);
  bool matches(ExprId content, const std::string& text);
  // schema_emit.cc: shapes to expressions
  ExprId value(const SchemaKey& key);
  ExprId emit(const Shape& shape);
  ExprId emit_number(const Shape& shape);
  ExprId multiple_of(const std::string& divisor, bool point);
  ExprId emit_string_content(const Shape& shape);
  ExprId constant(const Json& v);
  bool bound_length(const Shape& s, ExprId letter, std::vector<ExprId>* parts);
  // schema_array.cc
  ExprId emit_array(const Shape& shape);
  ExprId emit_contains(const Shape& shape, std::size_t prefix);
  std::optional<ExprId> emit_unique(const Shape& shape);
  std::optional<ExprId> scalar_items(const SchemaKey& key);
  std::optional<std::vector<const Json*>> finite_values(const SchemaKey& key);
  SchemaKey item_key(const Shape& shape, std::size_t index);
  // schema_object.cc
  struct Variant {        // of one member
    std::string quoted;   // its name, or empty
    ExprId rest;          // its value, or the whole member
    std::uint32_t marks;  // witnesses that its value is
  };
  struct Members {
    std::vector<std::vector<Variant>> declared;  // in order
    std::vector<bool> required;
    std::vector<Variant> open;
    std::uint32_t least, most, num_marks;
  };
  ExprId emit_object(const Shape& shape);
  ExprId emit_in_order(const Members& members);
  ExprId member(const Variant& variant, ExprId then);
  ExprId shared(ExprId e);
  std::vector<Variant> declared_variants(const Shape& shape, const std::string& name, const SchemaKey& key);
  std::vector<Variant> open_variants(const Shape& shape, const std::vector<std::string>& declared);
  ExprId name_content(const SchemaKey& names);
  SchemaKey key_for(const Shape& shape, const std::string& name);
  std::vector<std::pair<ExprId, SchemaKey>> open_keys(const Shape& shape, const std::vector<std::string>& declared);

  const Json& root_;
  SchemaOptions options_;
  Grammar grammar_;
  JsonText text_;
  std::map<SchemaKey, std::uint32_t> rules_;
  std::vector<std::pair<SchemaKey, std::uint32_t>> pending_;
  std::vector<ReportEntry> report_;
  std::unordered_map<const Json*, std::pair<const Json*, std::size_t>> parents_;  // of nodes of the schema, and where
  std::set<std::string> noted_;
  std::vector<std::unique_ptr<Json>> synthetic_;
  std::uint32_t next_number_ = 1u << 31;          // of synthetic_
  std::map<std::string, const Json*> constants_;  // of synthetic_, by text
  std::vector<const Json*> resolving_;
  std::vector<const Json*> referring_;                      // nodes with $ref
  std::map<std::string, const Json*> resources_, anchors_;  // by URI; by URI and fragment
  std::map<const Json*, std::string> bases_;                // URIs that references of a schema are relative to
  std::map<std::string, DynamicScope> dynamic_anchors_;     // of resources, by URI
  std::vector<DynamicScope> scopes_{{}};
  std::uint32_t scope_ = 0;                          // of the schema that is looked at
  std::unordered_set<const Json*> lone_references_;  // $ref hides what stands beside it, in drafts before 2019-09
  std::map<std::string, ExprId> plain_patterns_, formats_;
  std::size_t work_ = 0, futile_ = 0;  // pairs of alternatives combined; those that came to nothing
  std::size_t key_bytes_ = 0;          // of all objects
  bool guessing_ = false;              // what is looked at may not come to be part of the grammar: nothing is noted
  std::uint32_t looks_left_ = 2;       // required properties, one in the other, that vacant() may still look into
  int annotating_ = 0;                 // schemas with unevaluated* whose parts are being combined
};

// Whether a schema allows anything; whether a conjunction of schemas plainly allows nothing.
bool trivial(const Json& node);
bool never(const SchemaKey& key);
inline Shape only(unsigned types) {
  Shape s;
  s.types = types;
  return s;
}
template <class T>
void append(std::vector<T>* to, const std::vector<T>& from) {
  to->insert(to->end(), from.begin(), from.end());
}
SchemaKey join(SchemaKey a, const SchemaKey& b);

}  // namespace gramcore::grammar
