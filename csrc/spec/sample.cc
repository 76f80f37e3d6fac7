#include "spec/sample.h"

#include <algorithm>
#include <cmath>

#include "core/thread_pool.h"
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

float entry(const TensorView& x, std::int64_t i) {
  if (x.dtype == DType::f32) return x.as<float>()[i];
  return x.dtype == DType::bf16 ? to_f32(x.as<bf16>()[i]) : to_f32(x.as<f16>()[i]);
}

// Weights are added up in blocks, whatever the number of threads; a quantile looks for its block first.
constexpr std::int64_t kBlock = 2048;
constexpr std::int64_t kBlocksPerTask = 2;

// fn(begin, end) returns the sum of the weights of one block; returns the sum over all of them.
template <class F>
double sum_blocks(std::int64_t n, std::vector<double>& sums, F&& fn) {
  sums.resize(static_cast<std::size_t>((n + kBlock - 1) / kBlock));
  parallel_for(static_cast<std::int64_t>(sums.size()), kBlocksPerTask, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t b = first; b < last; ++b) {
      sums[static_cast<std::size_t>(b)] = fn(b * kBlock, std::min(n, (b + 1) * kBlock));
    }
  });
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

// NaN if a weight is NaN or below 0.
template <class T>
double sum_of(const T* weights, std::int64_t begin, std::int64_t end) {
  constexpr int kLanes = 8;
  double part[kLanes] = {};
  T lowest[kLanes] = {};
  std::int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) {
    for (int l = 0; l < kLanes; ++l) {
      part[l] += static_cast<double>(weights[i + l]);
      lowest[l] = weights[i + l] < lowest[l] ? weights[i + l] : lowest[l];
    }
  }
  for (; i < end; ++i) {
    part[0] += static_cast<double>(weights[i]);
    lowest[0] = std::min(lowest[0], weights[i]);
  }
  double total = 0;
  for (int l = 0; l < kLanes; ++l) total += lowest[l] < 0 ? NAN : part[l];
  return total;
}

// out null: only the sums, the same bits.
double exp_any(const TensorView& x, float shift, float scale, float* out, std::vector<double>& sums) {
  const RowsKernels& k = rows_kernels();
  return sum_blocks(x.shape[0], sums, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t n = end - begin;
    const auto with = [&](const auto* row, auto store, auto add) {
      return out ? store(row + begin, n, shift, scale, out + begin) : add(row + begin, n, shift, scale);
    };
    if (x.dtype == DType::f32) return with(x.as<float>(), k.exp_f32, k.exp_sum_f32);
    if (x.dtype == DType::bf16) return with(x.as<bf16>(), k.exp_bf16, k.exp_sum_bf16);
    return with(x.as<f16>(), k.exp_f16, k.exp_sum_f16);
  });
}

// What exp_any gives one entry.
float weight_of(const TensorView& x, std::int64_t i, float shift, float scale) {
  const RowsKernels& k = rows_kernels();
  float weight = 0;
  if (x.dtype == DType::f32) {
    k.exp_f32(x.as<float>() + i, 1, shift, scale, &weight);
  } else if (x.dtype == DType::bf16) {
    k.exp_bf16(x.as<bf16>() + i, 1, shift, scale, &weight);
  } else {
    k.exp_f16(x.as<f16>() + i, 1, shift, scale, &weight);
  }
  return weight;
}

std::int64_t top(const TensorView& logits, float* value) {
  const std::int64_t index = argmax_any(logits, value);
  GC_CHECK(index >= 0 && *value > -INFINITY, "logits must have an entry above -inf, got none among ", logits.shape[0],
           "; a mask or a processor forbade every token");
  return index;
}

// Keeps the smallest set, by (weight descending, index ascending), of at least `wanted` mass.
// The bits of positive floats order like the floats: a histogram of mass over their upper bits finds the bucket in
// which the set ends, and only that bucket is sorted.
void keep_nucleus(std::vector<float>& weights, double wanted) {
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
}

// Weights exp((x - max) / T) with everything outside the warped support set to 0, the sums of their blocks and of all.
struct Warped {
  std::vector<float> weights;
  std::vector<double> sums;
  double total = 0;

  void add_up() {
    total = sum_blocks(static_cast<std::int64_t>(weights.size()), sums,
                       [&](std::int64_t begin, std::int64_t end) { return sum_of(weights.data(), begin, end); });
  }
  void drop_below(float threshold) {
    for (float& w : weights) w = w < threshold ? 0.0f : w;
    add_up();
  }
};

