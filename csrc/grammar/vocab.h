// The tokens of a vocabulary as byte strings, and their trie in depth-first order.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "core/bitset.h"
#include "core/span.h"

namespace gramcore::grammar {

// A byte trie in preorder.  Node 0 is the root; `end` is one past the last node of the subtree, so a walk skips a
// subtree by jumping to it.
struct Trie {
  struct Node {
    std::uint32_t end;
    std::uint32_t first_token;  // tokens[first_token .. next node's first_token) end here
    std::uint16_t depth;        // length of the string; the root has 0
    std::uint8_t byte;
  };
  std::vector<Node> nodes;            // and one sentinel behind the last
  std::vector<std::uint32_t> tokens;  // ids in the order of their strings

  std::size_t size() const { return nodes.size() - 1; }
  std::size_t bytes() const { return sizeof(Node) * nodes.size() + sizeof(std::uint32_t) * tokens.size(); }
};

// Builds the trie of strings (string, id); sorts its argument.
Trie build_trie(std::vector<std::pair<std::string_view, std::uint32_t>>* strings);

// The children of the nodes of a trie by their byte.
class Children {
 public:
  Children() = default;
  explicit Children(const Trie& trie);
  // The child of a node by a byte, 0 if there is none.
  std::uint32_t find(std::uint32_t node, std::uint8_t byte) const {
    const std::uint32_t from = first_[node], count = first_[node + 1] - from;
    const void* at = count == 0 ? nullptr : std::memchr(bytes_.data() + from, byte, count);
    return at == nullptr ? 0 : nodes_[static_cast<std::size_t>(static_cast<const std::uint8_t*>(at) - bytes_.data())];
  }

 private:
  std::vector<std::uint32_t> first_, nodes_;  // nodes_[first_[n] .. first_[n + 1]) are the children of n
  std::vector<std::uint8_t> bytes_;
};

// The kind of a byte as one of 64 bits: expressions tell bytes of one kind apart rarely.
std::uint64_t byte_kind(std::uint8_t byte);

class LexemeCache;

class Vocab {
 public:
  // bytes: all tokens one after the other, offsets: (V + 1) ascending.  special: tokens without text (control, padding,
  // stop); they and empty tokens are never allowed inside a text.  stop: tokens that end a text.
  Vocab(std::vector<std::uint8_t> bytes, std::vector<std::uint64_t> offsets, std::vector<std::uint32_t> special,
        std::vector<std::uint32_t> stop);

  std::size_t size() const { return offsets_.size() - 1; }
  std::size_t words() const { return bitmask_words(size()); }
  Span<const std::uint8_t> token(std::size_t id) const {
    return {bytes_.data() + offsets_[id], static_cast<std::size_t>(offsets_[id + 1] - offsets_[id])};
  }
  bool is_special(std::size_t id) const { return special_.test(id); }
  bool is_stop(std::size_t id) const { return stop_bits_.test(id); }
  const std::vector<std::uint32_t>& stop() const { return stop_; }
  const Trie& trie() const { return trie_; }
  const Children& children() const { return children_; }
  // The kinds of all bytes below a node of the trie.
  std::uint64_t kinds_below(std::uint32_t node) const { return kinds_below_[node]; }
  // How many bytes the longest string below a node goes on for, 255 for more.
  unsigned height(std::uint32_t node) const { return heights_[node]; }
  std::size_t max_token_bytes() const { return max_token_bytes_; }
  // Whether some token begins with these bytes and goes on.
  bool extends(Span<const std::uint8_t> prefix) const;
  // A hash of all tokens, special and stop ids.
  std::uint64_t fingerprint() const;
  LexemeCache& lexemes() const { return *lexemes_; }

 private:
  std::vector<std::uint8_t> bytes_;
  std::vector<std::uint64_t> offsets_;
  std::vector<std::uint32_t> stop_;
  Bitset special_, stop_bits_;
  std::size_t max_token_bytes_ = 0;
  Trie trie_;
  Children children_;
  std::vector<std::uint64_t> kinds_below_;
  std::vector<std::uint8_t> heights_;
  void look_below();
  std::shared_ptr<LexemeCache> lexemes_;
};

}  // namespace gramcore::grammar
