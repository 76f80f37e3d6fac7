// Queries over the shards of one or more indexes: counts, probabilities, next-token distributions, infini-gram
// suffixes.  Counts of shards add up; nothing is approximate.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "ngram/batch_find.h"
#include "ngram/shard.h"

namespace gramcore::ngram {

struct Distribution {
  std::int64_t prompt_count = 0;
  std::vector<std::uint32_t> ids;  // ascending
  std::vector<std::int64_t> counts;
};

// The longest suffix of a prompt that occurs, and where.
struct SuffixMatch {
  std::int64_t suffix_len = 0, count = 0;
  std::vector<RankRange> ranges;  // per shard
};

struct Score {
  std::int64_t suffix_len, prompt_count, cont_count;
};

using Ids = Span<const std::uint32_t>;

class Index {
 public:
  explicit Index(std::vector<std::unique_ptr<Shard>> shards);

  std::size_t num_shards() const { return shards_.size(); }
  const Shard& shard(std::size_t s) const;
  std::int64_t num_tokens() const;

  std::vector<RankRange> find(Ids ids) const;
  std::int64_t count(Ids ids) const;
  // (count of prompt, count of prompt + next)
  std::pair<std::int64_t, std::int64_t> continuation(Ids prompt, std::uint32_t next) const;
  // Every token that follows the prompt, with its count; `top` > 0 keeps the most frequent (smaller id on ties).
  Distribution next_tokens(Ids prompt, std::int64_t top) const;
  Distribution next_tokens(const std::vector<RankRange>& ranges, std::size_t depth, std::int64_t top) const;

  SuffixMatch longest_suffix(Ids prompt) const;
  // counts[k] = occurrences of the last k tokens, k = 0 .. min(size, max_len).
  std::vector<std::int64_t> suffix_counts(Ids ids, std::int64_t max_len) const;
  // For each token: the longest suffix of what precedes it that occurs, its count, and its count with the token.
  void score(Ids ids, Span<Score> out) const;
  // ends[i]: end of the longest match that begins at i (i when not even the token occurs).
  void match_ends(Ids ids, Span<std::int64_t> ends) const;

  // ranges[s * batch.size() + q]; runs on all threads.
  void find_batch(const QueryBatch& batch, Span<RankRange> ranges) const;
  void count_batch(const QueryBatch& batch, Span<std::int64_t> counts) const;

 private:
  template <class T>
  void score_typed(Ids ids, Span<Score> out) const;

  std::vector<std::unique_ptr<Shard>> shards_;
};

}  // namespace gramcore::ngram
