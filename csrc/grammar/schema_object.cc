// Objects: declared properties, in order or not, and open ones anywhere between them.
#include <algorithm>
#include <unordered_set>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

constexpr std::size_t kMaxChoices = 256, kMaxMemberRules = 50000;

}  // namespace

// What the value of a key must satisfy.
SchemaKey SchemaCompiler::key_for(const Shape& s, const std::string& name) {
  SchemaKey key;
  for (const ObjectPart& part : s.objects) {
    bool known = false;
    for (const auto& [declared, schema] : part.properties) {
      if (declared == name) {
        key = join(key, schema);
        known = true;
      }
    }
    for (const auto& [text, schema] : part.patterns) {
      const ExprId e = pattern(text, root_);
      if (e == ExprPool::kEmpty) {
        known = true;  // perhaps: not enforced
      } else if (matches(e, name)) {
        key = join(key, schema);
        known = true;
      }
    }
    if (!known) key = join(key, part.additional);
  }
  return key;
}

// Keys outside `declared`: (content, what their values must satisfy), one per set of patterns they match.
std::vector<std::pair<ExprId, SchemaKey>> SchemaCompiler::open_keys(const Shape& s,
                                                                    const std::vector<std::string>& declared) {
  ExprPool& pool = grammar_.pool;
  struct Pattern {
    std::size_t part;
    ExprId content;
    const SchemaKey* key;
  };
  std::vector<Pattern> patterns;
  std::vector<bool> unknown(s.objects.size(), false);  // parts with a pattern that is not enforced
  for (std::size_t p = 0; p < s.objects.size(); ++p) {
    for (const auto& [text, key] : s.objects[p].patterns) {
      const ExprId e = pattern(text, root_);
      if (e == ExprPool::kEmpty) unknown[p] = true;
      if (e != ExprPool::kEmpty) patterns.push_back({p, e, &key});
    }
  }
  struct Choice {
    std::vector<ExprId> in, out;  // contents of the patterns that a key matches, complements of the others
    SchemaKey key;
    std::vector<bool> covered;
  };
  std::vector<Choice> choices{{{}, {}, {}, std::vector<bool>(s.objects.size(), false)}};
  for (const Pattern& p : patterns) {
    std::vector<Choice> more;
    for (const Choice& c : choices) {
      more.push_back(c);
      more.back().out.push_back(pool.complement(p.content));
      std::vector<ExprId> in = c.in;
      in.push_back(p.content);
      if (pool.is_empty(pool.conj(in))) continue;
      SchemaKey key = join(c.key, *p.key);
      more.push_back({std::move(in), c.out, std::move(key), c.covered});
      more.back().covered[p.part] = true;
    }
    choices = std::move(more);
    GC_CHECK_AS(GrammarTooComplex, choices.size() <= kMaxChoices, "patternProperties must overlap in at most ",
                kMaxChoices, " ways, got more; simplify the patterns");
  }
  const ExprId any = pool.repeat(text_.character(), 0, options_.max_string);
  const ExprId spelled = pool.repeat(text_.spelled_letter(), 0, options_.max_string);
  std::vector<ExprId> base;
  if (!declared.empty()) {
    std::vector<std::string> names;
    for (const std::string& name : declared) names.push_back(spell(name));
    base.push_back(pool.complement(pool.choice({names.begin(), names.end()})));
  }
  if (!s.names.empty()) base.push_back(name_content(s.names));
  std::vector<std::pair<ExprId, SchemaKey>> out;
  for (Choice& c : choices) {
    for (std::size_t p = 0; p < s.objects.size(); ++p) {
      if (!c.covered[p] && !unknown[p]) c.key = join(c.key, s.objects[p].additional);
    }
    if (value(c.key) == ExprPool::kEmpty) continue;
    std::vector<ExprId> parts = base;
    append(&parts, c.in);
    append(&parts, c.out);
    ExprId content = any;
    if (!parts.empty()) {
      parts.push_back(spelled);
      content = pool.conj(std::move(parts));
    }
    if (!pool.is_empty(content)) out.push_back({content, c.key});
  }
  return out;
}

// The spelled names that a conjunction of schemas allows.
ExprId SchemaCompiler::name_content(const SchemaKey& names) {
  ExprPool& pool = grammar_.pool;
  std::vector<ExprId> kids;
  for (const Shape& name : shapes_of(names)) {
    if (!(name.types & kStringBit)) continue;
    if (name.values) {
      for (const Json* v : *name.values) {
        if (v->is(Json::Type::kString) && valid(*v, name)) kids.push_back(pool.literal(spell(v->text)));
      }
    } else {
      kids.push_back(emit_string_content(name));
    }
  }
  return pool.alt(std::move(kids));
}

