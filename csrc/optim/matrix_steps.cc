#include "optim/matrix_steps.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "core/thread_pool.h"
#include "optim/float_spans.h"
#include "optim/kernels/haar.h"
#include "optim/kernels/rows.h"

namespace gramcore::optim {
namespace {

// Some rows of a matrix and their moments as fp32.
class Band {
 public:
  Band(const MatrixStep& s, std::int64_t begin, std::int64_t end, bool moments) : begin(begin), end(end), s_(s) {
    if (s.param_storage != Storage::f32 || s.grad_storage != Storage::f32) {
      rows_.resize(static_cast<std::size_t>(2 * s.cols));
    }
    if (!moments) return;
    if (s.moment[0].storage != Storage::f32) held_.resize(static_cast<std::size_t>(2 * moment_size()));
    for (int k = 0; k < 2; ++k) {
      float* const buffer = held_.data() + k * moment_size();
      moment_[k] = spans_.load_moment(s.moment[k], k, begin * s.width, moment_size(), buffer);
    }
  }

  const std::int64_t begin, end;

  float* m(std::int64_t row) { return moment_[0] + (row - begin) * s_.width; }
  float* v(std::int64_t row) { return moment_[1] + (row - begin) * s_.width; }
  const float* grad(std::int64_t row) {
    return spans_.load(s_.grad, s_.grad_storage, row * s_.cols, s_.cols, rows_.data() + s_.cols);
  }
  float* param(std::int64_t row) {
    if (s_.param_low) return spans_.load_pair(s_.param, s_.param_low, row * s_.cols, s_.cols, rows_.data());
    return spans_.load(s_.param, s_.param_storage, row * s_.cols, s_.cols, rows_.data());
  }

  void keep_param(std::int64_t row, const float* p) {
    if (s_.param_low) return spans_.store_pair(p, s_.param, s_.param_low, row * s_.cols, s_.cols);
    if (s_.param_storage == Storage::f32) return;
    in_blocks(row, s_.cols, [&](std::int64_t at, std::int64_t n, const NoiseKey* noise) {
      spans_.store(p + at, s_.param, s_.param_storage, row * s_.cols + at, n, noise, 0);
    });
  }
  void keep_moments() {
    if (s_.moment[0].storage == Storage::f32) return;
    in_blocks(begin, moment_size(), [&](std::int64_t at, std::int64_t n, const NoiseKey* noise) {
      for (int k = 0; k < 2; ++k)
        spans_.store_moment(moment_[k] + at, s_.moment[k], k, begin * s_.width + at, n, noise);
    });
  }

 private:
  std::int64_t moment_size() const { return (end - begin) * s_.width; }

  // fn(begin, n, noise) over [0, size), with random bits named by `row`.
  template <class F>
  void in_blocks(std::int64_t row, std::int64_t size, F&& fn) const {
    NoiseKey key = s_.noise;
    key.tensor += static_cast<std::uint32_t>(row) << 16;
    for (std::int64_t at = 0; at < size; at += kBlock) {
      key.element = at;
      fn(at, std::min(kBlock, size - at), s_.stochastic ? &key : nullptr);
    }
  }

  const MatrixStep& s_;
  const FloatSpans spans_;
  std::vector<float> rows_, held_;  // a row of the parameter and one of the gradient; moments of all rows
  float* moment_[2] = {};
};

// fn(band) over bands of about kChunk elements, whose moments begin with a block of codes.
template <class F>
void over_bands(const MatrixStep& s, bool moments, F&& fn) {
  std::int64_t height = std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, s.cols));
  if (moments && s.moment[0].storage != Storage::f32) {
    const std::int64_t whole = kBlock8 / std::gcd(kBlock8, std::max<std::int64_t>(1, s.width));
    height = (height + whole - 1) / whole * whole;
  }
  parallel_chunks((s.rows + height - 1) / height, [&](std::int64_t i) {
    Band band(s, i * height, std::min(s.rows, (i + 1) * height), moments);
    fn(band);
  });
}

