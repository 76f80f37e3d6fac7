// Attribution of a passage: the longest stretches of it that the corpus holds, and every place of each.
#pragma once

#include <cstdint>
#include <vector>

#include "ngram/index.h"

namespace gramcore::ngram {

// ends[i]: end of the longest match that begins at i and is left when the documents of `minus`, all of them documents
// of the index, are taken down; `minus` may be null.
void match_ends(const Index& index, const Index* minus, Ids ids, Span<std::int64_t> ends);

struct AttributionRules {
  Span<const std::uint8_t> stops;   // per token: a span ends at the latest behind it; empty: none
  Span<const std::uint8_t> begins;  // per token: it begins a word, at which spans begin and end; empty: any token does
  std::int64_t min_len = 0, max_count = 0;
};

struct Attribution {
  // Per span: ids[left, right), occurrences, sum of natural log(unigram count / tokens), and end of its places.
  std::vector<std::int64_t> left, right, count, places_end;
  std::vector<double> unigram_logprob;
  std::vector<std::int64_t> shards, positions;  // of all spans one after the other, ascending within a span
};

// Spans in order, none inside another, of at least min_len tokens and at most max_count occurrences.  A span that is
// left out for either still covers those inside it.  With `minus`, spans end where match_ends says; counts and places
// remain those of the whole index.
Attribution attribute(const Index& index, const Index* minus, Ids ids, const AttributionRules& rules);

}  // namespace gramcore::ngram
