// Suffix arrays of token sequences, in memory.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/span.h"

namespace gramcore::ngram {

// Positions of all suffixes of `tokens` in ascending order (shorter first), tokens compared by `rank_order`.
// T: uint8_t, uint16_t, uint32_t.  Int: int32_t (fewer than 2^31 tokens) or int64_t.
template <class T, class Int>
std::vector<Int> suffix_array(Span<const T> tokens);

// Writes table.N for a tokenized.N file: every suffix's byte offset, in rank order.  progress(part): that much of the
// sorting is over, in [0, 1]; what it throws ends the call, and no file is left.
void build_table(const std::string& tokenized_path, const std::string& table_path, int token_bytes,
                 const std::function<void(double)>& progress = {});

}  // namespace gramcore::ngram
