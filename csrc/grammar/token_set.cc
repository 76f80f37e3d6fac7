#include "grammar/token_set.h"

#include "core/check.h"
#include "grammar/vocab.h"

namespace gramcore::grammar {

Bitset TokenSet::in(const Vocab& vocab) const {
  Bitset out(vocab.size(), negated);
  for (const auto& [first, last] : ranges) {
    GC_CHECK(first <= last && last < vocab.size(), "token ids of a grammar must be ascending and < ", vocab.size(),
             ", got ", first, " to ", last);
    for (std::uint32_t id = first; id <= last; ++id) negated ? out.reset(id) : out.set(id);
  }
  if (name.empty()) return out;
  Bitset texts(vocab.size());  // tokens that are not special and read so, as added tokens of some tokenizers
  for (std::size_t id = 0; id < vocab.size(); ++id) {
    const auto text = vocab.token(id);
    if (std::string_view(reinterpret_cast<const char*>(text.data()), text.size()) != name) continue;
    (vocab.is_special(id) ? out : texts).set(id);
  }
  if (!out.any()) out = texts;
  GC_CHECK(out.any(), "token named by a grammar must be in the vocabulary, got '", name,
           "'; name it by its id, <[id]>");
  return out;
}

}  // namespace gramcore::grammar
