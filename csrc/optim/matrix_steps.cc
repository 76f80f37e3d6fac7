#include "optim/matrix_steps.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/thread_pool.h"
#include "optim/kernels/haar.h"
#include "optim/kernels/rows.h"

namespace gramcore::optim {
namespace {

// fn(first row, end row) over bands of about kChunk elements.
template <class F>
void over_bands(const MatrixStep& s, F&& fn) {
  const std::int64_t height = std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, s.cols));
  parallel_chunks((s.rows + height - 1) / height,
                  [&](std::int64_t band) { fn(band * height, std::min(s.rows, (band + 1) * height)); });
}

RuleBlock block_of(float* p, const float* g, std::int64_t n, const float* c) {
  RuleBlock block{};
  block.p = p;
  block.g = g;
  block.n = n;
  std::memcpy(block.c, c, sizeof block.c);
  return block;
}

std::int64_t runs_of(const MatrixStep& s, int level) {
  return (s.cols + (std::int64_t{1} << level) - 1) >> level;
}

}  // namespace

void step_columns(const MatrixStep& s, Span<const std::int64_t> index, const float* inside, const float* outside) {
  const RulesKernels& rules = rules_kernels();
  const std::int64_t width = s.width;
  over_bands(s, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> held(static_cast<std::size_t>(2 * width));
    float *const p = held.data(), *const g = p + width;
    for (std::int64_t i = begin; i < end; ++i) {
      float* const row = s.param + i * s.cols;
      const float* const grad = s.grad + i * s.cols;
      for (std::int64_t k = 0; k < width; ++k) {
        const std::int64_t j = index[static_cast<std::size_t>(k)];
        p[k] = row[j];
        g[k] = grad[j];
      }
      rules.rule[kF32][kSign](block_of(row, grad, s.cols, outside));
      RuleBlock block = block_of(p, g, width, inside);
      block.s[0] = s.m + i * width;
      block.s[1] = s.v + i * width;
      rules.rule[kF32][kAdam](block);
      for (std::int64_t k = 0; k < width; ++k) row[index[static_cast<std::size_t>(k)]] = p[k];
    }
  });
}

double haar_moments(const MatrixStep& s, int level, const float* c) {
  const HaarKernels& haar = haar_kernels();
  const RulesKernels& rules = rules_kernels();
  const std::int64_t runs = runs_of(s, level);
  const float spread = static_cast<float>(std::exp2(-0.5 * level));
  std::vector<double> sums(static_cast<std::size_t>(s.rows));  // added in order, whatever the number of threads
  over_bands(s, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> held(static_cast<std::size_t>(2 * (runs + kHaarPad)));
    float *const r = held.data(), *const n = r + runs + kHaarPad;
    for (std::int64_t i = begin; i < end; ++i) {
      haar.down(s.grad + i * s.cols, level, spread, r, s.cols);
      std::memset(n, 0, static_cast<std::size_t>(runs) * sizeof(float));
      RuleBlock block = block_of(n, r, runs, c);
      block.s[0] = s.m + i * runs;
      block.s[1] = s.v + i * runs;
      rules.rule[kF32][kAdam](block);
      sums[static_cast<std::size_t>(i)] = rules.sum_squares(n, runs);
    }
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
  over_bands(s, [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> held(static_cast<std::size_t>(2 * (runs + kHaarPad)));
    float *const r = held.data(), *const weight = r + runs + kHaarPad;
    for (std::int64_t i = begin; i < end; ++i) {
      const float* const grad = s.grad + i * s.cols;
      haar.down(grad, level, spread * lift.grad_scale, r, s.cols);
      haar.weigh(s.m + i * runs, s.v + i * runs, r, weight, scale, runs);
      if (lift.grad_scale != 1.0f) {
        for (std::int64_t k = 0; k < runs; ++k) weight[k] *= lift.grad_scale;
      }
      haar.lift(s.param + i * s.cols, grad, weight, r, level, lift.decay, lift.lr, s.cols);
    }
  });
}

void step_blocks(const MatrixStep& s, const BlockAdam& a) {
  const RowsKernels& rows = rows_kernels();
  const RulesKernels& rules = rules_kernels();
  float c[kMaxCoefs] = {};
  c[0] = 1.0f;
  c[1] = a.decay[0];
  c[2] = a.decay[1];
  const std::int64_t together = std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, s.width));
  parallel_chunks((s.rows + together - 1) / together, [&](std::int64_t task) {
    for (std::int64_t b = task * together; b < std::min(s.rows, (task + 1) * together); ++b) {
      const std::int64_t at = b * s.width;
      double squares = 0;
      for (std::int64_t j = 0; j < s.width; j += kBlock) {
        const std::int64_t n = std::min(kBlock, s.width - j);
        squares += rows.moment(s.grad + at + j, a.grad_scale, a.weight1, s.m + at + j, n);
      }
      float& v = s.v[b];
      v += a.weight2 * (static_cast<float>(squares / static_cast<double>(s.width)) - v);
      RuleBlock block = block_of(s.param + at, s.m + at, s.width, c);
      block.c[7] = a.lr / (std::sqrt(v) * a.scale2 + a.eps);
      rules.rule[kF32][kSgd](block);
    }
  });
}

}  // namespace gramcore::optim
