// Tokens that a grammar names itself: by their text, as special tokens are, or by their ids.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/bitset.h"

namespace gramcore::grammar {

class Vocab;

struct TokenSet {
  std::string name;                                             // or empty:
  std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges;  // ids, first to last
  bool negated = false;                                         // all ids outside the ranges

  // The tokens of a vocabulary.  Throws InvalidArgument where it has none of this name or with such an id.
  Bitset in(const Vocab& vocab) const;
};

}  // namespace gramcore::grammar