// Of this thread, until its next call.
Warped& warped(const TensorView& logits, const Warp& warp) {
  static thread_local Warped w;
  float largest = 0;
  top(logits, &largest);
  const auto n = static_cast<std::size_t>(logits.shape[0]);
  w.weights.resize(n);
  if (largest == INFINITY) {  // every +inf gets an equal share
    for (std::size_t i = 0; i < n; ++i) {
      w.weights[i] = entry(logits, static_cast<std::int64_t>(i)) == INFINITY ? 1.0f : 0.0f;
    }
    w.add_up();
  } else {
    w.total = exp_any(logits, largest, static_cast<float>(1.0 / warp.temperature), w.weights.data(), w.sums);
  }
  if (warp.top_k > 0 && static_cast<std::size_t>(warp.top_k) < n) {
    std::vector<float> sorted(w.weights);
    const auto kth = sorted.begin() + (warp.top_k - 1);
    std::nth_element(sorted.begin(), kth, sorted.end(), [](float a, float b) { return a > b; });
    w.drop_below(*kth);
  }
  if (warp.top_p < 1.0) {
    keep_nucleus(w.weights, warp.top_p * w.total);
    w.add_up();
  }
  if (warp.min_p > 0) w.drop_below(static_cast<float>(warp.min_p));  // the largest weight is 1
  return w;
}

// The first index at which the running sum exceeds u times the total; only its block is walked.
template <class T>
std::int32_t quantile(const std::vector<double>& sums, double total, const T* weights, std::int64_t n, double u) {
  double target = u * total;
  std::size_t b = 0;
  while (b + 1 < sums.size() && target >= sums[b]) target -= sums[b++];
  const std::int64_t begin = static_cast<std::int64_t>(b) * kBlock;
  std::int64_t last = -1;
  for (std::int64_t i = begin; i < n; ++i) {
    if (!(weights[i] > 0)) continue;
    last = i;
    if (target < static_cast<double>(weights[i])) break;
    target -= static_cast<double>(weights[i]);
  }
  for (std::int64_t i = begin; last < 0; --i) {  // rounding led past the support: its last token
    if (weights[i - 1] > 0) last = i - 1;
  }
  return static_cast<std::int32_t>(last);
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
  const Warped& w = warped(logits, warp);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<double>(w.weights[i]) / w.total;
}

double prob_row(const TensorView& logits, const Warp& warp, std::int32_t token) {
  check_row(logits);
  check_warp(warp);
  GC_CHECK_AS(OutOfRange, token >= 0 && token < logits.shape[0], "token must be in [0, ", logits.shape[0], "), got ",
              token);
  if (warp.temperature == 0) return argmax_row(logits) == token ? 1.0 : 0.0;
  float largest = 0;
  top(logits, &largest);
  if (warp.top_k == 0 && warp.top_p >= 1.0 && warp.min_p <= 0.0 && largest < INFINITY) {
    static thread_local std::vector<double> sums;
    const auto scale = static_cast<float>(1.0 / warp.temperature);
    const double total = exp_any(logits, largest, scale, nullptr, sums);
    return static_cast<double>(weight_of(logits, token, largest, scale)) / total;
  }
  const Warped& w = warped(logits, warp);
  return static_cast<double>(w.weights[static_cast<std::size_t>(token)]) / w.total;
}

std::int32_t sample_row(const TensorView& logits, const Warp& warp, double u) {
  check_row(logits);
  check_warp(warp);
  GC_CHECK(u >= 0 && u < 1, "u must be in [0, 1), got ", u);
  if (warp.temperature == 0) return argmax_row(logits);
  const Warped& w = warped(logits, warp);
  return quantile(w.sums, w.total, w.weights.data(), logits.shape[0], u);
}

std::int32_t sample_weights(Span<const double> weights, double u) {
  GC_CHECK(u >= 0 && u < 1, "u must be in [0, 1), got ", u);
  static thread_local std::vector<double> sums;
  const auto n = static_cast<std::int64_t>(weights.size());
  const double total =
      sum_blocks(n, sums, [&](std::int64_t begin, std::int64_t end) { return sum_of(weights.data(), begin, end); });
  GC_CHECK(total > 0 && std::isfinite(total), "weights must be >= 0 with a finite positive sum, got the sum ", total);
  return quantile(sums, total, weights.data(), n, u);
}

}  // namespace gramcore::spec
