// Weights as sums of two one-bit planes (BiLLM): the columns of every block are in two parts, salient and plain, each
//
//   W = a1 s1 + a2 s2 + m,   s1, s2 in {-1, +1};  a1, a2 and the salient part's m per row and block
//
// Planes are packed one-bit weights (quant/packed.h) over the columns in a fixed order, each part padded to whole
// blocks of 32: salient columns of all blocks first, then plain ones.
#pragma once

#include "quant/linear.h"

namespace gramcore::quant {

struct BinaryLinear {
  std::int64_t n = 0, k = 0;
  PackSpec salient, plain;          // the first plane of either part; salient.has_min
  Span<const std::uint8_t> planes;  // salient s1, s2, plain s1, s2
  Span<const std::int32_t> order;   // column of x for each of salient.k + plain.k columns; -1: none, counts as zero
  const float* bias = nullptr;

  // Parts of `blocks` groups of salient_group and plain_group columns.
  static BinaryLinear shaped(std::int64_t n, std::int64_t k, std::int64_t blocks, std::int64_t salient_group,
                             std::int64_t plain_group, ScaleType scale);
  std::int64_t planes_bytes() const;
  void validate_sizes() const;  // throws InvalidArgument
  void validate() const;        // and when a column of the order is out of range
};

// y = x W^T + bias.  Activations are rounded, as for other packed weights, in blocks of 32 columns in the order.
void linear(const BinaryLinear& w, const RowsView& x, const MutableRowsView& y, Activations activations);

}  // namespace gramcore::quant
