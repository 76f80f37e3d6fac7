// Suffix arrays of token sequences, in memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/span.h"

namespace gramcore::ngram {

// Positions of all suffixes of `tokens` in ascending order (shorter first), tokens compared by `rank_order`.
// T: uint8_t, uint16_t, uint32_t.  Int: int32_t (fewer than 2^31 tokens) or int64_t.
template <class T, class Int>
std::vector<Int> suffix_array(Span<const T> tokens);

// Writes table.N for a tokenized.N file: every suffix's byte offset, in rank order.
void build_table(const std::string& tokenized_path, const std::string& table_path, int token_bytes);

}  // namespace gramcore::ngram
