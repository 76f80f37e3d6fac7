#include "grammar/tails.h"

#include <algorithm>

namespace gramcore::grammar {
namespace {

template <class F>
void each_child(const Trie& trie, std::uint32_t node, F f) {
  for (std::uint32_t c = node + 1; c < trie.nodes[node].end; c = trie.nodes[c].end) f(c);
}

class Merger {
 public:
  explicit Merger(const Trie& from) : from_(from) {}

  // Appends one node for sources_[begin, end), which share their string, and all below it.
  void add(std::size_t begin, std::size_t end, std::uint16_t depth, std::uint8_t byte) {
    if (end - begin == 1 && depth > 0) return copy(sources_[begin], depth);
    const auto at = out_.nodes.size();
    open(depth, byte);
    const std::size_t base = sources_.size();
    for (std::size_t i = begin; i < end; ++i) {
      const std::uint32_t source = sources_[i];
      take_tokens(source);
      each_child(from_, source, [&](std::uint32_t c) { sources_.push_back(c); });
    }
    std::sort(sources_.begin() + static_cast<std::ptrdiff_t>(base), sources_.end(),
              [&](std::uint32_t a, std::uint32_t b) {
                const std::uint8_t x = from_.nodes[a].byte, y = from_.nodes[b].byte;
                return x != y ? x < y : a < b;
              });
    const std::size_t stop = sources_.size();
    for (std::size_t i = base; i < stop;) {
      const std::uint8_t b = from_.nodes[sources_[i]].byte;
      std::size_t j = i + 1;
      while (j < stop && from_.nodes[sources_[j]].byte == b) ++j;
      add(i, j, static_cast<std::uint16_t>(depth + 1), b);
      i = j;
    }
    sources_.resize(base);
    out_.nodes[at].end = static_cast<std::uint32_t>(out_.nodes.size());
  }

  Trie run(const std::vector<std::uint32_t>& nodes) {
    sources_ = nodes;
    add(0, nodes.size(), 0, 0);
    open(0, 0);  // the sentinel
    return std::move(out_);
  }

 private:
  void open(std::uint16_t depth, std::uint8_t byte) {
    out_.nodes.push_back({0, static_cast<std::uint32_t>(out_.tokens.size()), depth, byte});
  }
  void take_tokens(std::uint32_t source) {
    out_.tokens.insert(out_.tokens.end(), from_.tokens.begin() + from_.nodes[source].first_token,
                       from_.tokens.begin() + from_.nodes[source + 1].first_token);
  }
  void copy(std::uint32_t source, std::uint16_t depth) {
    const Trie::Node& root = from_.nodes[source];
    const std::uint32_t shift = static_cast<std::uint32_t>(out_.nodes.size()) - source;  // modulo 2^32
    const std::uint32_t tokens = static_cast<std::uint32_t>(out_.tokens.size()) - root.first_token;
    for (std::uint32_t i = source; i < root.end; ++i) {
      const Trie::Node& n = from_.nodes[i];
      out_.nodes.push_back(
          {n.end + shift, n.first_token + tokens, static_cast<std::uint16_t>(n.depth - root.depth + depth), n.byte});
    }
    out_.tokens.insert(out_.tokens.end(), from_.tokens.begin() + root.first_token,
                       from_.tokens.begin() + from_.nodes[root.end].first_token);
  }

  const Trie& from_;
  Trie out_;
  std::vector<std::uint32_t> sources_;  // a stack of the nodes under way
};

}  // namespace

Trie merge_subtrees(const Trie& trie, const std::vector<std::uint32_t>& nodes) {
  return Merger(trie).run(nodes);
}

Tails::Tails(const Trie& trie, const std::vector<std::uint32_t>& places) : trie_(trie), bytes_(sizeof(Tails)) {
  for (const std::uint32_t place : places) {
    each_child(trie, place, [&](std::uint32_t c) { children_[trie.nodes[c].byte].push_back(c); });
  }
  for (unsigned b = 0; b < 256; ++b) {
    if (!children_[b].empty()) first_bytes_.push_back(static_cast<std::uint8_t>(b));
    bytes_ += children_[b].size() * sizeof(std::uint32_t);
  }
}

const Trie& Tails::behind(std::uint8_t byte, std::size_t* grown) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto& slot = behind_[byte];
  if (!slot) {
    slot = std::make_unique<const Trie>(merge_subtrees(trie_, children_[byte]));
    *grown += slot->bytes();
  }
  return *slot;
}

}  // namespace gramcore::grammar
