// What follows a set of places in a trie: the tries of all of them laid over each other, by their first byte.
#pragma once

#include <array>
#include <memory>
#include <mutex>
#include <vector>

#include "grammar/vocab.h"

namespace gramcore::grammar {

class Tails {
 public:
  // places: nodes of the trie, which must outlive this.
  Tails(const Trie& trie, const std::vector<std::uint32_t>& places);

  // Bytes that follow some place.
  const std::vector<std::uint8_t>& first_bytes() const { return first_bytes_; }
  // Nodes of the trie that follow a place with this byte.
  const std::vector<std::uint32_t>& places(std::uint8_t byte) const { return children_[byte]; }
  // Tokens and trie behind a first byte: the root holds the tokens that end with it.  Made when first asked for (safe
  // from several threads), since most continuations begin with few of the bytes; *grown is raised by its bytes then.
  const Trie& behind(std::uint8_t byte, std::size_t* grown) const;
  std::size_t bytes() const { return bytes_; }

 private:
  const Trie& trie_;
  std::array<std::vector<std::uint32_t>, 256> children_;  // of all places, by byte
  std::vector<std::uint8_t> first_bytes_;
  std::size_t bytes_;
  mutable std::mutex mutex_;
  mutable std::array<std::unique_ptr<const Trie>, 256> behind_;
};

// The union of the subtrees of some nodes, as a trie of its own.
Trie merge_subtrees(const Trie& trie, const std::vector<std::uint32_t>& nodes);

}  // namespace gramcore::grammar