RuleBlock block_of(float* p, const float* g, std::int64_t n, const float* c) {
  RuleBlock block{};
  block.prefetch = true;
  block.p = p;
  block.g = g;
  block.n = n;
  std::memcpy(block.c, c, sizeof block.c);
  return block;
}

std::int64_t runs_of(const MatrixStep& s, int level) {
  return (s.cols + (std::int64_t{1} << level) - 1) >> level;
}

// Folds r, `width` numbers, into the moments of row i and leaves N in n; the sum of its squares.
double rule_on_row(Band& band, std::int64_t i, const float* r, float* n, std::int64_t width, const float* c) {
  const RulesKernels& rules = rules_kernels();
  std::memset(n, 0, static_cast<std::size_t>(width) * sizeof(float));
  RuleBlock block = block_of(n, r, width, c);
  block.s[0] = band.m(i);
  block.s[1] = band.v(i);
  rules.rule[kF32][kAdam](block);
  return rules.sum_squares(n, width);
}

// Adam on the columns whose bits are set, and the rule sign on the others; `bits` of a row begin `stride` bytes after
// those of the last.
void step_chosen(const MatrixStep& s, const std::uint8_t* bits, std::int64_t stride, const float* inside,
                 const float* outside) {
  constexpr std::int64_t kRoom = 16;
  const RulesKernels& rules = rules_kernels();
  const RowsKernels& rows = rows_kernels();
  over_bands(s, true, [&](Band& band) {
    std::vector<float> held(static_cast<std::size_t>(2 * (s.width + kRoom)));
    float *const p = held.data(), *const g = p + s.width + kRoom;
    for (std::int64_t i = band.begin; i < band.end; ++i) {
      float* const row = band.param(i);
      const float* const grad = band.grad(i);
      const std::uint8_t* const chosen = bits + i * stride;
      rows.gather(row, chosen, p, s.cols);
      rows.gather(grad, chosen, g, s.cols);
      rules.rule[kF32][kSign](block_of(row, grad, s.cols, outside));
      RuleBlock block = block_of(p, g, s.width, inside);
      block.s[0] = band.m(i);
      block.s[1] = band.v(i);
      rules.rule[kF32][kAdam](block);
      rows.scatter(p, chosen, row, s.cols);
      band.keep_param(i, row);
    }
    band.keep_moments();
  });
}

// Calls fn with the place of each bit.
template <class F>
void over_bits(const std::uint8_t* bytes, std::int64_t count, F&& fn) {
  for (std::int64_t i = 0; i < count; i += 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, bytes + i, static_cast<std::size_t>(std::min<std::int64_t>(8, count - i)));
    for (; word != 0; word &= word - 1) fn(i * 8 + __builtin_ctzll(word));
  }
}

}  // namespace

void step_columns(const MatrixStep& s, Span<const std::int64_t> index, const float* inside, const float* outside) {
  std::vector<std::uint8_t> bits(static_cast<std::size_t>((s.cols + 7) / 8));
  for (const std::int64_t j : index) bits[static_cast<std::size_t>(j / 8)] |= static_cast<std::uint8_t>(1u << (j % 8));
  step_chosen(s, bits.data(), 0, inside, outside);
}

void step_entries(const MatrixStep& s, const std::uint8_t* mask, const float* inside, const float* outside) {
  step_chosen(s, mask, (s.cols + 7) / 8, inside, outside);
}

bool entries_fit(const MatrixStep& s, Span<const std::uint8_t> mask) {
  const std::int64_t bytes = (s.cols + 7) / 8;
  if (static_cast<std::int64_t>(mask.size()) != s.rows * bytes) return false;
  for (std::int64_t row = 0; row < s.rows; ++row) {
    std::int64_t count = 0, last = -1;
    over_bits(mask.data() + row * bytes, bytes, [&](std::int64_t j) {
      ++count;
      last = j;
    });
    if (count != s.width || last >= s.cols) return false;
  }
  return true;
}

