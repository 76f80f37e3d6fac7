// A large set of strings, sorted into a trie once and then used by any number of grammars.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "grammar/vocab.h"

namespace gramcore::grammar {

class Catalogue {
 public:
  // Throws InvalidArgument: no strings, or one longer than 65,534 bytes.
  explicit Catalogue(const std::vector<std::string_view>& strings);

  std::size_t size() const { return size_; }
  std::size_t bytes() const { return trie_.nodes.size() * sizeof(Trie::Node) + trie_.tokens.size() * 4; }
  const Trie& trie() const { return trie_; }
  bool ends_at(std::uint32_t node) const { return trie_.nodes[node].first_token < trie_.nodes[node + 1].first_token; }
  // 128 bits of hash of all strings: taken for identity.
  const std::array<std::uint64_t, 2>& hash() const { return hash_; }

 private:
  Trie trie_;
  std::size_t size_ = 0;
  std::array<std::uint64_t, 2> hash_{};
};

}  // namespace gramcore::grammar
