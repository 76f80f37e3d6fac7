#include <cmath>
#include <string>
#include <vector>

#include "core/rng.h"
#include "grammar/automaton.h"
#include "grammar/bnf.h"
#include "grammar/mass_trie.h"
#include "native/test.h"

using namespace gramcore;
using namespace gramcore::grammar;

GC_TEST(grammar_bnf_random_text_never_crashes) {
  Rng rng(31);
  const std::string letters = "root:=ab\"'[]()|*+?{}0,9-^\\xu#/;. \n\xc3\xa9\xff";
  for (int round = 0; round < 3000; ++round) {
    std::string text = round % 2 ? "root ::= " : "";
    for (std::uint32_t n = rng.next_below(50); n > 0; --n) {
      text += letters[rng.next_below(static_cast<std::uint32_t>(letters.size()))];
    }
    try {
      Grammar g = parse_bnf(text, round % 4 < 2 ? BnfSyntax::kGbnf : BnfSyntax::kEbnf);
      prepare(&g);
      Automaton automaton(std::move(g));
      StateId state = automaton.start();
      for (const char c : std::string("ab(a")) state = automaton.step(state, static_cast<std::uint8_t>(c));
    } catch (const std::invalid_argument&) {
    } catch (const LimitError&) {
    }
  }
}

GC_TEST(grammar_mass_trie_random_growth_and_damage) {
  Rng rng(32);
  MassTrie trie(50);
  std::vector<float> row(50);
  for (int round = 0; round < 300; ++round) {
    MassTrie::NodeId node = 0;
    for (int depth = 0; depth < 5; ++depth) {
      for (auto& x : row) x = static_cast<float>(rng.next_uniform() * 4);
      std::vector<float> raw = row;
      const double log_sum = trie.edit(node, row, nullptr);
      const auto token = static_cast<std::int32_t>(rng.next_below(50));
      node =
          trie.enter(node, token, std::min(0.0, static_cast<double>(raw[static_cast<std::size_t>(token)]) - log_sum));
    }
    if (round % 3 == 0 && std::isfinite(trie.log_weight(node))) {
      const std::vector<double> uniforms(5, 0.999);
      EXPECT(trie.backtrack(node, 0, uniforms) <= 4);
    }
    trie.check_integrity();
  }
  const std::string bytes = trie.to_bytes();
  EXPECT_EQ(MassTrie::from_bytes(bytes).num_nodes(), trie.num_nodes());
  for (int round = 0; round < 500; ++round) {
    std::string hurt =
        bytes.substr(0, round % 2 ? bytes.size() : rng.next_below(static_cast<std::uint32_t>(bytes.size())));
    if (!hurt.empty())
      hurt[rng.next_below(static_cast<std::uint32_t>(hurt.size()))] ^= static_cast<char>(1 + rng.next_below(255));
    try {
      MassTrie::from_bytes(hurt).check_integrity();
    } catch (const FormatError&) {
    }
  }
}
