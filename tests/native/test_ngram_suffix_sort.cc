// Suffix sorting against comparisons of whole suffixes: random, periodic and repeated text, every width, groups split
// symbol by symbol, ties that take several rounds.
#include <algorithm>
#include <vector>

#include "core/rng.h"
#include "core/thread_pool.h"
#include "native/test.h"
#include "ngram/suffix_sort.h"

using namespace gramcore;
using namespace gramcore::ngram;

namespace {

template <class Char, class Int>
bool sorts(const std::vector<Char>& text, Int k, Int large_group, Int block = 65536) {
  using Sort = SuffixSort<Char, Int>;
  const auto n = static_cast<Int>(text.size());
  auto padded = text;
  padded.resize(text.size() + static_cast<std::size_t>(Sort::kSpare), Char{0});
  std::vector<Int> sa(padded.size(), Int{-7}), expected(text.size());
  Sort::sort(padded.data(), sa.data(), n, k, {large_group, block, block});
  sa.resize(text.size());
  for (Int i = 0; i < n; ++i) expected[static_cast<std::size_t>(i)] = i;
  std::sort(expected.begin(), expected.end(), [&](Int a, Int b) {
    return std::lexicographical_compare(text.begin() + a, text.end(), text.begin() + b, text.end());
  });
  return sa == expected;
}

// Text of n symbols in [1, k]: with a period, or pieces copied from anywhere before.
template <class Char>
std::vector<Char> sample(Rng& rng, std::uint32_t n, std::uint32_t k, std::uint32_t period, bool copies) {
  std::vector<Char> text(n);
  for (std::uint32_t i = 0; i < n; ++i) {
    text[i] = period > 0 && i >= period ? text[i - period] : static_cast<Char>(1 + rng.next_below(k));
  }
  for (std::uint32_t c = 0; copies && n > 8 && c < 6; ++c) {
    const std::uint32_t from = rng.next_below(n / 2), to = n / 2 + rng.next_below(n / 2);
    const std::uint32_t size = std::min(n - to, rng.next_below(n / 2));
    for (std::uint32_t i = 0; i < size; ++i) text[to + i] = text[from + i];
  }
  return text;
}

template <class Char, class Int>
void check_width(std::uint64_t seed) {
  Rng rng(seed);
  for (std::uint32_t round = 0; round < 600; ++round) {
    const std::uint32_t n = rng.next_below(round % 10 == 0 ? 700 : 60), k = 1 + rng.next_below(4);
    const auto text = sample<Char>(rng, n, k, round % 3 == 0 ? 1 + round % 7 : 0, round % 3 == 1);
    const Int large_group = round % 2 == 0 ? 4 : 65536,
              block = round % 4 < 2 ? 1 + static_cast<Int>(round % 37) : 65536;
    EXPECT((sorts<Char, Int>(text, static_cast<Int>(k), large_group, block)));
  }
}

}  // namespace

GC_TEST(ngram_suffix_sort_of_every_width) {
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    check_width<std::uint8_t, std::int32_t>(1);
    check_width<std::uint16_t, std::int32_t>(2);
    check_width<std::uint32_t, std::int32_t>(3);
    check_width<std::int32_t, std::int32_t>(4);
    check_width<std::uint16_t, std::int64_t>(5);
    check_width<std::int64_t, std::int64_t>(6);
  }
  set_num_threads(0);
}

GC_TEST(ngram_suffix_sort_of_long_slopes) {
  // LMS suffixes far apart, which agree far beyond the symbols compared at least.
  for (const int slope : {17, 100, 1000}) {
    std::vector<std::uint16_t> text;
    for (int copy = 0; copy < 5; ++copy) {
      for (int i = 0; i < slope; ++i) text.push_back(static_cast<std::uint16_t>(1 + i / 3));
      for (int i = slope; i-- > 0;) text.push_back(static_cast<std::uint16_t>(1 + i / 5));
    }
    EXPECT((sorts<std::uint16_t, std::int32_t>(text, 1000, 4)));
    EXPECT((sorts<std::uint16_t, std::int32_t>(text, 1000, 65536)));
  }
}

GC_TEST(ngram_suffix_sort_of_large_buckets) {
  Rng rng(7);
  auto text = sample<std::uint8_t>(rng, 60000, 3, 0, true);
  set_num_threads(3);
  EXPECT((sorts<std::uint8_t, std::int32_t>(text, 3, 1000, 1000)));
  set_num_threads(0);
  EXPECT((sorts<std::uint8_t, std::int32_t>(text, 3, 65536)));
}
