// Draft trees: nodes in topological order, parents before children, -1 = child of the root (the last committed
// token, which is not a node).  Row 0 of a tree forward is the root, row i + 1 is node i.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "core/span.h"

namespace gramcore::spec {

// Throws unless 0 <= tokens[i] < vocab_size (vocab_size 0 skips it) and -1 <= parents[i] < i.  O(n).
void check_tree(Span<const std::int32_t> tokens, Span<const std::int32_t> parents, std::int64_t vocab_size);

// Row r of the tree forward sees row c iff c is r itself or an ancestor of r (the root is everybody's ancestor).
struct TreeLayout {
  std::int64_t rows = 1;            // nodes + 1
  std::int64_t words = 1;           // 64-bit words per row of `ancestors`
  std::vector<std::int32_t> depth;  // depth[0] = 0 for the root, children of the root have 1
  std::vector<std::uint64_t> seen;  // rows x words: bit c of row r = r sees c
  bool sees(std::int64_t r, std::int64_t c) const {
    return (seen[static_cast<std::size_t>(r * words + (c >> 6))] >> (c & 63)) & 1u;
  }
};
TreeLayout build_layout(Span<const std::int32_t> parents);

// Removes a node when an earlier sibling has the same token (its children move to that sibling), every node for
// which keep[i] == 0 (empty: none) with its subtree, and everything past the first `budget` remaining nodes.
// Returns the indices that stay, ascending; parents_out holds their parents in the new numbering.
std::vector<std::int32_t> prune_tree(Span<const std::int32_t> tokens, Span<const std::int32_t> parents,
                                     Span<const std::uint8_t> keep, std::int64_t budget,
                                     std::vector<std::int32_t>* parents_out);

// The child of `row` (0 = root) holding `token`: node index, or -1.
std::int32_t find_child(Span<const std::int32_t> tokens, Span<const std::int32_t> parents, std::int64_t row,
                        std::int32_t token);

// Attention mask of one sequence: out is (rows_out, columns), rows_out >= rows, columns >= base + rows.  Columns
// [first, base) are context, [base, base + rows) the tree; all others are closed.  Rows past the tree (padding of
// a batch) see only column `first`.  dtype bool: true = open; a float type: 0 = open, its lowest finite number =
// closed.
void fill_mask(const TreeLayout& layout, std::int64_t first, std::int64_t base, const TensorView& out);

// Throws unless path is strictly ascending, starts at a child of the root and follows parents.
void check_path(Span<const std::int32_t> parents, Span<const std::int32_t> path);

}  // namespace gramcore::spec
