#include <algorithm>
#include <vector>

#include "core/rng.h"
#include "native/test.h"
#include "ngram/fm_index.h"

using namespace gramcore;
using namespace gramcore::ngram;

GC_TEST(ngram_fm_index_counts_locates_and_extracts) {
  Rng rng(31);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::uint16_t> text(rng.next_below(90));
    const std::uint32_t k = 1 + rng.next_below(9);
    for (auto& t : text) t = static_cast<std::uint16_t>(rng.next_below(k) * 700);
    const FmIndex fm = FmIndex::build(Span<const std::uint16_t>(text), 1 + round % 7);
    const auto all = fm.extract(0, text.size());
    EXPECT(std::equal(all.begin(), all.end(), text.begin(), text.end()));
    for (int query = 0; query < 10; ++query) {
      std::vector<std::uint32_t> ids(1 + rng.next_below(3));
      for (auto& t : ids) t = rng.next_below(k + 1) * 700;
      std::vector<std::int64_t> expected, found;
      for (std::size_t i = 0; i + ids.size() <= text.size(); ++i) {
        if (std::equal(ids.begin(), ids.end(), text.begin() + static_cast<std::ptrdiff_t>(i))) {
          expected.push_back(static_cast<std::int64_t>(i));
        }
      }
      fm.locate(fm.find(ids), ids.size(), found);
      EXPECT(found == expected);
    }
  }
  const std::vector<std::uint16_t> none;
  EXPECT_EQ(FmIndex::build(Span<const std::uint16_t>(none), 4).all().size(), 1u);
}
