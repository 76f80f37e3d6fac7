#include "grammar/expr.h"

#include <algorithm>
#include <cstring>

#include "grammar/catalogue.h"

namespace gramcore::grammar {

ExprPool::ExprPool(Limits limits) : limits_(limits) {
  nodes_.push_back({Kind::kEmpty, false, false, false, 0, 0, 0, 0, kUnbounded});
  nodes_.push_back({Kind::kEpsilon, true, false, false, 0, 0, 0, 0});
  for (const Node& n : nodes_) hashes_.push_back(hash_of(n, {}));
}

void ExprPool::reserve(std::size_t more) {
  nodes_.reserve(nodes_.size() + more);
  hashes_.reserve(hashes_.size() + more);
  table_.reserve(nodes_.size() + more);
}

ExprPool::Hash ExprPool::hash_of(const Node& n, Span<const ExprId> kids) const {
  Hash out{};
  for (std::uint64_t i = 0; i < 2; ++i) {
    std::uint64_t h = mix(0x9E37 + 0x1234567ull * i, static_cast<std::uint64_t>(n.kind));
    const auto part = [&](std::uint64_t v) { h = mix(h, v + 0x5851F42D4C957F2Dull * i); };
    switch (n.kind) {
      case Kind::kClass:
        for (const auto w : sets_[n.a].words) part(w);
        break;
      case Kind::kCat: part(hashes_[n.a][i]), part(hashes_[n.b][i]); break;
      case Kind::kNot: part(hashes_[n.a][i]); break;
      case Kind::kRepeat: part(hashes_[n.a][i]), part(n.min), part(n.max); break;
      case Kind::kCall:
      case Kind::kToken: part(n.a); break;
      case Kind::kKeys:
      case Kind::kUnique: part(n.a), part(n.b); break;
      case Kind::kTrace: part(n.a), part(n.b), part(n.min), part(hashes_[n.max][i]); break;
      case Kind::kTrie: part(catalogues_[n.a]->hash()[i]), part(n.b); break;
      case Kind::kMultiple: part(n.a), part(n.b), part(n.min), part(n.max); break;
      case Kind::kText: part(hash_of({texts_.data() + n.a, n.b})); break;
      default: {  // kids are sorted by id, which differs between pools: combine without order
        std::uint64_t sum = 0;
        for (const ExprId k : kids) sum += mix(0x27D4EB2Full + i, hashes_[k][i]);
        part(sum), part(kids.size());
      }
    }
    out[i] = mix(h, h >> 32);
  }
  return out;
}

std::uint64_t ExprPool::hash_of(std::string_view text) {
  std::uint64_t h = text.size();
  for (; text.size() >= 8; text.remove_prefix(8)) {
    std::uint64_t block = 0;
    std::memcpy(&block, text.data(), 8);
    h = mix(h, block);
  }
  std::uint64_t rest = 0;
  if (!text.empty()) std::memcpy(&rest, text.data(), text.size());
  return mix(h, rest);
}

std::uint32_t ExprPool::least_bytes(const Node& n, Span<const ExprId> kids) const {
  const auto capped = [](std::uint64_t v) {
    return static_cast<std::uint32_t>(std::min<std::uint64_t>(v, kUnbounded));
  };
  switch (n.kind) {
    case Kind::kClass: return 1;
    case Kind::kText: return n.b;
    case Kind::kCat: return capped(std::uint64_t{nodes_[n.a].least} + nodes_[n.b].least);
    case Kind::kRepeat: return capped(std::uint64_t{nodes_[n.a].least} * n.min);
    case Kind::kAlt:
    case Kind::kAnd: {
      const bool any = n.kind == Kind::kAlt;
      std::uint32_t least = any ? kUnbounded : 0;
      for (const ExprId k : kids) least = any ? std::min(least, nodes_[k].least) : std::max(least, nodes_[k].least);
      return least;
    }
    default: return 0;
  }
}

std::size_t ExprPool::bytes() const {
  return nodes_.capacity() * (sizeof(Node) + sizeof(Hash)) + sets_.capacity() * sizeof(ByteSet) +
         kids_.capacity() * sizeof(ExprId) + texts_.capacity() + trails_.capacity() * sizeof(Trail) +
         trail_table_.bytes() + table_.bytes() + set_table_.bytes() + piece_at_.capacity() * 5 + piece_store_.bytes() +
         piece_lists_.capacity() * sizeof(piece_lists_[0]);
}

ExprId ExprPool::intern(Node node, Span<const ExprId> kids) {
  std::uint64_t h = mix(static_cast<std::uint64_t>(node.kind) + 1, node.min);
  h = mix(h, node.max);
  const bool listed = node.kind == Kind::kAlt || node.kind == Kind::kAnd;
  if (listed) {
    for (const ExprId k : kids) h = mix(h, k);
  } else if (node.kind == Kind::kText) {
    h = mix(h, hash_of({texts_.data() + node.a, node.b}));
  } else {
    h = mix(mix(h, node.a), node.b);
  }
  const auto same = [&](std::uint32_t id) {
    const Node& n = nodes_[id];
    if (n.kind != node.kind || n.min != node.min || n.max != node.max) return false;
    if (node.kind == Kind::kText) {
      return n.b == node.b && std::memcmp(texts_.data() + n.a, texts_.data() + node.a, n.b) == 0;
    }
    if (!listed) return n.a == node.a && n.b == node.b;
    return n.b == kids.size() && std::equal(kids.begin(), kids.end(), kids_.begin() + n.a);
  };
  return table_.find_or_add(h, same, [&] {
    GC_CHECK_AS(GrammarTooComplex, nodes_.size() < limits_.max_states,
                "grammar must need at most max_states expressions, got more than ", limits_.max_states,
                "; simplify it or raise the budget");
    if (listed) {
      node.a = static_cast<std::uint32_t>(kids_.size());
      node.b = static_cast<std::uint32_t>(kids.size());
      kids_.insert(kids_.end(), kids.begin(), kids.end());
    }
    node.least = least_bytes(node, kids);
    hashes_.push_back(hash_of(node, kids));
    nodes_.push_back(node);
    return static_cast<std::uint32_t>(nodes_.size() - 1);
  });
}

ExprId ExprPool::byte_class(const ByteSet& set) {
  if (set.empty()) return kEmpty;
  std::uint64_t h = 7;
  for (const auto w : set.words) h = mix(h, w);
  const std::uint32_t index = set_table_.find_or_add(
      h, [&](std::uint32_t i) { return sets_[i] == set; },
      [&] {
        sets_.push_back(set);
        return static_cast<std::uint32_t>(sets_.size() - 1);
      });
  return intern({Kind::kClass, false, false, false, index, 0, 0, 0}, {});
}

ExprId ExprPool::literal(std::string_view bytes) {
  if (bytes.empty()) return kEpsilon;
  if (bytes.size() == 1) return byte(static_cast<std::uint8_t>(bytes[0]));
  const std::size_t at = texts_.size();
  texts_.insert(texts_.end(), bytes.begin(), bytes.end());
  const ExprId e = text_at(at, bytes.size());
  if (nodes_[e].a != at) texts_.resize(at);  // it was there already
  return e;
}

ExprId ExprPool::text_at(std::size_t at, std::size_t size) {
  if (size == 1) return byte(static_cast<std::uint8_t>(texts_[at]));
  GC_CHECK_AS(GrammarTooComplex, at + size < kUnbounded, "grammar must have fewer than 2^32 bytes of texts, got more");
  return intern(
      {Kind::kText, false, false, false, static_cast<std::uint32_t>(at), static_cast<std::uint32_t>(size), 0, 0}, {});
}

ExprId ExprPool::behind_text(ExprId e, std::size_t bytes) {
  const Node n = nodes_[e];
  const Node head = n.kind == Kind::kCat ? nodes_[n.a] : n;
  const ExprId then = n.kind == Kind::kCat ? n.b : kEpsilon;
  if (bytes == head.b) return then;
  const ExprId rest = text_at(head.a + bytes, head.b - bytes);
  return then == kEpsilon ? rest : link(rest, then);
}

// The node of two parts that are neither empty nor epsilon, the first no concatenation.
ExprId ExprPool::link(ExprId a, ExprId b) {
  const Node &x = nodes_[a], &y = nodes_[b];
  return intern(
      {Kind::kCat, x.nullable && y.nullable, x.has_call || y.has_call, x.has_boolean || y.has_boolean, a, b, 0, 0}, {});
}

ExprId ExprPool::cat(ExprId a, ExprId b) {
  if (a == kEmpty || b == kEmpty) return kEmpty;
  if (a == kEpsilon) return b;
  if (b == kEpsilon) return a;
  std::array<ExprId, 64> heads;  // a is right-nested: peel it so that b goes to the end
  std::size_t n = 0;
  while (nodes_[a].kind == Kind::kCat && n < heads.size()) {
    heads[n++] = nodes_[a].a;
    a = nodes_[a].b;
  }
  b = nodes_[a].kind == Kind::kCat ? cat(a, b) : link(a, b);
  while (n > 0) b = link(heads[--n], b);
  return b;
}

ExprId ExprPool::cat(std::initializer_list<ExprId> parts) {
  ExprId e = kEpsilon;
  for (auto it = parts.end(); it != parts.begin();) e = cat(*--it, e);
  return e;
}

ExprId ExprPool::nary(Kind kind, std::vector<ExprId> kids) {
  Node node{kind, kind == Kind::kAnd, false, kind == Kind::kAnd, 0, 0, 0, 0};
  for (const ExprId k : kids) {
    const Node& n = nodes_[k];
    node.nullable = kind == Kind::kAnd ? node.nullable && n.nullable : node.nullable || n.nullable;
    node.has_call |= n.has_call;
    node.has_boolean |= n.has_boolean;
  }
  GC_CHECK(kind == Kind::kAlt || !node.has_call, "intersection must be of regular parts, got a recursive rule");
  return intern(node, kids);
}

// The kids with those of a kind replaced by theirs; kEmpty stands where one was.
std::vector<ExprId> ExprPool::flattened(Kind kind, std::vector<ExprId> kids) const {
  for (std::size_t i = 0, n = kids.size(); i < n; ++i) {
    const Node& node = nodes_[kids[i]];
    if (node.kind != kind) continue;
    kids.insert(kids.end(), kids_.begin() + node.a, kids_.begin() + node.a + node.b);
    kids[i] = kEmpty;
  }
  return kids;
}

ExprId ExprPool::alt(std::vector<ExprId> kids) {
  std::vector<ExprId> flat = flattened(Kind::kAlt, std::move(kids));
  ByteSet bytes;
  std::size_t out = 0;
  for (const ExprId k : flat) {
    const Node& n = nodes_[k];
    if (k == kEmpty) continue;
    if (n.kind == Kind::kNot && n.a == kEmpty) return k;  // everything
    if (n.kind == Kind::kClass) {
      bytes = bytes | sets_[n.a];
    } else {
      flat[out++] = k;
    }
  }
  flat.resize(out);
  if (!bytes.empty()) flat.push_back(byte_class(bytes));
  std::sort(flat.begin(), flat.end());
  flat.erase(std::unique(flat.begin(), flat.end()), flat.end());
  if (flat.size() > 1 && flat[0] == kEpsilon) {  // epsilon adds nothing to what is nullable already
    for (std::size_t i = 1; i < flat.size(); ++i) {
      if (!nodes_[flat[i]].has_call && nodes_[flat[i]].nullable) {
        flat.erase(flat.begin());
        break;
      }
    }
  }
  if (flat.empty()) return kEmpty;
  return flat.size() == 1 ? flat[0] : nary(Kind::kAlt, std::move(flat));
}

ExprId ExprPool::conj(std::vector<ExprId> kids) {
  if (std::find(kids.begin(), kids.end(), kEmpty) != kids.end()) return kEmpty;
  std::vector<ExprId> flat = flattened(Kind::kAnd, std::move(kids));
  const auto adds_nothing = [&](ExprId k) {
    return k == kEmpty || (nodes_[k].kind == Kind::kNot && nodes_[k].a == kEmpty);
  };
  flat.erase(std::remove_if(flat.begin(), flat.end(), adds_nothing), flat.end());
  std::sort(flat.begin(), flat.end());
  flat.erase(std::unique(flat.begin(), flat.end()), flat.end());
  if (flat.empty()) return anything();
  if (flat.size() == 1) return flat[0];
  if (flat[0] == kEpsilon) {
    for (const ExprId k : flat) {
      if (!nodes_[k].nullable) return kEmpty;
    }
    return kEpsilon;
  }
  if (const ExprId common = common_letter(flat); common != kEmpty) {
    for (ExprId& k : flat) {
      const Node n = nodes_[k];
      k = n.kind == Kind::kNot ? complement(nodes_[n.a].b) : n.b;
    }
    return cat(common, conj(std::move(flat)));
  }
  return nary(Kind::kAnd, std::move(flat));
}

// The class that all parts of an intersection begin with, some of them in a complement; kEmpty: there is none.
//   c a & c b & ~(c d) = c (a & b & ~d): of the bytes that go on in a letter, nothing is left but what follows it.
ExprId ExprPool::common_letter(const std::vector<ExprId>& kids) const {
  ExprId common = kEmpty;
  bool plain = false;  // a part that is no complement
  for (const ExprId k : kids) {
    const bool negated = nodes_[k].kind == Kind::kNot;
    const Node& n = nodes_[negated ? nodes_[k].a : k];
    if (n.kind != Kind::kCat || nodes_[n.a].kind != Kind::kClass || (common != kEmpty && n.a != common)) return kEmpty;
    common = n.a;
    plain |= !negated;
  }
  return plain ? common : kEmpty;
}

ExprId ExprPool::complement(ExprId a) {
  const Node n = nodes_[a];
  GC_CHECK(!n.has_call, "complement must be of a regular part, got a recursive rule");
  if (n.kind == Kind::kNot) return n.a;
  return intern({Kind::kNot, !n.nullable, false, a != kEmpty, a, 0, 0, 0}, {});
}

ExprId ExprPool::repeat(ExprId a, std::uint32_t min, std::uint32_t max) {
  if (max == 0) return kEpsilon;
  if (a == kEmpty) return min == 0 ? kEpsilon : kEmpty;
  const Node n = nodes_[a];
  if (a == kEpsilon || (min == 1 && max == 1)) return a;
  if (n.kind == Kind::kNot && n.a == kEmpty) return a;
  if (!n.has_call && n.nullable) min = 0;
  if (n.kind == Kind::kRepeat && n.min == 0 && n.max == kUnbounded) return a;
  if (min == 0 && max == 1) return alt({a, kEpsilon});
  return intern({Kind::kRepeat, min == 0, n.has_call, n.has_boolean, a, 0, min, max}, {});
}

ExprId ExprPool::call(std::uint32_t rule) {
  return intern({Kind::kCall, false, true, false, rule, 0, 0, 0}, {});
}

ExprId ExprPool::choice(std::vector<std::string_view> strings) {
  std::sort(strings.begin(), strings.end());
  strings.erase(std::unique(strings.begin(), strings.end()), strings.end());
  return strings.empty() ? kEmpty : choice_range(strings, 0, strings.size(), 0);
}

ExprId ExprPool::choice_range(const std::vector<std::string_view>& strings, std::size_t first, std::size_t last,
                              std::size_t depth) {
  if (last - first == 1) return literal(strings[first].substr(depth));
  std::size_t common = depth;  // of a sorted range, the first and last string share what all share
  const std::string_view a = strings[first], b = strings[last - 1];
  while (common < a.size() && common < b.size() && a[common] == b[common]) ++common;
  std::vector<ExprId> kids;
  std::size_t i = first;
  if (a.size() == common) {
    kids.push_back(kEpsilon);
    ++i;
  }
  while (i < last) {
    std::size_t j = i + 1;
    while (j < last && strings[j][common] == strings[i][common]) ++j;
    kids.push_back(choice_range(strings, i, j, common));
    i = j;
  }
  return cat(literal(a.substr(depth, common - depth)), alt(std::move(kids)));
}

ExprId ExprPool::token(std::uint32_t set) {
  return intern({Kind::kToken, false, true, false, set, 0, 0, 0}, {});
}

ExprId ExprPool::keys(std::uint32_t set, std::uint32_t state) {
  return intern({Kind::kKeys, false, true, false, set, state, 0, 0}, {});
}

ExprId ExprPool::unique(std::uint32_t set, std::uint32_t state) {
  return intern({Kind::kUnique, false, true, false, set, state, 0, 0}, {});
}

ExprId ExprPool::trace(std::uint32_t set, std::uint32_t state, std::uint32_t trail, ExprId rest) {
  return intern({Kind::kTrace, false, true, false, set, state, trail, rest}, {});
}

std::uint32_t ExprPool::longer_trail(std::uint32_t trail, std::uint8_t byte) {
  return 1 + trail_table_.find_or_add(
                 mix(trail, byte),
                 [&](std::uint32_t i) { return trails_[i].before == trail && trails_[i].byte == byte; },
                 [&] {
                   trails_.push_back({trail, byte});
                   return static_cast<std::uint32_t>(trails_.size() - 1);
                 });
}

std::string ExprPool::trail_text(std::uint32_t trail) const {
  std::string text;
  for (; trail != kNoTrail; trail = trails_[trail - 1].before) {
    text.push_back(static_cast<char>(trails_[trail - 1].byte));
  }
  return {text.rbegin(), text.rend()};
}

ExprId ExprPool::one_of(std::shared_ptr<const Catalogue> catalogue, std::uint32_t node) {
  const Trie& trie = catalogue->trie();
  const bool ends = catalogue->ends_at(node);
  if (trie.nodes[node].end == node + 1) return ends ? kEpsilon : kEmpty;
  std::uint32_t which = 0;
  while (which < catalogues_.size() && catalogues_[which] != catalogue) ++which;
  if (which == catalogues_.size()) catalogues_.push_back(std::move(catalogue));
  return intern({Kind::kTrie, ends, false, false, which, node, 0, 0}, {});
}

}  // namespace gramcore::grammar
