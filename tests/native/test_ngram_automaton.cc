#include <algorithm>
#include <string>
#include <vector>

#include "core/rng.h"
#include "native/test.h"
#include "ngram/suffix_automaton.h"

using namespace gramcore;
using namespace gramcore::ngram;

namespace {

std::vector<std::int32_t> random_text(Rng& rng, std::size_t n, std::uint32_t symbols) {
  std::vector<std::int32_t> text(n);
  for (auto& t : text) t = static_cast<std::int32_t>(rng.next_below(symbols));
  return text;
}

std::int64_t brute_count(const std::vector<std::int32_t>& text, const std::vector<std::int32_t>& ids) {
  std::int64_t n = 0;
  for (std::size_t i = 0; i + ids.size() <= text.size(); ++i) {
    n += std::equal(ids.begin(), ids.end(), text.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return n;
}

}  // namespace

GC_TEST(ngram_automaton_grows_and_shrinks_at_random) {
  Rng rng(11);
  for (const std::uint32_t symbols : {1u, 2u, 5u, 300u}) {
    SuffixAutomaton automaton;
    std::vector<std::int32_t> text;
    for (int round = 0; round < 60; ++round) {
      const auto more = random_text(rng, rng.next_below(80), symbols);
      automaton.extend(more);
      text.insert(text.end(), more.begin(), more.end());
      const std::size_t cut = rng.next_below(static_cast<std::uint32_t>(text.size() / 2 + 1));
      automaton.rollback(static_cast<std::int64_t>(cut));
      text.resize(text.size() - cut);
      automaton.check_integrity();
    }
    for (int query = 0; query < 50; ++query) {
      const auto ids = random_text(rng, 1 + rng.next_below(3), symbols);
      const auto state = automaton.locate(ids);
      EXPECT_EQ(state == SuffixAutomaton::kNone ? 0 : automaton.count(state), brute_count(text, ids));
    }
    automaton.rollback(static_cast<std::int64_t>(text.size()));
    EXPECT_EQ(automaton.num_states(), 1);
    EXPECT_EQ(automaton.num_transitions(), 0);
  }
}

GC_TEST(ngram_automaton_recent_beyond_the_journal_is_still_an_occurrence) {
  Rng rng(12);
  SuffixAutomaton automaton;
  automaton.extend(random_text(rng, 30000, 3));
  automaton.rollback(20000);
  automaton.check_integrity();  // every `recent` is compared with the text
  EXPECT_EQ(automaton.num_tokens(), 10000);
}
