// The sampling law of plain decoding, applied to one row of logits: temperature, top-k, top-p, min-p, softmax.
// Verification uses these same functions, so that both see the same p.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.h"
#include "core/span.h"

namespace gramcore::spec {

struct Warp {
  double temperature = 1.0;  // 0 = greedy
  std::int64_t top_k = 0;    // 0 = all; ties with the k-th largest logit stay
  double top_p = 1.0;        // smallest set, by (probability descending, id ascending), of mass >= top_p
  double min_p = 0.0;        // keeps p >= min_p * max p
};
void check_warp(const Warp& warp);

// Index of the largest logit; throws when none is finite or +inf.
std::int32_t argmax_row(const TensorView& logits);

// p over all tokens (double, sums to 1).  temperature 0: all mass on the argmax.
void probs_row(const TensorView& logits, const Warp& warp, Span<double> out);

// The probability of one token under that law; without truncation one pass and no array.
double prob_row(const TensorView& logits, const Warp& warp, std::int32_t token);

// The token at quantile u in [0, 1) of that law in order of id: a pure function of (logits, warp, u).
std::int32_t sample_row(const TensorView& logits, const Warp& warp, double u);

// The token at quantile u of any non-negative weights (need not sum to 1); throws when their sum is 0 or not finite.
std::int32_t sample_weights(Span<const double> weights, double u);

}  // namespace gramcore::spec
