// Second moments in rank-1 storage: blocks in and out, and the maxima that a step will need, found before it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>
#include <vector>

#include "optim/kernels/rank1.h"

namespace gramcore::optim {

// Largest values of the rows and of the columns of a matrix in memory order.
struct Rank1Scales {
  float* rows;
  float* columns;
  std::int64_t cols;
};

// Calls fn(row, column, offset, count) for the stretches of rows that elements [i, i + n) are made of.
template <class F>
void each_row(std::int64_t cols, std::int64_t i, std::int64_t n, F&& fn) {
  std::int64_t row = i / cols, j = i % cols;
  for (std::int64_t k = 0; k < n;) {
    const std::int64_t count = std::min(n - k, cols - j);
    fn(row++, j, k, count);
    k += count;
    j = 0;
  }
}

class Rank1 {
 public:
  Rank1() : kernels_(rank1_kernels()) {}

  // `i`, the first element, is even; `codes` are those of the whole matrix.
  void load(const std::uint8_t* codes, const Rank1Scales& s, std::int64_t i, float* to, std::int64_t n) const {
    kernels_.decode(codes + i / 2, to, n);
    each_row(s.cols, i, n, [&](std::int64_t row, std::int64_t j, std::int64_t k, std::int64_t count) {
      kernels_.multiply(s.columns + j, s.rows[row], to + k, count);
    });
  }
  // Divides `from` in place.
  void store(float* from, std::uint8_t* codes, const Rank1Scales& s, std::int64_t i, std::int64_t n) const {
    each_row(s.cols, i, n, [&](std::int64_t row, std::int64_t j, std::int64_t k, std::int64_t count) {
      kernels_.divide(s.columns + j, s.rows[row], from + k, count);
    });
    kernels_.encode(from, codes + i / 2, n);
  }
  const Rank1Kernels& kernels() const { return kernels_; }

 private:
  const Rank1Kernels& kernels_;
};

// Maxima over the elements of one task, then merged into those of the matrix: the order does not matter.
class Rank1Maxima {
 public:
  Rank1Maxima(const Rank1& rank1, const Rank1Scales& all, std::int64_t begin, std::int64_t end)
      : kernels_(rank1.kernels()),
        all_(all),
        first_(begin / all.cols),
        rows_(static_cast<std::size_t>((end - 1) / all.cols - first_ + 1)),
        columns_(static_cast<std::size_t>(all.cols)) {}

  void add(const float* x, std::int64_t i, std::int64_t n) {
    each_row(all_.cols, i, n, [&](std::int64_t row, std::int64_t j, std::int64_t k, std::int64_t count) {
      float& largest = rows_[static_cast<std::size_t>(row - first_)];
      largest = std::max(largest, kernels_.maxima(x + k, columns_.data() + j, count));
    });
  }
  void merge(std::mutex& mutex) const {
    const std::lock_guard<std::mutex> lock(mutex);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      float& largest = all_.rows[first_ + static_cast<std::int64_t>(i)];
      largest = std::max(largest, rows_[i]);
    }
    for (std::size_t j = 0; j < columns_.size(); ++j) all_.columns[j] = std::max(all_.columns[j], columns_[j]);
  }

 private:
  const Rank1Kernels& kernels_;
  const Rank1Scales& all_;
  std::int64_t first_;
  std::vector<float> rows_, columns_;
};

}  // namespace gramcore::optim
