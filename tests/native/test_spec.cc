#include <cmath>
#include <limits>
#include <vector>

#include "core/cpu.h"
#include "core/rng.h"
#include "native/test.h"
#include "spec/ngram_draft.h"
#include "spec/sample.h"
#include "spec/tree.h"

using namespace gramcore;

namespace {

TensorView row_of(std::vector<float>& x) {
  TensorView view;
  view.data = x.data();
  view.rank = 1;
  view.shape[0] = static_cast<std::int64_t>(x.size());
  view.stride[0] = 1;
  return view;
}

GC_TEST(spec_random_trees_have_consistent_layouts_and_masks) {
  Rng rng(1);
  for (int round = 0; round < 50; ++round) {
    const int n = static_cast<int>(rng.next_below(150));
    std::vector<std::int32_t> parents, tokens;
    for (int i = 0; i < n; ++i) {
      parents.push_back(static_cast<std::int32_t>(rng.next_below(static_cast<std::uint32_t>(i + 1))) - 1);
      tokens.push_back(static_cast<std::int32_t>(rng.next_below(3)));
    }
    spec::check_tree(tokens, parents, 3);
    const spec::TreeLayout layout = spec::build_layout(parents);
    for (int i = 0; i < n; ++i) {
      int depth = 0;
      for (int node = i; node >= 0; node = parents[static_cast<std::size_t>(node)], ++depth)
        EXPECT(layout.sees(i + 1, node + 1));
      EXPECT(layout.depth[static_cast<std::size_t>(i + 1)] == depth);
    }
    const std::int64_t columns = 5 + layout.rows;
    std::vector<float> mask(static_cast<std::size_t>(layout.rows * columns), 1.0f);
    TensorView view;
    view.data = mask.data();
    view.rank = 2;
    view.shape[0] = layout.rows;
    view.shape[1] = columns;
    view.stride[0] = columns;
    view.stride[1] = 1;
    spec::fill_mask(layout, 0, 5, view);
    for (float m : mask) EXPECT(m == 0.0f || m == std::numeric_limits<float>::lowest());
    std::vector<std::int32_t> kept_parents;
    const auto kept = spec::prune_tree(tokens, parents, {}, 40, &kept_parents);
    EXPECT(kept.size() <= 40 && kept.size() == kept_parents.size());
  }
}

GC_TEST(spec_rows_at_every_level) {
  for (CpuLevel level : supported_cpu_levels()) {
    set_cpu_level(level);
    for (int n : {1, 7, 63, 64, 65, 200}) {
      std::vector<float> x;
      Rng rng(static_cast<std::uint64_t>(n));
      for (int i = 0; i < n; ++i) x.push_back(static_cast<float>(rng.next_uniform()) * 8.0f);
      const std::int32_t best = spec::argmax_row(row_of(x));
      for (float v : x) EXPECT(v <= x[static_cast<std::size_t>(best)]);
      std::vector<double> p(static_cast<std::size_t>(n));
      spec::probs_row(row_of(x), {0.7, 5, 0.9, 0.01}, p);
      double total = 0;
      for (double v : p) total += v;
      EXPECT(std::fabs(total - 1) < 1e-12);
      for (double u : {0.0, 0.3, 0.999999}) {
        const std::int32_t token = spec::sample_row(row_of(x), {0.7, 5, 0.9, 0.01}, u);
        EXPECT(p[static_cast<std::size_t>(token)] > 0);
      }
    }
  }
  set_cpu_level(supported_cpu_levels().back());
}

GC_TEST(spec_ngram_table_forgets_what_it_is_told_to) {
  spec::NgramTable table(1, 4, spec::NgramTable::Pick::most_frequent);
  Rng rng(3);
  std::vector<std::int32_t> text;
  for (int i = 0; i < 400; ++i) text.push_back(static_cast<std::int32_t>(rng.next_below(5)));
  table.extend(text);
  EXPECT(table.propose(12).size() <= 12);
  table.rollback(400);
  EXPECT(table.num_tokens() == 0 && table.propose(5).empty());
  EXPECT(test::throws<InvalidArgument>([&] { table.rollback(1); }));
}

}  // namespace
