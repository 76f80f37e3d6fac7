#include "ngram/index.h"

#include <algorithm>
#include <array>
#include <numeric>

#include "core/thread_pool.h"
#include "ngram/shard_view.h"

namespace gramcore::ngram {
namespace {

// Distributions of shards come in rank order, that is by byte-swapped id; this puts them in order of ids.
template <class T>
void sort_by_id(Distribution& d) {
  const std::size_t n = d.ids.size();
  std::vector<std::uint32_t> order(n);
  if constexpr (sizeof(T) == 2) {  // already ascending within each high byte: one stable pass over it
    std::array<std::uint32_t, 257> starts{};
    for (const std::uint32_t id : d.ids) ++starts[(id >> 8) + 1];
    for (std::size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1];
    for (std::size_t i = 0; i < n; ++i) order[starts[d.ids[i] >> 8]++] = static_cast<std::uint32_t>(i);
  } else {
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) { return d.ids[a] < d.ids[b]; });
  }
  Distribution sorted{d.prompt_count, std::vector<std::uint32_t>(n), std::vector<std::int64_t>(n)};
  for (std::size_t i = 0; i < n; ++i) {
    sorted.ids[i] = d.ids[order[i]];
    sorted.counts[i] = d.counts[order[i]];
  }
  d = std::move(sorted);
}

// Adds the counts of two distributions in order of ids.
Distribution add(const Distribution& a, const Distribution& b) {
  Distribution sum;
  sum.prompt_count = a.prompt_count + b.prompt_count;
  for (std::size_t i = 0, j = 0; i < a.ids.size() || j < b.ids.size();) {
    const bool left = j == b.ids.size() || (i < a.ids.size() && a.ids[i] <= b.ids[j]);
    const bool right = i == a.ids.size() || (j < b.ids.size() && b.ids[j] <= a.ids[i]);
    sum.ids.push_back(left ? a.ids[i] : b.ids[j]);
    sum.counts.push_back((left ? a.counts[i] : 0) + (right ? b.counts[j] : 0));
    i += left;
    j += right;
  }
  return sum;
}

void keep_top(Distribution& d, std::int64_t top) {
  if (top <= 0 || static_cast<std::size_t>(top) >= d.ids.size()) top = static_cast<std::int64_t>(d.ids.size());
  std::vector<std::uint32_t> order(d.ids.size());
  std::iota(order.begin(), order.end(), 0u);
  const auto more = [&](std::uint32_t a, std::uint32_t b) {
    return d.counts[a] != d.counts[b] ? d.counts[a] > d.counts[b] : d.ids[a] < d.ids[b];
  };
  std::partial_sort(order.begin(), order.begin() + top, order.end(), more);
  Distribution kept;
  kept.prompt_count = d.prompt_count;
  for (std::int64_t i = 0; i < top; ++i) {
    kept.ids.push_back(d.ids[order[static_cast<std::size_t>(i)]]);
    kept.counts.push_back(d.counts[order[static_cast<std::size_t>(i)]]);
  }
  d = std::move(kept);
}

constexpr int kLinearTries = 4;

std::int64_t total(const std::vector<RankRange>& ranges) {
  std::int64_t sum = 0;
  for (const RankRange& r : ranges) sum += r.size();
  return sum;
}

}  // namespace

Index::Index(std::vector<std::unique_ptr<Shard>> shards) : shards_(std::move(shards)) {
  GC_CHECK(!shards_.empty(), "an index must have at least one shard, got none");
  for (const auto& s : shards_) {
    GC_CHECK_AS(FormatError, s->token_bytes() == shards_[0]->token_bytes(), s->name(),
                ": all shards must have tokens of one width, got ", s->token_bytes(), " bytes beside ",
                shards_[0]->token_bytes(), " in ", shards_[0]->name());
  }
}

const Shard& Index::shard(std::size_t s) const {
  GC_CHECK_AS(OutOfRange, s < shards_.size(), "shard must be in [0, ", shards_.size(), "), got ", s);
  return *shards_[s];
}

