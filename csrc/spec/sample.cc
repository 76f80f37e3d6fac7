#include "spec/sample.h"

#include <algorithm>
#include <cmath>

#include "spec/kernels/rows.h"

namespace gramcore::spec {
namespace {

void check_row(const TensorView& logits) {
  check_cpu(logits, "logits");
  GC_CHECK(logits.rank == 1 && logits.shape[0] >= 1 && (logits.shape[0] == 1 || logits.stride[0] == 1),
           "logits must be one dense row, got shape ", shape_string(logits));
}

std::int64_t argmax_any(const TensorView& x, float* value) {
  const RowsKernels& k = rows_kernels();
  switch (x.dtype) {
    case DType::f32: return k.argmax_f32(x.as<float>(), x.shape[0], value);
    case DType::bf16: return k.argmax_bf16(x.as<bf16>(), x.shape[0], value);
    case DType::f16: return k.argmax_f16(x.as<f16>(), x.shape[0], value);
    default: throw TypeMismatch(cat("logits dtype must be float32, bfloat16 or float16, got ", dtype_name(x.dtype)));
  }
}

double exp_any(const TensorView& x, float shift, float scale, float* out) {
  const RowsKernels& k = rows_kernels();
  if (x.dtype == DType::f32) return k.exp_f32(x.as<float>(), x.shape[0], shift, scale, out);
  if (x.dtype == DType::bf16) return k.exp_bf16(x.as<bf16>(), x.shape[0], shift, scale, out);
  return k.exp_f16(x.as<f16>(), x.shape[0], shift, scale, out);
}

std::int64_t top(const TensorView& logits, float* value) {
  const std::int64_t index = argmax_any(logits, value);
  GC_CHECK(index >= 0 && *value > -INFINITY, "logits must have an entry above -inf, got none among ", logits.shape[0],
           "; a mask or a processor forbade every token");
  return index;
}

// Keeps the smallest set, by (weight descending, index ascending), of at least `wanted` mass; returns its mass.
// The bits of positive floats order like the floats: a histogram of mass over their upper bits finds the bucket in
// which the set ends, and only that bucket is sorted.
double keep_nucleus(std::vector<float>& weights, double wanted) {
  constexpr unsigned kShift = 18;
  std::vector<double> mass(std::size_t{1} << (31 - kShift), 0.0);
  const auto bucket = [](float w) { return static_cast<std::size_t>(bits::of(w) >> kShift); };
  for (float w : weights) mass[bucket(w)] += static_cast<double>(w);
  double above = 0;
  std::size_t cut = mass.size() - 1;
  while (cut > 0 && above + mass[cut] < wanted) above += mass[cut--];
  std::vector<std::int32_t> edge;
  double total = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const std::size_t b = bucket(weights[i]);
    if (b > cut) {
      total += static_cast<double>(weights[i]);
      continue;
    }
    if (b == cut && weights[i] > 0) {
      edge.push_back(static_cast<std::int32_t>(i));
    } else {
      weights[i] = 0;
    }
  }
  std::sort(edge.begin(), edge.end(), [&](std::int32_t a, std::int32_t b) {
    const float wa = weights[static_cast<std::size_t>(a)], wb = weights[static_cast<std::size_t>(b)];
    return wa != wb ? wa > wb : a < b;
  });
  bool full = false;
  for (std::int32_t i : edge) {
    float& w = weights[static_cast<std::size_t>(i)];
    if (full) {
      w = 0;
      continue;
    }
    total += static_cast<double>(w);
    full = total >= wanted;
  }
  return total;
}

// Weights exp((x - max) / T) with everything outside the warped support set to 0; returns their sum.
double warped(const TensorView& logits, const Warp& warp, std::vector<float>& weights) {
  float largest = 0;
  top(logits, &largest);
  const auto n = static_cast<std::size_t>(logits.shape[0]);
  weights.resize(n);
  double total;
  if (largest == INFINITY) {  // every +inf gets an equal share
    for (std::size_t i = 0; i < n; ++i) weights[i] = 0;
    total = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const float x = logits.dtype == DType::f32    ? logits.as<float>()[i]
                      : logits.dtype == DType::bf16 ? to_f32(logits.as<bf16>()[i])
                                                    : to_f32(logits.as<f16>()[i]);
      if (x == INFINITY) total += (weights[i] = 1.0f);
    }
  } else {
    total = exp_any(logits, largest, static_cast<float>(1.0 / warp.temperature), weights.data());
  }
  if (warp.top_k > 0 && static_cast<std::size_t>(warp.top_k) < n) {
    std::vector<float> sorted(weights);
    const auto kth = sorted.begin() + (warp.top_k - 1);
    std::nth_element(sorted.begin(), kth, sorted.end(), [](float a, float b) { return a > b; });
    const float threshold = *kth;
    for (float& w : weights) w = w < threshold ? 0.0f : w;
    total = 0;
    for (float w : weights) total += static_cast<double>(w);
  }
  if (warp.top_p < 1.0) total = keep_nucleus(weights, warp.top_p * total);
  if (warp.min_p > 0) {
    const float threshold = static_cast<float>(warp.min_p);  // the largest weight is 1
    for (float& w : weights) w = w < threshold ? 0.0f : w;
    total = 0;
    for (float w : weights) total += static_cast<double>(w);
  }
  return total;
}

