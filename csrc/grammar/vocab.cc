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
  lexemes_ = std::make_shared<LexemeCache>();
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