std::int64_t Index::num_tokens() const {
  std::int64_t n = 0;
  for (const auto& s : shards_) n += s->num_tokens();
  return n;
}

std::vector<RankRange> Index::find(Ids ids) const {
  std::vector<RankRange> ranges;
  ranges.reserve(shards_.size());
  for (const auto& s : shards_) ranges.push_back(s->find(ids));
  return ranges;
}

std::int64_t Index::count(Ids ids) const {
  std::int64_t n = 0;
  for (const auto& s : shards_) n += s->find(ids).size();
  return n;
}

std::pair<std::int64_t, std::int64_t> Index::continuation(Ids prompt, std::uint32_t next) const {
  std::vector<std::uint32_t> whole(prompt.begin(), prompt.end());
  whole.push_back(next);
  std::int64_t before = 0, after = 0;
  for (const auto& s : shards_) {
    const RankRange range = s->find(prompt);
    before += range.size();
    if (range.size() == 0) continue;
    after += s->narrow(range, whole, prompt.size()).size();
  }
  return {before, after};
}

Distribution Index::next_tokens(Ids prompt, std::int64_t top) const {
  return next_tokens(find(prompt), prompt.size(), top);
}

Distribution Index::next_tokens(const std::vector<RankRange>& ranges, std::size_t depth, std::int64_t top) const {
  Distribution all;
  for (std::size_t s = 0; s < shards_.size(); ++s) {
    Distribution one;
    one.prompt_count = ranges[s].size();
    with_token_type(shards_[s]->token_bytes(), [&](auto t) {
      using T = decltype(t);
      shards_[s]->template view<T>().for_each_next(ranges[s], depth,
                                                   [&](T token, std::int64_t begin, std::int64_t end) {
                                                     one.ids.push_back(token);
                                                     one.counts.push_back(end - begin);
                                                   });
      if (sizeof(T) > 1) sort_by_id<T>(one);
    });
    all = s == 0 ? std::move(one) : add(all, one);
  }
  if (top > 0) keep_top(all, top);
  return all;
}

SuffixMatch Index::longest_suffix(Ids prompt) const {
  const auto match = [&](std::int64_t length) {
    SuffixMatch m{length, 0, find(prompt.last(static_cast<std::size_t>(length)))};
    m.count = total(m.ranges);
    return m;
  };
  SuffixMatch best = match(0);
  const auto size = static_cast<std::int64_t>(prompt.size());
  std::int64_t missing = size + 1;  // the shortest length known not to occur
  for (std::int64_t length = 1; best.suffix_len + 1 < missing;) {
    SuffixMatch m = match(length);
    if (m.count > 0) {
      best = std::move(m);
    } else {
      missing = length;
    }
    // Doubling until a length is missing or the prompt ends, then halving the gap.
    length = missing > size ? std::min(size, 2 * best.suffix_len) : best.suffix_len + (missing - best.suffix_len) / 2;
    if (length <= best.suffix_len) length = best.suffix_len + 1;
  }
  return best;
}

std::vector<std::int64_t> Index::suffix_counts(Ids ids, std::int64_t max_len) const {
  const auto longest = static_cast<std::size_t>(std::min(static_cast<std::int64_t>(ids.size()), max_len));
  std::vector<std::int64_t> counts(longest + 1, 0);
  for (std::size_t k = 0; k <= longest; ++k) {
    counts[k] = count(ids.last(k));
    if (counts[k] == 0) break;  // longer suffixes contain this one
  }
  return counts;
}

void Index::score(Ids ids, Span<Score> out) const {
  with_token_type(shards_[0]->token_bytes(), [&](auto t) { score_typed<decltype(t)>(ids, out); });
}

