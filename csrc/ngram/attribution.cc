#include "ngram/attribution.h"

#include <algorithm>
#include <cmath>

namespace gramcore::ngram {

void match_ends(const Index& index, const Index* minus, Ids ids, Span<std::int64_t> ends) {
  index.match_ends(ids, ends);
  if (!minus) return;
  std::vector<std::int64_t> taken(ids.size());
  minus->match_ends(ids, taken);
  // What is left of a shorter stretch is at least what is left of a longer one, so ends never step back.
  std::int64_t end = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    end = std::max(end, static_cast<std::int64_t>(i));
    if (ends[i] > taken[i]) {
      end = ends[i];
    } else {
      const auto left = [&](std::int64_t to) {
        const Ids stretch = ids.subspan(i, static_cast<std::size_t>(to) - i);
        return index.count(stretch) > minus->count(stretch);
      };
      while (end < ends[i] && left(end + 1)) ++end;
    }
    ends[i] = std::min(end, ends[i]);
  }
}

namespace {

// Where the longest allowed match that begins at each token ends.
std::vector<std::int64_t> allowed_ends(const Index& index, const Index* minus, Ids ids, const AttributionRules& rules) {
  const auto n = static_cast<std::int64_t>(ids.size());
  std::vector<std::int64_t> ends(ids.size());
  match_ends(index, minus, ids, ends);
  std::int64_t limit = n;
  for (std::int64_t i = n - 1; i >= 0; --i) {
    const auto at = static_cast<std::size_t>(i);
    if (!rules.stops.empty() && rules.stops[at]) limit = i + 1;
    ends[at] = std::min(ends[at], limit);
    if (rules.begins.empty()) continue;
    if (!rules.begins[at]) ends[at] = i;
    while (ends[at] > i && ends[at] < n && !rules.begins[static_cast<std::size_t>(ends[at])]) --ends[at];
  }
  return ends;
}

}  // namespace

Attribution attribute(const Index& index, const Index* minus, Ids ids, const AttributionRules& rules) {
  Attribution found;
  const std::vector<std::int64_t> ends = allowed_ends(index, minus, ids, rules);
  // One batch of searches: the tokens, then the spans.
  const std::size_t n = ids.size(), shards = index.num_shards();
  std::vector<std::uint32_t> flat(ids.begin(), ids.end());
  std::vector<std::int64_t> offsets(n + 1), starts;
  for (std::size_t i = 0; i <= n; ++i) offsets[i] = static_cast<std::int64_t>(i);
  std::int64_t covered = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto left = static_cast<std::int64_t>(i);
    if (ends[i] <= std::max(covered, left)) continue;
    covered = ends[i];
    if (covered - left < rules.min_len) continue;
    starts.push_back(left);
    flat.insert(flat.end(), ids.begin() + left, ids.begin() + covered);
    offsets.push_back(static_cast<std::int64_t>(flat.size()));
  }
  const QueryBatch batch{flat, offsets};
  const auto queries = static_cast<std::size_t>(batch.size());
  std::vector<RankRange> ranges(queries * shards);
  index.find_batch(batch, ranges);
  const auto count = [&](std::size_t query) {
    std::int64_t sum = 0;
    for (std::size_t s = 0; s < shards; ++s) sum += ranges[s * queries + query].size();
    return sum;
  };

  std::vector<double> logprobs(n);
  const auto total = static_cast<double>(index.num_tokens());
  for (std::size_t i = 0; i < n; ++i) {
    logprobs[i] = std::log(static_cast<double>(std::max<std::int64_t>(count(i), 1)) / total);
  }
  for (std::size_t k = 0; k < starts.size(); ++k) {
    const std::int64_t occurrences = count(n + k);
    if (occurrences > rules.max_count) continue;
    const std::int64_t left = starts[k], right = ends[static_cast<std::size_t>(left)];
    double sum = 0;
    for (std::int64_t i = left; i < right; ++i) sum += logprobs[static_cast<std::size_t>(i)];
    for (std::size_t s = 0; s < shards; ++s) {
      const RankRange range = ranges[s * queries + n + k];
      const auto first = static_cast<std::ptrdiff_t>(found.positions.size());
      for (std::int64_t r = range.begin; r < range.end; ++r) found.positions.push_back(index.shard(s).position(r));
      std::sort(found.positions.begin() + first, found.positions.end());
      found.shards.resize(found.positions.size(), static_cast<std::int64_t>(s));
    }
    found.left.push_back(left);
    found.right.push_back(right);
    found.count.push_back(occurrences);
    found.unigram_logprob.push_back(sum);
    found.places_end.push_back(static_cast<std::int64_t>(found.positions.size()));
  }
  return found;
}

}  // namespace gramcore::ngram