ExprId SchemaCompiler::member(const Variant& v, ExprId then) {
  ExprPool& pool = grammar_.pool;
  if (v.quoted.empty()) return pool.cat(v.rest, then);
  const ExprId space = text_.space();
  return pool.cat({pool.literal(v.quoted), space, pool.byte(':'), space, v.rest, then});
}

// A rule for what many others put something behind: they need not spell it again.
ExprId SchemaCompiler::shared(ExprId e) {
  return grammar_.pool.call(grammar_.add_rule("member", e));
}

// A declared member: as it is, and as one that is some of the witnesses too.
std::vector<SchemaCompiler::Variant> SchemaCompiler::declared_variants(const Shape& s, const std::string& name,
                                                                       const SchemaKey& key) {
  if (!s.names.empty()) {
    Json text;
    text.type = Json::Type::kString;
    text.text = name;
    if (!valid(text, s.names)) return {};
  }
  std::vector<Variant> out;
  for (std::uint32_t marks = 0; marks < 1u << s.witnesses.size(); ++marks) {
    SchemaKey all = key;
    bool fits = true;
    for (std::size_t w = 0; w < s.witnesses.size() && fits; ++w) {
      if (!((marks >> w) & 1)) continue;
      fits = matches(s.witnesses[w].names, name);
      all = join(all, s.witnesses[w].key);
    }
    if (!fits) continue;
    const ExprId rest = value(all);
    if (rest != ExprPool::kEmpty) out.push_back({'"' + spell(name) + '"', rest, marks});
  }
  return out;
}

// The same for members that are not declared.
std::vector<SchemaCompiler::Variant> SchemaCompiler::open_variants(const Shape& s,
                                                                   const std::vector<std::string>& declared) {
  ExprPool& pool = grammar_.pool;
  const ExprId space = text_.space(), colon = pool.cat({space, pool.byte(':'), space});
  const auto keys = open_keys(s, declared);
  std::vector<Variant> out;
  for (std::uint32_t marks = 0; marks < 1u << s.witnesses.size(); ++marks) {
    std::vector<ExprId> members;
    for (const auto& [content, key] : keys) {
      std::vector<ExprId> names{content};
      SchemaKey all = key;
      for (std::size_t w = 0; w < s.witnesses.size(); ++w) {
        if (!((marks >> w) & 1)) continue;
        names.push_back(s.witnesses[w].names);
        all = join(all, s.witnesses[w].key);
      }
      if (marks != 0) names.push_back(text_.any_spelled());
      const ExprId name = pool.conj(std::move(names));
      if (!pool.is_empty(name)) members.push_back(pool.cat({text_.quoted(name), colon, value(all)}));
    }
    const ExprId any = pool.alt(std::move(members));
    if (any != ExprPool::kEmpty) out.push_back({"", any, marks});
  }
  return out;
}

ExprId SchemaCompiler::emit_object(const Shape& s) {
  ExprPool& pool = grammar_.pool;
  if (s.witnesses.size() > KeySet::kMaxMarks) {
    refuse(root_, "not", "more than five complements of properties would have to hold at once");
  }
  const ExprId space = text_.space(), close = pool.cat(space, pool.byte('}'));
  const ExprId comma = pool.cat({space, pool.byte(','), space});
  std::vector<std::string> names;
  std::unordered_set<std::string_view> seen;
  const std::unordered_set<std::string_view> required(s.required.begin(), s.required.end());
  for (const ObjectPart& part : s.objects) {
    for (const auto& [name, key] : part.properties) {
      if (seen.insert(name).second) names.push_back(name);
    }
  }
  // most schemas say once what a key holds, and the i-th name is the i-th of them
  const bool in_order =
      s.objects.size() == 1 && s.objects[0].patterns.empty() && names.size() == s.objects[0].properties.size();
  const std::size_t num_declared = names.size();
  for (const std::string& name : s.required) {
    if (seen.insert(name).second) names.push_back(name);
  }
  const std::size_t n = names.size();
  Members all{{},
              {},
              open_variants(s, names),
              s.min_properties,
              s.max_properties,
              static_cast<std::uint32_t>(s.witnesses.size())};
  all.declared.resize(n);
  for (std::size_t i = n; i-- > 0;) {
    all.declared[i] = declared_variants(
        s, names[i], in_order && i < num_declared ? s.objects[0].properties[i].second : key_for(s, names[i]));
  }
  for (const std::string& name : names) all.required.push_back(required.count(name) != 0);
  // bounds that do not matter
  if (all.least <= required.size()) all.least = 0;
  if (all.open.empty() && all.most >= n) all.most = kUnbounded;
  if (all.least > all.most || required.size() > all.most) return ExprPool::kEmpty;
  const std::uint32_t least = all.least, most = all.most;
  if (n == 0 && all.num_marks == 0) {  // a plain map
    if (most == 0) return pool.cat({pool.byte('{'), space, pool.byte('}')});
    const ExprId any = all.open.empty() ? ExprPool::kEmpty : all.open[0].rest;
    ExprId map =
        pool.cat(any, pool.repeat(pool.cat(comma, any), least ? least - 1 : 0, most == kUnbounded ? most : most - 1));
    if (least == 0) map = pool.optional(map);
    return pool.cat({pool.byte('{'), space, map, close});
  }
  if (!options_.any_order) return pool.cat({pool.byte('{'), space, emit_in_order(all), close});
  KeySet set;
  for (std::uint32_t i = 0; i < n; ++i) {
    for (const Variant& v : all.declared[i]) {
      set.members.push_back({shared(member(v, ExprPool::kEpsilon)), i, v.marks});
    }
  }
  for (const Variant& v : all.open) set.members.push_back({shared(v.rest), KeySet::kOpen, v.marks});
  set.required = all.required;
  set.num_marks = all.num_marks;
  set.comma = comma;
  set.close = close;
  set.least = least;
  set.most = most;
  return pool.cat({pool.byte('{'), space, add_key_set(&grammar_, std::move(set))});
}

