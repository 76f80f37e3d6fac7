#include "grammar/look_around.h"

#include <string>

#include "grammar/limits.h"

namespace gramcore::grammar {
namespace {

constexpr char kLookMark = '\xFD';
constexpr std::size_t kMaxLooks = 100;

[[noreturn]] void refuse(const char* where) {
  throw InvalidArgument(cat("look-around must stand where what is around it is known, got one ", where,
                            "; write the expression without it"));
}

}  // namespace

ExprId LookArounds::add(ExprId inner, bool behind, bool negated) {
  GC_CHECK_AS(GrammarTooComplex, looks_.size() < kMaxLooks, "regular expression must look around at most ", kMaxLooks,
              " times, got more");
  looks_.push_back({inner, behind, negated});
  return pool_.literal(std::string{kLookMark, static_cast<char>(looks_.size() - 1)});
}

const LookArounds::Look* LookArounds::look_of(ExprId e) const {
  if (pool_[e].kind != Kind::kText || pool_.text_of(e)[0] != kLookMark) return nullptr;
  return &looks_[static_cast<unsigned char>(pool_.text_of(e)[1])];
}

bool LookArounds::holds(ExprId e) const {
  return !looks_.empty() && any_part(pool_, e, [&](ExprId part) { return look_of(part) != nullptr; });
}

ExprId LookArounds::resolved(ExprId e, const Anchors& anchors) {
  if (!holds(e)) return anchors.at_end(anchors.at_start(e));
  return anchors.at_start(ahead(behind_resolved(e, anchors), nullptr, anchors));
}

// What `e` and a look allow; by: the texts in which it finds something.
ExprId LookArounds::narrowed(ExprId e, const Look& look, ExprId by) {
  if (inside_.holds(by)) refuse("with an anchor inside");
  return pool_.conj({e, look.negated ? pool_.complement(by) : by});
}

// `e` with each look-behind taken into what stands before it, from the start of the text on.
ExprId LookArounds::behind_resolved(ExprId e, const Anchors& anchors) {
  if (pool_[e].kind == Kind::kAlt) {
    std::vector<ExprId> kids(pool_.kids(e).begin(), pool_.kids(e).end());
    for (ExprId& k : kids) k = behind_resolved(k, anchors);
    return pool_.alt(std::move(kids));
  }
  ExprId before = ExprPool::kEpsilon, rest = e;
  while (rest != ExprPool::kEpsilon) {
    const Node n = pool_[rest];
    const ExprId head = n.kind == Kind::kCat ? n.a : rest;
    rest = n.kind == Kind::kCat ? n.b : ExprPool::kEpsilon;
    const Look* look = look_of(head);
    if (look == nullptr || !look->behind) {
      before = pool_.cat(before, head);
      continue;
    }
    if (holds(before)) refuse("behind another one");
    if (holds(look->inner)) refuse("inside a look-behind");
    const ExprId found = inside_.at_start(look->inner);
    before = pool_.cat(anchors.start(), narrowed(anchors.at_start(before), *look, found));
  }
  return before;
}

// `e` and all that follows it, with each look-ahead taken into what follows; rest: that, null at the end of the text.
ExprId LookArounds::ahead(ExprId e, const ExprId* rest, const Anchors& anchors) {
  if (!holds(e)) return rest == nullptr ? anchors.at_end(e) : pool_.cat(e, *rest);
  const Node n = pool_[e];
  if (n.kind == Kind::kAlt) {
    std::vector<ExprId> kids(pool_.kids(e).begin(), pool_.kids(e).end());
    for (ExprId& k : kids) k = ahead(k, rest, anchors);
    return pool_.alt(std::move(kids));
  }
  if (n.kind == Kind::kCat) {
    const ExprId behind = ahead(n.b, rest, anchors);
    return ahead(n.a, &behind, anchors);
  }
  const Look* look = look_of(e);
  if (look == nullptr) refuse("in a repetition, an intersection or a complement");
  if (look->behind) refuse("that looks behind inside a group");
  const Look here = *look;
  const ExprId found = ahead(here.inner, nullptr, inside_);
  return narrowed(rest == nullptr ? anchors.at_end(ExprPool::kEpsilon) : *rest, here, found);
}

}  // namespace gramcore::grammar