template <class T>
std::int32_t quantile(const T* weights, std::size_t n, double target) {
  double sum = 0;
  std::int64_t last = -1;
  for (std::size_t i = 0; i < n; ++i) {
    if (!(weights[i] > 0)) continue;
    sum += static_cast<double>(weights[i]);
    last = static_cast<std::int64_t>(i);
    if (sum > target) break;
  }
  return static_cast<std::int32_t>(last);  // rounding may leave target >= sum: the last token of the support
}

}  // namespace

void check_warp(const Warp& warp) {
  GC_CHECK(warp.temperature >= 0 && std::isfinite(warp.temperature), "temperature must be >= 0 and finite, got ",
           warp.temperature, "; 0 means greedy");
  GC_CHECK(warp.top_k >= 0, "top_k must be >= 0, got ", warp.top_k, "; 0 keeps all tokens");
  GC_CHECK(warp.top_p > 0 && warp.top_p <= 1, "top_p must be in (0, 1], got ", warp.top_p);
  GC_CHECK(warp.min_p >= 0 && warp.min_p <= 1, "min_p must be in [0, 1], got ", warp.min_p);
}

std::int32_t argmax_row(const TensorView& logits) {
  check_row(logits);
  float value = 0;
  return static_cast<std::int32_t>(top(logits, &value));
}

void probs_row(const TensorView& logits, const Warp& warp, Span<double> out) {
  check_row(logits);
  check_warp(warp);
  GC_CHECK(static_cast<std::int64_t>(out.size()) == logits.shape[0], "out must have ", logits.shape[0],
           " entries, got ", out.size());
  if (warp.temperature == 0) {
    float value = 0;
    const std::int64_t best = top(logits, &value);
    for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::int64_t>(i) == best ? 1.0 : 0.0;
    return;
  }
  std::vector<float> weights;
  const double total = warped(logits, warp, weights);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(weights[i]) / total;
}

double prob_row(const TensorView& logits, const Warp& warp, std::int32_t token) {
  check_row(logits);
  check_warp(warp);
  GC_CHECK_AS(OutOfRange, token >= 0 && token < logits.shape[0], "token must be in [0, ", logits.shape[0], "), got ",
              token);
  if (warp.temperature == 0) return argmax_row(logits) == token ? 1.0 : 0.0;
  static thread_local std::vector<float> weights;
  const double total = warped(logits, warp, weights);
  return static_cast<double>(weights[static_cast<std::size_t>(token)]) / total;
}

std::int32_t sample_row(const TensorView& logits, const Warp& warp, double u) {
  check_row(logits);
  check_warp(warp);
  GC_CHECK(u >= 0 && u < 1, "u must be in [0, 1), got ", u);
  if (warp.temperature == 0) return argmax_row(logits);
  static thread_local std::vector<float> weights;
  const double total = warped(logits, warp, weights);
  return quantile(weights.data(), weights.size(), u * total);
}

std::int32_t sample_weights(Span<const double> weights, double u) {
  GC_CHECK(u >= 0 && u < 1, "u must be in [0, 1), got ", u);
  // Block sums first: the walk to the quantile then meets few weights, and no branch depends on each of them.
  constexpr std::size_t kBlock = 256;
  const std::size_t n = weights.size();
  static thread_local std::vector<double> blocks;
  blocks.assign((n + kBlock - 1) / kBlock, 0);
  double total = 0;
  for (std::size_t b = 0; b < blocks.size(); ++b) {
    const std::size_t end = std::min(n, (b + 1) * kBlock);
    double part[4] = {0, 0, 0, 0};
    bool bad = false;
    for (std::size_t i = b * kBlock; i < end; ++i) {
      part[i % 4] += weights[i];
      bad |= !(weights[i] >= 0);
    }
    GC_CHECK(!bad, "weights must be >= 0, got one that is not in [", b * kBlock, ", ", end, ")");
    blocks[b] = (part[0] + part[1]) + (part[2] + part[3]);
    total += blocks[b];
  }
  GC_CHECK(total > 0 && std::isfinite(total), "weights must have a finite positive sum, got ", total);
  double target = u * total;
  std::size_t b = 0;
  while (b + 1 < blocks.size() && target >= blocks[b]) target -= blocks[b++];
  std::int64_t last = -1;
  for (std::size_t i = b * kBlock; i < n; ++i) {
    if (!(weights[i] > 0)) continue;
    last = static_cast<std::int64_t>(i);
    if (target < weights[i]) return static_cast<std::int32_t>(last);
    target -= weights[i];
  }
  for (std::size_t i = b * kBlock; last < 0; --i) {  // rounding led past the support: its last token
    if (weights[i - 1] > 0) last = static_cast<std::int64_t>(i - 1);
  }
  return static_cast<std::int32_t>(last);
}

}  // namespace gramcore::spec
