#include "optim/factored.h"

#include <algorithm>
#include <vector>

#include "core/thread_pool.h"
#include "optim/kernels/codecs.h"
#include "optim/kernels/rows.h"

namespace gramcore::optim {
namespace {

// Bands of rows of one matrix, at most this many: each has column sums of its own, added up in order.
constexpr std::int64_t kBands = 16;

class Pass {
 public:
  Pass(const FactoredPass& pass, Span<float> row_means)
      : p_(pass), row_means_(row_means), rows_(rows_kernels()), codecs_(codecs_kernels()) {}

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
    span.x = load(at, n, buffer);
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

  const float* load(std::int64_t at, std::int64_t n, float* buffer) const {
    if (p_.x_storage == Storage::f32) return static_cast<const float*>(p_.x) + at;
    const auto convert = p_.x_storage == Storage::bf16 ? codecs_.load_bf16 : codecs_.load_f16;
    convert(static_cast<const std::uint16_t*>(p_.x) + at, buffer, n);
    return buffer;
  }

  const FactoredPass& p_;
  Span<float> row_means_;
  const RowsKernels& rows_;
  const CodecsKernels& codecs_;
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

}  // namespace gramcore::optim
