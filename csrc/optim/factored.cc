#include "optim/factored.h"

#include <algorithm>
#include <vector>

#include "core/thread_pool.h"
#include "optim/float_spans.h"
#include "optim/kernels/rows.h"

namespace gramcore::optim {
namespace {

// Bands of rows of one matrix, at most this many: each has column sums of its own, added up in order.
constexpr std::int64_t kBands = 16;

class Pass {
 public:
  Pass(const FactoredPass& pass, Span<float> row_means) : p_(pass), row_means_(row_means), rows_(rows_kernels()) {}

  void run_band(std::int64_t matrix, std::int64_t begin, std::int64_t end, float* sums) const {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = matrix * p_.rows + i;
      double total = 0;
      for (std::int64_t j = 0; j < p_.cols; j += kBlock) {
        total += run_span(matrix, row, j, std::min(kBlock, p_.cols - j), sums);
      }
      row_means_[static_cast<std::size_t>(row)] = static_cast<float>(total / static_cast<double>(p_.cols));
    }
  }

 private:
  double run_span(std::int64_t matrix, std::int64_t row, std::int64_t j, std::int64_t n, float* sums) const {
    alignas(64) float buffer[kBlock];
    RowSpan span{};
    const std::int64_t at = row * p_.cols + j;
    span.x = spans_.load(p_.x, p_.x_storage, at, n, buffer);
    span.column = p_.column ? p_.column + matrix * p_.cols + j : nullptr;
    span.m = p_.m ? p_.m + at : nullptr;
    span.sums = sums + j;
    span.n = n;
    span.factor = p_.row ? p_.scale * p_.row[row] : p_.scale;
    span.weight = p_.weight;
    span.eps = p_.eps;
    span.residual = p_.residual;
    return rows_.fold(span);
  }

  const FactoredPass& p_;
  Span<float> row_means_;
  const RowsKernels& rows_;
  const FloatSpans spans_;
};

}  // namespace

void factored_pass(const FactoredPass& pass, Span<float> row_means, Span<float> column_means) {
  const std::int64_t height = std::max<std::int64_t>(1, (pass.rows + kBands - 1) / kBands);
  const std::int64_t bands = (pass.rows + height - 1) / height;
  std::vector<float> sums(static_cast<std::size_t>(pass.count * bands * pass.cols));
  const Pass runner(pass, row_means);
  parallel_chunks(pass.count * bands, [&](std::int64_t task) {
    const std::int64_t matrix = task / bands, begin = task % bands * height;
    runner.run_band(matrix, begin, std::min(begin + height, pass.rows), sums.data() + task * pass.cols);
  });
  for (std::int64_t k = 0; k < pass.count; ++k) {
    for (std::int64_t j = 0; j < pass.cols; ++j) {
      double total = 0;
      for (std::int64_t b = 0; b < bands; ++b) {
        total += static_cast<double>(sums[static_cast<std::size_t>((k * bands + b) * pass.cols + j)]);
      }
      column_means[static_cast<std::size_t>(k * pass.cols + j)] =
          static_cast<float>(total / static_cast<double>(pass.rows));
    }
  }
}

double scaled_squares(const FactoredPass& p) {
  const RowsKernels& rows = rows_kernels();
  const RulesKernels& rules = rules_kernels();
  const FloatSpans spans;
  const std::int64_t all = p.count * p.rows,
                     height = std::max<std::int64_t>(1, kChunk / std::max<std::int64_t>(1, p.cols));
  std::vector<double> parts(static_cast<std::size_t>((all + height - 1) / height));
  parallel_chunks(static_cast<std::int64_t>(parts.size()), [&](std::int64_t band) {
    std::vector<float> held(static_cast<std::size_t>(p.cols));
    for (std::int64_t i = band * height; i < std::min(all, (band + 1) * height); ++i) {
      const float* const x = spans.load(p.x, p.x_storage, i * p.cols, p.cols, held.data());
      const float* const column = p.column ? p.column + i / p.rows * p.cols : nullptr;
      const double factor = static_cast<double>(p.row ? p.scale * p.row[i] : p.scale);
      const double squares = column ? rows.squares(x, column, p.cols) : rules.sum_squares(x, p.cols);
      parts[static_cast<std::size_t>(band)] += squares * factor * factor;
    }
  });
  double total = 0;
  for (const double part : parts) total += part;
  return total;
}

double project_line(const LineProjection& p, float* result) {
  const RowsKernels& kernels = rows_kernels();
  const FloatSpans spans;
  const std::int64_t height = std::max<std::int64_t>(1, (p.rows + kBands - 1) / kBands);
  const std::int64_t bands = (p.rows + height - 1) / height;
  const std::int64_t width = p.along_rows ? 0 : p.cols;
  std::vector<float> sums(static_cast<std::size_t>(bands * width));
  std::vector<double> squares(static_cast<std::size_t>(bands));
  parallel_chunks(bands, [&](std::int64_t band) {
    double& square = squares[static_cast<std::size_t>(band)];
    alignas(64) float buffer[kBlock];
    for (std::int64_t i = band * height; i < std::min(p.rows, (band + 1) * height); ++i) {
      double total = 0;
      for (std::int64_t j = 0; j < p.cols; j += kBlock) {
        const std::int64_t n = std::min(kBlock, p.cols - j);
        const float* const x = spans.load(p.x, p.x_storage, i * p.cols + j, n, buffer);
        if (p.along_rows) {
          total += kernels.dot(x, p.weights + j, n, &square);
        } else {
          square += kernels.accumulate(x, p.weights[i], sums.data() + band * width + j, n);
        }
      }
      if (p.along_rows) result[i] = static_cast<float>(total);
    }
  });
  for (std::int64_t j = 0; j < width; ++j) {
    double total = 0;
    for (std::int64_t b = 0; b < bands; ++b)
      total += static_cast<double>(sums[static_cast<std::size_t>(b * width + j)]);
    result[j] = static_cast<float>(total);
  }
  double total = 0;
  for (const double square : squares) total += square;
  return total;
}

}  // namespace gramcore::optim
