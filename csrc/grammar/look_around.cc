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

AnchorForms::Forms AnchorForms::cat(const Forms& a, const Forms& b) const {
  std::array<std::vector<ExprId>, 4> out;
  for (unsigned i = 0; i < 4; ++i) {
    for (unsigned k = 0; k < 4; ++k) {
      if (a[i] == ExprPool::kEmpty || b[k] == ExprPool::kEmpty) continue;
      if (((k & kAtStart) && !nullable(a[i])) || ((i & kAtEnd) && !nullable(b[k]))) continue;
      const ExprId before = k & kAtStart ? ExprPool::kEpsilon : a[i], behind = i & kAtEnd ? ExprPool::kEpsilon : b[k];
      out[i | k].push_back(pool_.cat(before, behind));
    }
  }
  Forms forms;
  for (unsigned i = 0; i < 4; ++i) forms[i] = pool_.alt(std::move(out[i]));
  return forms;
}

// Of the copies of an expression the first ones may demand a start, the last ones an end; empty ones that do make up
// for any number of copies.
AnchorForms::Forms AnchorForms::repeat(const Forms& of, std::uint32_t min, std::uint32_t max) const {
  const ExprId plain = of[0], start = of[kAtStart], end = of[kAtEnd], both = of[kAtStart | kAtEnd];
  const auto others = [&](std::uint32_t so_many, bool any) {  // copies beside so many
    if (max < so_many) return ExprPool::kEmpty;
    return pool_.repeat(plain, any || min < so_many ? 0 : min - so_many, max == kUnbounded ? max : max - so_many);
  };
  const bool enough = min <= 1 || std::any_of(of.begin(), of.end(), [&](ExprId e) { return nullable(e); });
  Forms out{};
  out[0] = pool_.repeat(plain, min, max);
  out[kAtStart] = pool_.cat(start, others(1, nullable(start)));
  out[kAtEnd] = pool_.cat(others(1, nullable(end)), end);
  out[kAtStart | kAtEnd] = pool_.alt({enough && max > 0 ? both : ExprPool::kEmpty,
                                      pool_.cat({start, others(2, nullable(start) || nullable(end)), end})});
  return out;
}

AnchorForms::Forms AnchorForms::forms_of(ExprId e) const {
  const auto is_anchor = [&](ExprId part) {
    return pool_[part].kind == Kind::kClass && (pool_.set_of(part).has(kStartMark) || pool_.set_of(part).has(kEndMark));
  };
  if (!any_part(pool_, e, is_anchor)) return {e};
  const Node n = pool_[e];
  switch (n.kind) {
    case Kind::kClass: {  // of anchors and letters as alternatives
      ByteSet letters = pool_.set_of(e);
      const bool start = letters.has(kStartMark), end = letters.has(kEndMark);
      letters = letters & ~ByteSet::range(kEndMark, kEndMark) & ~ByteSet::range(kStartMark, kStartMark);
      return {pool_.byte_class(letters), start ? ExprPool::kEpsilon : ExprPool::kEmpty,
              end ? ExprPool::kEpsilon : ExprPool::kEmpty};
    }
    case Kind::kCat: return cat(forms_of(n.a), forms_of(n.b));
    case Kind::kRepeat: return repeat(forms_of(n.a), n.min, n.max);
    case Kind::kAlt: {
      const std::vector<ExprId> kids(pool_.kids(e).begin(), pool_.kids(e).end());
      Forms out{};
      for (const ExprId kid : kids) {
        const Forms more = forms_of(kid);
        for (unsigned i = 0; i < 4; ++i) out[i] = pool_.alt({out[i], more[i]});
      }
      return out;
    }
    default: throw InvalidArgument("anchors must not stand in an intersection or a complement; write it without");
  }
}

ExprId AnchorForms::padded(ExprId e, ExprId pad) const {
  const Forms forms = forms_of(e);
  std::vector<ExprId> kids;
  for (unsigned i = 0; i < 4; ++i) {
    const ExprId before = i & kAtStart ? ExprPool::kEpsilon : pad, behind = i & kAtEnd ? ExprPool::kEpsilon : pad;
    if (forms[i] != ExprPool::kEmpty) kids.push_back(pool_.cat({before, forms[i], behind}));
  }
  return pool_.alt(std::move(kids));
}

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
  if (!holds(e)) return anchors.resolved(e);
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