// Declared members in their order, open ones anywhere.  Counts matter up to a cap; without bounds on the number of
// properties there is one row of rules.
ExprId SchemaCompiler::emit_in_order(const Members& all) {
  ExprPool& pool = grammar_.pool;
  const ExprId space = text_.space(), comma = pool.cat({space, pool.byte(','), space});
  const std::vector<bool>& required = all.required;
  const std::size_t n = all.declared.size();
  std::vector<Variant> open = all.open;
  for (Variant& v : open) v.rest = shared(v.rest);
  const std::uint32_t least = all.least, most = all.most;
  const std::uint32_t cap = std::max(least, most == kUnbounded ? 0 : most);
  const std::uint32_t all_marks = (1u << all.num_marks) - 1;
  std::vector<std::size_t> needed(n + 1, 0);  // required among names[i..]
  for (std::size_t i = n; i-- > 0;) needed[i] = needed[i + 1] + required[i];
  const std::size_t width = static_cast<std::size_t>(cap) + 1, depth = all_marks + 1u;
  GC_CHECK_AS(GrammarTooComplex, (n + 1) * width * depth < kMaxMemberRules, "schema must count at most ",
              kMaxMemberRules, " combinations of properties, got more; lower minProperties");
  // after: what may follow when names[..i) are decided, c were written and marks are set; next: a member must follow
  const auto at = [&](std::size_t i, std::size_t c, std::uint32_t marks) { return (i * width + c) * depth + marks; };
  std::vector<ExprId> after((n + 1) * width * depth), next((n + 1) * width * depth);
  for (std::size_t i = n + 1; i-- > 0;) {
    for (std::size_t c = width; c-- > 0;) {
      for (std::uint32_t marks = all_marks + 1; marks-- > 0;) {
        const bool may_end = needed[i] == 0 && c >= least && (most == kUnbounded || c <= most) && marks == all_marks;
        const bool full = most != kUnbounded && c >= most;
        const std::size_t c1 = cap == 0 ? 0 : std::min<std::size_t>(c + 1, cap);
        const std::uint32_t rule = grammar_.add_rule("members");
        const ExprId follow = pool.call(rule);  // after[here], once it is known that a member may follow
        std::vector<ExprId> choices;            // of the member that comes next; open ones may stand anywhere
        for (const Variant& v : open) {
          if (full || (v.marks & marks) != 0) continue;
          const bool same = c1 == c && v.marks == 0;
          choices.push_back(member(v, same ? follow : after[at(i, c1, marks | v.marks)]));
        }
        for (std::size_t k = 0; i < n && !full && k < all.declared[i].size(); ++k) {
          const Variant& v = all.declared[i][k];
          if ((v.marks & marks) == 0) choices.push_back(member(v, after[at(i + 1, c1, marks | v.marks)]));
        }
        if (i < n && !required[i]) choices.push_back(next[at(i + 1, c, marks)]);
        const ExprId here = pool.alt(std::move(choices));
        next[at(i, c, marks)] = here == ExprPool::kEmpty ? here : pool.call(grammar_.add_rule("member", here));
        std::vector<ExprId> kids;
        if (may_end) kids.push_back(ExprPool::kEpsilon);
        if (here != ExprPool::kEmpty) kids.push_back(pool.cat(comma, next[at(i, c, marks)]));
        grammar_.rules[rule].body = pool.alt(std::move(kids));
        after[at(i, c, marks)] = follow;
      }
    }
  }
  std::vector<ExprId> kids;
  if (needed[0] == 0 && least == 0 && all_marks == 0) kids.push_back(ExprPool::kEpsilon);
  kids.push_back(next[at(0, 0, 0)]);
  return pool.alt(std::move(kids));
}

}  // namespace gramcore::grammar
