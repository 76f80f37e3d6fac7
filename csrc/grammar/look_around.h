// What a regular expression says of places in the text: anchors, and look-around, by intersection and complement.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "grammar/expr.h"

namespace gramcore::grammar {

// Anchors are parsed as bytes that UTF-8 never holds, then resolved where they stand at an end of the expression.
constexpr std::uint8_t kStartMark = 0xFE, kEndMark = 0xFF;

// Whether `is` holds of some part of `e` that has no parts itself: a text, a class.
template <class F>
bool any_part(const ExprPool& pool, ExprId e, const F& is) {
  const Node n = pool[e];
  switch (n.kind) {
    case Kind::kCat: return any_part(pool, n.a, is) || any_part(pool, n.b, is);
    case Kind::kNot:
    case Kind::kRepeat: return any_part(pool, n.a, is);
    case Kind::kAlt:
    case Kind::kAnd: {
      const auto kids = pool.kids(e);
      return std::any_of(kids.begin(), kids.end(), [&](ExprId k) { return any_part(pool, k, is); });
    }
    default: return is(e);
  }
}

// The texts that an expression with anchors matches, by what they demand of what stands around them.  Anchors may stand
// anywhere: what has to stand before a start, or behind an end, can only be empty there.
class AnchorForms {
 public:
  explicit AnchorForms(ExprPool* pool) : pool_(*pool) {}
  // `e` in a text that is padded where no anchor forbids it.  InvalidArgument: an anchor in an intersection or
  // complement.
  ExprId padded(ExprId e, ExprId pad) const;

 private:
  static constexpr unsigned kAtStart = 1, kAtEnd = 2;
  using Forms = std::array<ExprId, 4>;  // by both of them
  Forms forms_of(ExprId e) const;
  Forms cat(const Forms& a, const Forms& b) const;
  Forms repeat(const Forms& of, std::uint32_t min, std::uint32_t max) const;
  bool nullable(ExprId e) const { return pool_[e].nullable; }
  ExprPool& pool_;
};

// Resolves anchors at one end; what has none there is padded with `pad`.
class Anchors {
 public:
  Anchors(ExprPool* pool, ExprId pad)
      : pool_(*pool), pad_(pad), start_(pool->byte(kStartMark)), end_(pool->byte(kEndMark)) {}

  ExprId at_start(ExprId e) const {
    const Node n = pool_[e];
    if (e == start_) return ExprPool::kEpsilon;
    if (n.kind == Kind::kAlt) return each(e, [&](ExprId k) { return at_start(k); });
    if (n.kind == Kind::kCat) {
      if (n.a == start_) return strip(n.b);
      if (pool_[n.a].kind == Kind::kAlt && holds(n.a)) {
        return each(n.a, [&](ExprId k) { return at_start(pool_.cat(k, n.b)); });
      }
    }
    if (n.kind == Kind::kCat) return pool_.cat({pad_, beside_pad(n.a), n.b});
    return pool_.cat(pad_, beside_pad(e));
  }
  ExprId at_end(ExprId e) const {
    const Node n = pool_[e];
    if (e == end_) return ExprPool::kEpsilon;
    if (n.kind == Kind::kAlt) return each(e, [&](ExprId k) { return at_end(k); });
    if (n.kind == Kind::kCat) {
      const ExprId rest = at_end(n.b);
      return pool_.cat(n.a, rest);
    }
    return pool_.cat(beside_pad(e), pad_);
  }
  // The whole expression, in which no look-around is.
  ExprId resolved(ExprId e) const {
    const ExprId ends = at_end(at_start(e));
    return holds(ends) ? AnchorForms(&pool_).padded(e, pad_) : ends;
  }
  // A start of the whole text that is resolved by at_start.
  ExprId start() const { return start_; }
  bool holds(ExprId e) const {
    return any_part(pool_, e, [&](ExprId part) {
      return pool_[part].kind == Kind::kClass &&
             (pool_.set_of(part).has(kStartMark) || pool_.set_of(part).has(kEndMark));
    });
  }

 private:
  template <class F>
  ExprId each(ExprId e, F f) const {
    std::vector<ExprId> kids(pool_.kids(e).begin(), pool_.kids(e).end());
    for (ExprId& k : kids) k = f(k);
    return pool_.alt(std::move(kids));
  }
  // All texts stand around it: copies beyond the fewest are among them.
  ExprId beside_pad(ExprId e) const {
    const Node n = pool_[e];
    return n.kind == Kind::kRepeat && pad_ != ExprPool::kEpsilon ? pool_.repeat(n.a, n.min, n.min) : e;
  }
  ExprId strip(ExprId e) const {  // further anchors at the same place say nothing new
    while (pool_[e].kind == Kind::kCat && pool_[e].a == start_) e = pool_[e].b;
    return e == start_ ? ExprPool::kEpsilon : e;
  }
  ExprPool& pool_;
  ExprId pad_, start_, end_;
};

// Look-around is parsed as a text that UTF-8 never holds.  With `rest` for all that follows a place and `before` for
// all that stands before it,
//   (?=x) rest = x any & rest     (?!x) rest = ~(x any) & rest     before (?<=x) = before & any x     and so on.
// Look-ahead may stand anywhere but in a repetition, look-behind behind parts that do not look ahead, outside groups.
class LookArounds {
 public:
  // any: all texts.
  LookArounds(ExprPool* pool, ExprId any) : pool_(*pool), any_(any), inside_(pool, any) {}

  ExprId add(ExprId inner, bool behind, bool negated);
  bool none() const { return looks_.empty(); }
  // An expression with its looks and anchors resolved; anchors: those of the whole.  InvalidArgument: a look where none
  // can be resolved.
  ExprId resolved(ExprId e, const Anchors& anchors);

 private:
  struct Look {
    ExprId inner;
    bool behind, negated;
  };
  const Look* look_of(ExprId e) const;
  bool holds(ExprId e) const;
  ExprId narrowed(ExprId e, const Look& look, ExprId by);
  ExprId behind_resolved(ExprId e, const Anchors& anchors);
  ExprId ahead(ExprId e, const ExprId* rest, const Anchors& anchors);

  ExprPool& pool_;
  ExprId any_;
  Anchors inside_;  // of what is looked for, around which anything may stand
  std::vector<Look> looks_;
};

}  // namespace gramcore::grammar
