#include <algorithm>
#include <cmath>
#include <vector>

#include "core/thread_pool.h"
#include "optim/factored.h"
#include "optim/float_spans.h"
#include "optim/kernels/rows.h"

namespace gramcore::optim {
namespace {

class Matrix {
 public:
  Matrix(const FactoredStep& s, std::int64_t k, float* row, float* column)
      : s_(s),
        k_(k),
        rows_(rows_kernels()),
        row_(row),
        column_(column),
        r_(s.row + k * s.rows),
        c_(s.column + k * s.cols) {}

  // New R and C, and the factors of rows and columns that make u of the gradient; adds up u^2, and p^2 if asked for.
  void normalise(double* updates, double* params) {
    FactoredPass pass = pass_over_gradient();
    pass.scale = static_cast<float>(s_.scale);
    pass.eps = static_cast<float>(s_.eps);
    fold(pass, r_, c_, s_.weight2);
    const std::int64_t height = std::max<std::int64_t>(1, kChunk / s_.cols), bands = (s_.rows + height - 1) / height;
    std::vector<double> squares(static_cast<std::size_t>(2 * bands));
    parallel_chunks(bands, [&](std::int64_t i) {
      const std::int64_t band = bands - 1 - i;  // the last rows are still in the caches, and then the first ones
      add_squares(band * height, std::min(s_.rows, (band + 1) * height), squares.data() + 2 * band);
    });
    for (std::int64_t band = 0; band < bands; ++band) {
      *updates += squares[static_cast<std::size_t>(2 * band)] * s_.scale * s_.scale;
      *params += squares[static_cast<std::size_t>(2 * band + 1)];
    }
  }

  // Folds u / divisor into m; then the factors of rows and columns belong to m.
  void confide(double divisor) {
    FactoredPass pass = pass_over_gradient();
    pass.m = moment();
    pass.row = row_;
    pass.column = column_;
    pass.scale = static_cast<float>(s_.scale / divisor);
    pass.weight = static_cast<float>(s_.weight1);
    pass.eps = static_cast<float>(s_.eps2);
    pass.residual = true;
    fold(pass, s_.unstable_row + k_ * s_.rows, s_.unstable_column + k_ * s_.cols, s_.weight3);
  }

  // p += -lr weight_decay p;  p -= lr scale row column x, with x the gradient or m.
  void step(double lr, double scale) const {
    StepTensor t = s_.tensor;
    t.numel = s_.rows * s_.cols;
    t.param = advanced(t.param, t.param_storage);
    if (t.param_low) t.param_low = advanced(t.param_low, Storage::bf16);
    t.grad = gradient();
    if (s_.m) {
      t.grad = moment();
      t.grad_storage = Storage::f32;
    }
    t.row = row_;
    t.column = column_;
    t.cols = s_.cols;
    Hyper hyper;
    hyper.lr = lr;
    hyper.weight_decay = s_.weight_decay;
    hyper.grad_scale = scale;
    rule_coefs(kSgd, hyper, t.step, t.c);
    t.id += static_cast<std::uint32_t>(k_) << 16;  // matrices of a stack draw bits of their own
    StepOptions options;
    options.rule = kSgd;
    options.stochastic = s_.stochastic;
    options.seed = s_.seed;
    run_step({&t, 1}, options);
  }

 private:
  FactoredPass pass_over_gradient() const {
    FactoredPass pass;
    pass.x = gradient();
    pass.x_storage = s_.tensor.grad_storage;
    pass.rows = s_.rows;
    pass.cols = s_.cols;
    return pass;
  }

  // Running means of rows and columns move by `weight` to those of a pass, and give the factors.
  void fold(const FactoredPass& pass, float* r, float* c, double weight) {
    std::vector<float> rows(static_cast<std::size_t>(s_.rows)), columns(static_cast<std::size_t>(s_.cols));
    factored_pass(pass, rows, columns);
    const auto w = static_cast<float>(weight);
    double total = 0;
    for (std::int64_t i = 0; i < s_.rows; ++i) {
      r[i] += w * (rows[static_cast<std::size_t>(i)] - r[i]);
      total += static_cast<double>(r[i]);
    }
    const auto mean = static_cast<float>(total / static_cast<double>(s_.rows));
    for (std::int64_t i = 0; i < s_.rows; ++i) row_[i] = 1.0f / std::sqrt(r[i] / mean);
    for (std::int64_t j = 0; j < s_.cols; ++j) {
      c[j] += w * (columns[static_cast<std::size_t>(j)] - c[j]);
      column_[j] = 1.0f / std::sqrt(c[j]);
    }
  }

  void add_squares(std::int64_t begin, std::int64_t end, double* sums) const {
    const RulesKernels& rules = rules_kernels();
    std::vector<float> held(static_cast<std::size_t>(s_.cols));
    for (std::int64_t i = begin; i < end; ++i) {
      const float* const g = spans_.load(gradient(), s_.tensor.grad_storage, i * s_.cols, s_.cols, held.data());
      sums[0] += rows_.squares(g, column_, s_.cols) * static_cast<double>(row_[i]) * static_cast<double>(row_[i]);
      if (s_.least_rms < 0) continue;
      const float* const p = spans_.load(advanced(s_.tensor.param, s_.tensor.param_storage), s_.tensor.param_storage,
                                         i * s_.cols, s_.cols, held.data());
      sums[1] += rules.sum_squares(p, s_.cols);
    }
  }

  void* advanced(void* data, Storage storage) const {
    return static_cast<char*>(data) + k_ * s_.rows * s_.cols * (storage == Storage::f32 ? 4 : 2);
  }
  void* gradient() const { return advanced(s_.tensor.grad, s_.tensor.grad_storage); }
  float* moment() const { return s_.m + k_ * s_.rows * s_.cols; }

  const FactoredStep& s_;
  const std::int64_t k_;
  const RowsKernels& rows_;
  const FloatSpans spans_;
  float *const row_, *const column_, *const r_, *const c_;
};

}  // namespace

void factored_step(const FactoredStep& s) {
  const std::int64_t numel = s.count * s.rows * s.cols;
  if (numel == 0) return;
  std::vector<float> rows(static_cast<std::size_t>(s.count * s.rows)),
      columns(static_cast<std::size_t>(s.count * s.cols));
  std::vector<Matrix> matrices;
  double updates = 0, params = 0;
  for (std::int64_t k = 0; k < s.count; ++k) {
    matrices.emplace_back(s, k, rows.data() + k * s.rows, columns.data() + k * s.cols);
    matrices.back().normalise(&updates, &params);
  }
  const auto size = static_cast<double>(numel);
  const double divisor = std::max(1.0, std::sqrt(updates / size) / s.clip);
  const double lr = s.least_rms < 0 ? s.lr : s.lr * std::max(s.least_rms, std::sqrt(params / size));
  for (Matrix& matrix : matrices) {
    if (s.m) matrix.confide(divisor);
    matrix.step(lr, s.m ? 1.0 : s.scale / divisor);
  }
}

}  // namespace gramcore::optim
