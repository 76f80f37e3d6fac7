#include "grammar/vocab.h"

#include <algorithm>

#include "core/check.h"
#include "grammar/intern.h"
#include "grammar/lexeme.h"

namespace gramcore::grammar {

Trie build_trie(std::vector<std::pair<std::string_view, std::uint32_t>>* strings) {
  std::sort(strings->begin(), strings->end());
  Trie trie;
  std::vector<std::uint32_t> path{0};  // open nodes, root first
  trie.nodes.push_back({0, 0, 0, 0});
  std::string_view last;
  const auto close_to = [&](std::size_t depth) {
    while (path.size() > depth + 1) {
      trie.nodes[path.back()].end = static_cast<std::uint32_t>(trie.nodes.size());
      path.pop_back();
    }
  };
  for (const auto& [text, id] : *strings) {
    std::size_t common = 0;
    while (common < last.size() && common < text.size() && last[common] == text[common]) ++common;
    close_to(common);
    for (std::size_t d = common; d < text.size(); ++d) {
      path.push_back(static_cast<std::uint32_t>(trie.nodes.size()));
      trie.nodes.push_back({0, static_cast<std::uint32_t>(trie.tokens.size()), static_cast<std::uint16_t>(d + 1),
                            static_cast<std::uint8_t>(text[d])});
    }
    trie.tokens.push_back(id);
    last = text;
  }
  close_to(0);
  trie.nodes[0].end = static_cast<std::uint32_t>(trie.nodes.size());
  trie.nodes.push_back({0, static_cast<std::uint32_t>(trie.tokens.size()), 0, 0});
  return trie;
}

Children::Children(const Trie& trie) {
  const std::uint32_t n = static_cast<std::uint32_t>(trie.size());
  first_.reserve(n + 1);
  nodes_.reserve(n);
  bytes_.reserve(n);
  for (std::uint32_t node = 0; node < n; ++node) {
    first_.push_back(static_cast<std::uint32_t>(nodes_.size()));
    for (std::uint32_t c = node + 1; c < trie.nodes[node].end; c = trie.nodes[c].end) {
      nodes_.push_back(c);
      bytes_.push_back(trie.nodes[c].byte);
    }
  }
  first_.push_back(static_cast<std::uint32_t>(nodes_.size()));
}

std::uint64_t byte_kind(std::uint8_t b) {
  const auto in = [&](unsigned lo, unsigned hi) { return b >= lo && b <= hi; };
  unsigned kind = 0;
  if (in('a', 'z')) {
    kind = b <= 'f' ? 0 : 1;
  } else if (in('A', 'Z')) {
    kind = b <= 'F' ? 2 : 3;
  } else if (in('0', '9')) {
    kind = 4;
  } else if (in(0x20, 0x2F)) {  // signs, each by itself
    kind = 5 + b - 0x20u;
  } else if (in(0x3A, 0x40)) {
    kind = 21 + b - 0x3Au;
  } else if (in(0x5B, 0x60)) {
    kind = 28 + b - 0x5Bu;
  } else if (in(0x7B, 0x7E)) {
    kind = 34 + b - 0x7Bu;
  } else if (b < 0x80) {
    kind = b == '\t' ? 38 : b == '\n' ? 39 : b == '\r' ? 40 : 41;
  } else {
    kind = 42 + (b - 0x80u) / 8;
  }
  return std::uint64_t{1} << kind;
}

// Finds kinds_below_ and heights_.
void Vocab::look_below() {
  kinds_below_.assign(trie_.nodes.size(), 0);
  heights_.assign(trie_.nodes.size(), 0);
  std::vector<std::uint32_t> open;  // by depth, of the node under way
  std::vector<std::uint32_t> parent(trie_.size(), 0);
  for (std::uint32_t i = 0; i < trie_.size(); ++i) {
    open.resize(trie_.nodes[i].depth);
    if (i > 0) parent[i] = open.back();
    open.push_back(i);
  }
  for (std::size_t i = trie_.size(); i-- > 1;) {
    kinds_below_[parent[i]] |= kinds_below_[i] | byte_kind(trie_.nodes[i].byte);
    heights_[parent[i]] = std::max(heights_[parent[i]], static_cast<std::uint8_t>(std::min(heights_[i] + 1, 255)));
  }
}

Vocab::Vocab(std::vector<std::uint8_t> bytes, std::vector<std::uint64_t> offsets, std::vector<std::uint32_t> special,
             std::vector<std::uint32_t> stop)
    : bytes_(std::move(bytes)), offsets_(std::move(offsets)), stop_(std::move(stop)) {
  GC_CHECK(offsets_.size() >= 2 && offsets_.front() == 0 && offsets_.back() == bytes_.size(),
           "offsets must run from 0 to the number of bytes (", bytes_.size(), ") with at least one token, got ",
           offsets_.size(), " offsets");
  special_ = Bitset(size());
  stop_bits_ = Bitset(size());
  for (const auto id : special) {
    GC_CHECK_AS(OutOfRange, id < size(), "special token must be < ", size(), ", got ", id);
    special_.set(id);
  }
  for (const auto id : stop_) {
    GC_CHECK_AS(OutOfRange, id < size(), "stop token must be < ", size(), ", got ", id);
    special_.set(id);
    stop_bits_.set(id);
  }
  std::vector<std::pair<std::string_view, std::uint32_t>> strings;
  for (std::size_t i = 0; i < size(); ++i) {
    GC_CHECK(offsets_[i] <= offsets_[i + 1], "offsets must ascend, got ", offsets_[i + 1], " after ", offsets_[i],
             " (token ", i, ")");
    const auto t = token(i);
    GC_CHECK(t.size() < 65535, "token must have fewer than 65535 bytes, got ", t.size(), " (token ", i, ")");
    if (t.empty() || special_.test(i)) continue;
    max_token_bytes_ = std::max(max_token_bytes_, t.size());
    strings.push_back({{reinterpret_cast<const char*>(t.data()), t.size()}, static_cast<std::uint32_t>(i)});
  }
  trie_ = build_trie(&strings);
  children_ = Children(trie_);
  look_below();
  lexemes_ = std::make_shared<LexemeCache>();
  cut_json_letters(*this);
}

bool Vocab::extends(Span<const std::uint8_t> prefix) const {
  std::uint32_t node = 0;
  for (const std::uint8_t b : prefix) {
    node = children_.find(node, b);
    if (node == 0) return false;
  }
  return trie_.nodes[node].end > node + 1;
}

std::uint64_t Vocab::fingerprint() const {
  std::uint64_t h = size();
  for (std::size_t i = 0; i < size(); ++i) h = mix(h, offsets_[i + 1] * 4 + 2 * is_special(i) + is_stop(i));
  for (const std::uint8_t b : bytes_) h = mix(h, b + 1);
  return h;
}

}  // namespace gramcore::grammar
