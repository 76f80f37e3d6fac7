// Compressed sparse rows: `offsets` has rows()+1 ascending entries, row r is values[offsets[r], offsets[r+1]).
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "core/span.h"

namespace gramcore {

template <class T, class Offset = std::uint32_t>
class Csr {
 public:
  Csr() : offsets_{0} {}

  std::size_t rows() const { return offsets_.size() - 1; }
  std::size_t num_values() const { return values_.size(); }
  Span<const T> row(std::size_t r) const {
    GC_DCHECK(r < rows());
    return {values_.data() + offsets_[r], static_cast<std::size_t>(offsets_[r + 1] - offsets_[r])};
  }

  // Building in row order: push values, then close the row.
  void push(T value) { values_.push_back(std::move(value)); }
  void close_row() { offsets_.push_back(static_cast<Offset>(values_.size())); }

  // Building from unordered (row, value) pairs by counting sort; stable within a row.
  static Csr from_pairs(std::size_t num_rows, Span<const std::pair<std::uint32_t, T>> pairs) {
    Csr csr;
    csr.offsets_.assign(num_rows + 1, 0);
    for (const auto& p : pairs) {
      GC_CHECK(p.first < num_rows, "row must be < ", num_rows, ", got ", p.first);
      ++csr.offsets_[p.first + 1];
    }
    for (std::size_t r = 0; r < num_rows; ++r) csr.offsets_[r + 1] += csr.offsets_[r];
    std::vector<Offset> cursor(csr.offsets_.begin(), csr.offsets_.end() - 1);
    csr.values_.resize(pairs.size());
    for (const auto& p : pairs) csr.values_[cursor[p.first]++] = p.second;
    return csr;
  }

 private:
  std::vector<Offset> offsets_;
  std::vector<T> values_;
};

}  // namespace gramcore
