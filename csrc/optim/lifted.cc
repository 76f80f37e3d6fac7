#include "optim/lifted.h"

#include <algorithm>
#include <cstring>

#include "core/thread_pool.h"
#include "optim/float_spans.h"
#include "optim/kernels/rows.h"

namespace gramcore::optim {
namespace {

class Lifter {
 public:
  Lifter(const MatrixStep& s, const LiftedStep& step)
      : s_(s), step_(step), rows_(rows_kernels()), sgd_(rules_kernels().rule[kF32][kSgd]) {
    c_[0] = 1.0f;
    c_[1] = step.decay[0];
    c_[2] = step.decay[1];
    c_[7] = step.lr;
  }

  // Steps the elements [j, j + n) of row i, n <= kBlock; `lifted` is overwritten.
  void run(std::int64_t i, std::int64_t j, std::int64_t n, float* lifted) const {
    alignas(64) float params[kBlock], grads[kBlock];
    const std::int64_t at = i * step_.stride + j;
    if (step_.phi) {
      const float* const g = spans_.load(s_.grad, s_.grad_storage, i * step_.grad_stride + j, n, grads);
      rows_.add_scaled(g, step_.by_row ? nullptr : step_.phi + j, step_.by_row ? step_.phi[i] : 1.0f, lifted, n);
    }
    float* const p = s_.param_low ? spans_.load_pair(s_.param, s_.param_low, at, n, params)
                                  : spans_.load(s_.param, s_.param_storage, at, n, params);
    RuleBlock block{};
    block.p = p;
    block.g = lifted;
    block.n = n;
    std::memcpy(block.c, c_, sizeof block.c);
    sgd_(block);
    if (s_.param_low) return spans_.store_pair(p, s_.param, s_.param_low, at, n);
    NoiseKey key = s_.noise;
    key.tensor += static_cast<std::uint32_t>(step_.first_row + i) << 16;
    key.element = step_.first_column + j;
    spans_.store(p, s_.param, s_.param_storage, at, n, s_.stochastic ? &key : nullptr, 0);
  }

 private:
  const MatrixStep& s_;
  const LiftedStep& step_;
  const FloatSpans spans_;
  const RowsKernels& rows_;
  const RuleFn sgd_;
  float c_[kMaxCoefs] = {};
};

}  // namespace

void step_lifted(const MatrixStep& s, const LiftedStep& step, const void* lifted, Storage lifted_storage) {
  const Lifter lifter(s, step);
  const FloatSpans spans;
  const std::int64_t height = std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, s.cols));
  parallel_chunks((s.rows + height - 1) / height, [&](std::int64_t band) {
    alignas(64) float update[kBlock];
    for (std::int64_t i = band * height; i < std::min(s.rows, (band + 1) * height); ++i) {
      for (std::int64_t j = 0, n = 0; j < s.cols; j += n) {  // no block of the larger matrix's rows is left half-way
        n = std::min(kBlock - (step.first_column + j) % kBlock, s.cols - j);
        const float* const u = spans.load(lifted, lifted_storage, i * s.cols + j, n, update);
        if (u != update) std::memcpy(update, u, static_cast<std::size_t>(n) * sizeof(float));
        lifter.run(i, j, n, update);
      }
    }
  });
}

void step_lifted(const MatrixStep& s, const LiftedStep& step, const Product& lifted) {
  const Lifter lifter(s, step);
  lifted.each_stretch(
      [&](std::int64_t i, std::int64_t j, std::int64_t n, float* values) { lifter.run(i, j, n, values); },
      [&](std::int64_t i, std::int64_t rows, std::int64_t j, std::int64_t n) {
        const std::int64_t size = s.param_storage == Storage::f32 ? 4 : 2;
        const char* const param = static_cast<const char*>(s.param) + (i * step.stride + j) * size;
        return Ahead(param, rows, n * size, step.stride * size);
      });
}

}  // namespace gramcore::optim
