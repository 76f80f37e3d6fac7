// How many suffixes of a sorted block are smaller than a suffix that stands right of it, taken symbol by symbol.
//
// If i suffixes of the block are smaller than suffix j + 1, then those smaller than suffix j are the ones with a
// smaller first symbol and, of those that begin with text[j], the ones whose remainder is among the first i: the
// occurrences of text[j] in the block's Burrows-Wheeler transform before i.  Occurrences are kept as sorted lists, one
// per symbol, with a coarse table into each long list, so a step touches two cache lines.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "ngram/big_array.h"

namespace gramcore::ngram {

class BlockRank {
 public:
  // sa[0, m): the block's suffixes in order, relative to its begin; symbol(p): the text there, in [0, num_symbols).
  template <class Symbol>
  BlockRank(const std::int32_t* sa, std::uint32_t m, std::size_t num_symbols, Symbol&& symbol)
      : starts_(num_symbols + 1, 0),
        smaller_(num_symbols + 1, 0),
        tables_(num_symbols),
        places_(make_big_array<Place>(m)) {
    for (std::uint32_t p = 0; p < m; ++p) ++smaller_[symbol(p) + 1];
    for (std::size_t c = 0; c < num_symbols; ++c) smaller_[c + 1] += smaller_[c];
    starts_ = smaller_;  // the last position precedes no suffix of the block: its list has one place too many
    const std::size_t last = symbol(m - 1);
    for (std::size_t c = last + 1; c <= num_symbols; ++c) --starts_[c];
    std::vector<std::uint32_t> next(starts_.begin(), starts_.end() - 1);
    for (std::uint32_t r = 0; r < m; ++r) {
      if (sa[r] > 0) places_[next[symbol(static_cast<std::uint32_t>(sa[r]) - 1)]++] = r;
    }
    std::size_t cells = 0;
    for (std::size_t c = 0; c < num_symbols; ++c) {
      Table& t = tables_[c];
      const std::uint32_t f = starts_[c + 1] - starts_[c];
      t.shift = 32;
      if (f > 2 * kRun) {
        for (t.shift = 0; (m >> t.shift) > f / kRun; ++t.shift) {
        }
        t.first = cells;
        cells += (m >> t.shift) + 2;
      }
    }
    cells_ = make_big_array<Place>(cells);
    for (std::size_t c = 0; c < num_symbols; ++c) {
      const Table& t = tables_[c];
      if (t.shift == 32) continue;
      std::uint32_t at = starts_[c];
      for (std::uint32_t b = 0; b <= (m >> t.shift) + 1; ++b) {
        while (at < starts_[c + 1] && places_[at] >> t.shift < b) ++at;
        cells_[t.first + b] = at;
      }
    }
  }

  // A step in three parts, so that many walks can wait for memory together.
  struct Step {
    std::size_t symbol;
    std::uint32_t i, low, high;
  };
  void touch_table(const Step& s) const {
    const Table& t = tables_[s.symbol];
    if (t.shift != 32) __builtin_prefetch(&cells_[t.first + (s.i >> t.shift)]);
  }
  void touch_places(Step& s) const {
    const Table& t = tables_[s.symbol];
    if (t.shift == 32) {
      s.low = starts_[s.symbol], s.high = starts_[s.symbol + 1];
    } else {
      const Place* cell = &cells_[t.first + (s.i >> t.shift)];
      s.low = cell[0], s.high = cell[1];
    }
    __builtin_prefetch(&places_[s.low]);
  }
  // Suffixes of the block that begin with s.symbol or less and are smaller; the block's last suffix is not counted.
  std::uint32_t finish(const Step& s) const {
    const std::uint32_t at =
        static_cast<std::uint32_t>(std::lower_bound(&places_[s.low], &places_[s.high], s.i) - places_.get());
    return smaller_[s.symbol] + (at - starts_[s.symbol]);
  }

 private:
  using Place = std::uint32_t;
  static constexpr std::uint32_t kRun = 4;  // places per cell of a table, about
  struct Table {
    std::size_t first = 0;
    unsigned shift = 32;  // 32: no table
  };
  std::vector<std::uint32_t> starts_,
      smaller_;  // per symbol: first of its places; suffixes with a smaller first symbol
  std::vector<Table> tables_;
  BigArray<Place> places_, cells_;
};

}  // namespace gramcore::ngram
