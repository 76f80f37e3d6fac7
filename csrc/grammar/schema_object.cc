// Objects: declared properties in order, then open ones.
#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "grammar/schema.h"

namespace gramcore::grammar {
namespace {

constexpr std::size_t kMaxPatterns = 5;

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
      if (e != ExprPool::kEmpty && matches(e, name)) {
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
  for (std::size_t p = 0; p < s.objects.size(); ++p) {
    for (const auto& [text, key] : s.objects[p].patterns) {
      const ExprId e = pattern(text, root_);
      if (e == ExprPool::kEmpty) refuse(root_, "patternProperties", "this pattern is not supported");
      patterns.push_back({p, e, &key});
    }
  }
  if (patterns.size() > kMaxPatterns) refuse(root_, "patternProperties", "at most five patterns may hold at once");
  std::vector<ExprId> base;
  if (!declared.empty()) {
    std::vector<std::string> spelled;
    for (const std::string& name : declared) spelled.push_back(spell(name));
    base.push_back(pool.complement(pool.choice({spelled.begin(), spelled.end()})));
  }
  if (!s.names.empty()) {
    std::vector<ExprId> kids;
    for (const Shape& name : shapes_of(s.names)) {
      if (!(name.types & kStringBit)) continue;
      if (name.values) {
        for (const Json* v : *name.values) {
          if (valid(*v, name)) kids.push_back(pool.literal(spell(v->text)));
        }
      } else {
        kids.push_back(emit_string_content(name));
      }
    }
    base.push_back(pool.alt(std::move(kids)));
  }
  std::vector<std::pair<ExprId, SchemaKey>> out;
  for (std::size_t set = 0; set < (std::size_t{1} << patterns.size()); ++set) {
    std::vector<ExprId> parts = base;
    std::vector<bool> covered(s.objects.size(), false);
    SchemaKey key;
    for (std::size_t i = 0; i < patterns.size(); ++i) {
      const bool in = (set >> i) & 1;
      parts.push_back(in ? patterns[i].content : pool.complement(patterns[i].content));
      if (in) key = join(key, *patterns[i].key), covered[patterns[i].part] = true;
    }
    for (std::size_t p = 0; p < s.objects.size(); ++p) {
      if (!covered[p]) key = join(key, s.objects[p].additional);
    }
    if (value(key) == ExprPool::kEmpty) continue;
    ExprId content = pool.star(text_.character());
    if (!parts.empty()) {
      parts.push_back(text_.any_spelled());
      content = pool.conj(std::move(parts));
    }
    if (!pool.is_empty(content)) out.push_back({content, key});
  }
  return out;
}

ExprId SchemaCompiler::emit_object(const Shape& s) {
  ExprPool& pool = grammar_.pool;
  const ExprId space = text_.space(), close = pool.cat(space, pool.byte('}'));
  const ExprId comma = pool.cat({space, pool.byte(','), space}), colon = pool.cat({space, pool.byte(':'), space});
  std::vector<std::string> names;
  std::unordered_set<std::string_view> seen, required(s.required.begin(), s.required.end());
  for (const ObjectPart& part : s.objects) {
    for (const auto& [name, key] : part.properties) {
      if (seen.insert(name).second) names.push_back(name);
    }
  }
  // most schemas say once what a key holds, and the i-th name is the i-th of them
  const bool in_order =
      s.objects.size() == 1 && s.objects[0].patterns.empty() && names.size() == s.objects[0].properties.size();
  for (const std::string& name : s.required) {
    if (seen.insert(name).second) names.push_back(name);
  }
  const auto open = open_keys(s, names);
  std::vector<ExprId> open_members;
  for (const auto& [content, key] : open) {
    open_members.push_back(pool.cat({text_.quoted(content), colon, value(key)}));
  }
  const ExprId open_member = pool.alt(std::move(open_members));
  const std::size_t n = names.size();
  std::vector<std::string> quoted(n);
  std::vector<ExprId> values(n);              // kEmpty: no member of this name
  std::vector<std::size_t> needed(n + 1, 0);  // required among names[i..]
  for (std::size_t i = n; i-- > 0;) {
    const SchemaKey key =
        in_order && i < s.objects[0].properties.size() ? s.objects[0].properties[i].second : key_for(s, names[i]);
    Json name;
    name.type = Json::Type::kString;
    if (!s.names.empty()) name.text = names[i];
    values[i] = s.names.empty() || valid(name, s.names) ? value(key) : ExprPool::kEmpty;
    quoted[i] = gramcore::cat('"', spell(names[i]), '"');
    needed[i] = needed[i + 1] + required.count(names[i]);
  }
  const auto member = [&](std::size_t i, ExprId then) {
    return pool.text(quoted[i], pool.cat({colon, values[i], then}));
  };
  // counts matter up to `cap`; without bounds on the number of properties there is one row of rules
  std::uint32_t least = s.min_properties, most = s.max_properties;
  if (least <= needed[0]) least = 0;
  if (open_member == ExprPool::kEmpty && most >= n) most = kUnbounded;
  if (least > most || needed[0] > most) return ExprPool::kEmpty;
  if (n == 0) {  // a plain map
    if (most == 0) return pool.cat({pool.byte('{'), space, pool.byte('}')});
    ExprId all = pool.cat(open_member, pool.repeat(pool.cat(comma, open_member), least ? least - 1 : 0,
                                                   most == kUnbounded ? most : most - 1));
    if (least == 0) all = pool.optional(all);
    return pool.cat({pool.byte('{'), space, all, close});
  }
  if (options_.any_order) {
    KeySet set;
    for (std::size_t i = 0; i < n; ++i) {
      set.members.push_back(member(i, ExprPool::kEpsilon));
      set.required.push_back(required.count(names[i]) != 0);
    }
    set.open = open_member;
    set.comma = comma;
    set.close = close;
    set.least = least;
    set.most = most;
    return pool.cat({pool.byte('{'), space, add_key_set(&grammar_, std::move(set))});
  }
  const std::uint32_t cap = std::max(least, most == kUnbounded ? 0 : most);
  GC_CHECK_AS(GrammarTooComplex, (n + 1) * (static_cast<std::size_t>(cap) + 1) < 50000,
              "schema must count at most 50000 combinations of properties, got more; lower minProperties");
  // after[i][c]: what may follow when names[..i) are decided and c were written; next[i][c]: a member must follow
  const std::size_t width = static_cast<std::size_t>(cap) + 1;
  std::vector<ExprId> after((n + 1) * width), next((n + 1) * width);
  for (std::size_t i = n + 1; i-- > 0;) {
    for (std::size_t c = width; c-- > 0;) {
      const bool may_end = needed[i] == 0 && c >= least && (most == kUnbounded || c <= most);
      const bool full = most != kUnbounded && c >= most;
      const std::size_t c1 = cap == 0 ? 0 : std::min<std::size_t>(c + 1, cap);
      const std::uint32_t rule = grammar_.add_rule("members");
      const ExprId follow = pool.call(rule);  // after[i][c], once it is known that a member may follow
      std::vector<ExprId> choices;            // of the member that comes next; open ones may stand anywhere
      if (!full && open_member != ExprPool::kEmpty) {
        choices.push_back(pool.cat(open_member, c1 == c ? follow : after[i * width + c1]));
      }
      if (i < n) {
        if (!full) choices.push_back(member(i, after[(i + 1) * width + c1]));
        if (!required.count(names[i])) choices.push_back(next[(i + 1) * width + c]);
      }
      const ExprId here = pool.alt(std::move(choices));
      next[i * width + c] = here == ExprPool::kEmpty ? here : pool.call(grammar_.add_rule("member", here));
      std::vector<ExprId> kids;
      if (may_end) kids.push_back(ExprPool::kEpsilon);
      if (here != ExprPool::kEmpty) kids.push_back(pool.cat(comma, next[i * width + c]));
      grammar_.rules[rule].body = pool.alt(std::move(kids));
      after[i * width + c] = follow;
    }
  }
  std::vector<ExprId> kids;
  if (needed[0] == 0 && least == 0) kids.push_back(ExprPool::kEpsilon);
  kids.push_back(next[0]);
  return pool.cat({pool.byte('{'), space, pool.alt(std::move(kids)), close});
}

}  // namespace gramcore::grammar