template <class T>
void Index::score_typed(Ids ids, Span<Score> out) const {
  const std::vector<T> passage(ids.begin(), ids.end());  // ids that do not fit are caught below
  const Span<const T> typed(passage);
  std::vector<ShardView<T>> views;
  for (const auto& s : shards_) views.push_back(s->template view<T>());
  std::size_t start = 0;  // the longest suffix of ids[0, i) that occurs is ids[start, i)
  std::vector<RankRange> here = find(ids.first(0)), next(shards_.size());
  std::int64_t count_here = total(here);
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const bool possible = ids[i] <= separator<T>();
    for (std::size_t s = 0; s < views.size(); ++s) {
      next[s] = {};
      if (!possible || here[s].size() == 0) continue;
      const Span<const T> grown = typed.subspan(start, i + 1 - start);
      next[s] = i == start ? views[s].find(grown) : views[s].narrow(here[s], grown, i - start);
    }
    std::int64_t count_grown = total(next);
    out[i] = {static_cast<std::int64_t>(i - start), count_here, count_grown};
    // Drop tokens from the front until the suffix ending in ids[i] occurs: one by one at first, since matches mostly
    // shrink a little, then by bisection.
    for (int tries = 0; count_grown == 0 && start < i && possible; ++tries) {
      const Ids rest = ids.subspan(start + 1, i - start);
      if (tries < kLinearTries) {
        ++start;
        for (std::size_t s = 0; s < views.size(); ++s) next[s] = views[s].find(typed.subspan(start, rest.size()));
      } else {
        SuffixMatch m = longest_suffix(rest);
        start = i + 1 - static_cast<std::size_t>(m.suffix_len);
        next = std::move(m.ranges);
        if (m.suffix_len == 0) break;
      }
      count_grown = total(next);
    }
    if (count_grown == 0) {  // not even the token alone
      start = i + 1;
      next = find(ids.first(0));
      count_grown = total(next);
    }
    std::swap(here, next);
    count_here = count_grown;
  }
}

void Index::match_ends(Ids ids, Span<std::int64_t> ends) const {
  std::vector<Score> scores(ids.size());
  score(ids, scores);
  // ids[start, i] occurs for the smallest start = i + 1 - length(i); starts never decrease with i.
  std::size_t done = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const std::int64_t length = scores[i].cont_count > 0 ? scores[i].suffix_len + 1
                                : i + 1 < ids.size()     ? scores[i + 1].suffix_len
                                                         : longest_suffix(ids).suffix_len;
    const std::size_t first = i + 1 - static_cast<std::size_t>(length);
    for (; done < first; ++done) ends[done] = static_cast<std::int64_t>(std::max(i, done));
  }
  for (; done < ids.size(); ++done) ends[done] = static_cast<std::int64_t>(ids.size());
}

void Index::find_batch(const QueryBatch& batch, Span<RankRange> ranges) const {
  const auto n = static_cast<std::size_t>(batch.size());
  GC_CHECK_AS(LimitError, n < 0xffffffffu, "a batch must have < 2^32 queries, got ", n, "; ask in several");
  with_token_type(shards_[0]->token_bytes(), [&](auto t) {
    using T = decltype(t);
    const std::vector<std::uint32_t> order = search_order<T>(batch);
    for (std::size_t s = 0; s < shards_.size(); ++s) {
      const Span<RankRange> to = ranges.subspan(s * n, n);
      const auto view = shards_[s]->template view<T>();
      parallel_for(batch.size(), 512, [&](std::int64_t begin, std::int64_t end) {
        BatchFinder<T> finder(view);
        const auto part = Span<const std::uint32_t>(order).subspan(static_cast<std::size_t>(begin),
                                                                   static_cast<std::size_t>(end - begin));
        finder.run(batch, part, [&](std::uint32_t q, RankRange r) { to[q] = r; });
      });
    }
  });
}

void Index::count_batch(const QueryBatch& batch, Span<std::int64_t> counts) const {
  const auto n = static_cast<std::size_t>(batch.size());
  std::vector<RankRange> ranges(n * shards_.size());
  find_batch(batch, ranges);
  for (std::size_t q = 0; q < n; ++q) {
    counts[q] = 0;
    for (std::size_t s = 0; s < shards_.size(); ++s) counts[q] += ranges[s * n + q].size();
  }
}

}  // namespace gramcore::ngram
