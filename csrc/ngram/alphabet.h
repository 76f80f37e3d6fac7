// Dense ranks, in file order, of the distinct tokens of a text.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/span.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {

template <class T>
class Alphabet {
 public:
  explicit Alphabet(Span<const T> tokens) {
    std::vector<bool> seen(table_size(tokens), false);
    std::vector<T> others;
    for (const T t : tokens) {
      if (t < seen.size()) {
        seen[t] = true;
      } else if (others.empty() || others.back() != t) {
        others.push_back(t);
        if (others.size() >= (std::size_t{1} << 20) && others.size() == others.capacity()) unique(others);
      }
    }
    unique(others);
    for (std::size_t t = 0; t < seen.size(); ++t) {
      if (seen[t]) symbols_.push_back(static_cast<T>(t));
    }
    symbols_.insert(symbols_.end(), others.begin(), others.end());
    std::sort(symbols_.begin(), symbols_.end(), [](T a, T b) { return rank_order(a) < rank_order(b); });
    ranks_.assign(seen.size(), 0);
    for (std::size_t r = 0; r < symbols_.size(); ++r) {
      if (symbols_[r] < ranks_.size()) ranks_[symbols_[r]] = static_cast<std::uint32_t>(r);
    }
  }
  std::size_t size() const { return symbols_.size(); }
  std::uint32_t rank(T t) const {
    if (t < ranks_.size()) return ranks_[t];
    const auto at =
        std::lower_bound(symbols_.begin(), symbols_.end(), t, [](T a, T b) { return rank_order(a) < rank_order(b); });
    return static_cast<std::uint32_t>(at - symbols_.begin());
  }

 private:
  static constexpr std::uint32_t kTableIds = 1u << 24;  // ids below are ranked by a table, others by binary search

  static std::size_t table_size(Span<const T> tokens) {
    std::uint32_t most = 0;
    for (const T t : tokens) {
      if (t < kTableIds && t > most) most = t;
    }
    return std::size_t{most} + 1;
  }
  static void unique(std::vector<T>& v) {
    std::sort(v.begin(), v.end());
    v.erase(std::unique(v.begin(), v.end()), v.end());
  }
  std::vector<T> symbols_;
  std::vector<std::uint32_t> ranks_;
};

}  // namespace gramcore::ngram