void rule_norms(const MatrixStep& s, const float* c, float* inputs, float* steps) {
  const RulesKernels& rules = rules_kernels();
  over_bands(s, true, [&](Band& band) {
    std::vector<float> n(static_cast<std::size_t>(s.cols));
    for (std::int64_t i = band.begin; i < band.end; ++i) {
      const float* const r = band.grad(i);
      inputs[i] = static_cast<float>(std::sqrt(rules.sum_squares(r, s.cols)));
      steps[i] = static_cast<float>(std::sqrt(rule_on_row(band, i, r, n.data(), s.cols, c)));
    }
    band.keep_moments();
  });
}

double haar_moments(const MatrixStep& s, int level, const float* c) {
  const HaarKernels& haar = haar_kernels();
  const std::int64_t runs = runs_of(s, level);
  const float spread = static_cast<float>(std::exp2(-0.5 * level));
  std::vector<double> sums(static_cast<std::size_t>(s.rows));  // added in order, whatever the number of threads
  over_bands(s, true, [&](Band& band) {
    std::vector<float> held(static_cast<std::size_t>(2 * (runs + kHaarPad)));
    float *const r = held.data(), *const n = r + runs + kHaarPad;
    for (std::int64_t i = band.begin; i < band.end; ++i) {
      haar.down(band.grad(i), level, spread, r, s.cols);
      sums[static_cast<std::size_t>(i)] = rule_on_row(band, i, r, n, runs, c);
    }
    band.keep_moments();
  });
  double total = 0;
  for (const double sum : sums) total += sum;
  return total;
}

void haar_step(const MatrixStep& s, int level, const HaarLift& lift) {
  const HaarKernels& haar = haar_kernels();
  const std::int64_t runs = runs_of(s, level);
  const float spread = static_cast<float>(std::exp2(-0.5 * level));
  const HaarScale scale{lift.factor, lift.eps, spread};
  over_bands(s, true, [&](Band& band) {
    std::vector<float> held(static_cast<std::size_t>(2 * (runs + kHaarPad)));
    float *const r = held.data(), *const weight = r + runs + kHaarPad;
    for (std::int64_t i = band.begin; i < band.end; ++i) {
      const float* const grad = band.grad(i);
      float* const p = band.param(i);
      haar.down(grad, level, spread * lift.grad_scale, r, s.cols);
      haar.weigh(band.m(i), band.v(i), r, weight, scale, runs);
      if (lift.grad_scale != 1.0f) {
        for (std::int64_t k = 0; k < runs; ++k) weight[k] *= lift.grad_scale;
      }
      haar.lift(p, grad, weight, r, level, lift.decay, lift.lr, s.cols);
      band.keep_param(i, p);
    }
  });
}

void step_blocks(const MatrixStep& s, float* v, const BlockAdam& a) {
  const RowsKernels& rows = rows_kernels();
  const RulesKernels& rules = rules_kernels();
  float c[kMaxCoefs] = {};
  c[0] = 1.0f;
  c[1] = a.decay[0];
  c[2] = a.decay[1];
  auto* const moment = static_cast<float*>(s.moment[0].data);
  over_bands(s, false, [&](Band& band) {
    for (std::int64_t b = band.begin; b < band.end; ++b) {
      const float* const grad = band.grad(b);
      float* const m = moment + b * s.cols;
      double squares = 0;
      for (std::int64_t j = 0; j < s.cols; j += kBlock) {
        squares += rows.moment(grad + j, a.grad_scale, a.weight1, m + j, std::min(kBlock, s.cols - j));
      }
      v[b] += a.weight2 * (static_cast<float>(squares / static_cast<double>(s.cols)) - v[b]);
      float* const p = band.param(b);
      RuleBlock block = block_of(p, m, s.cols, c);
      block.c[7] = a.lr / (std::sqrt(v[b]) * a.scale2 + a.eps);
      rules.rule[kF32][kSgd](block);
      band.keep_param(b, p);
    }
  });
}

}  // namespace gramcore::optim
