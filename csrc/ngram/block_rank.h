// How many suffixes of a sorted block are smaller than a suffix that stands right of it, taken symbol by symbol.
//
// If i suffixes of the block are smaller than suffix j + 1, then those smaller than suffix j are the ones with a
// smaller first symbol and, of those that begin with text[j], the ones whose remainder is among the first i: the
// occurrences of text[j] in the block's Burrows-Wheeler transform before i.
//
// Occurrences are kept as sorted lists, one per symbol, end to end.  They are searched as a tree that needs no room of
// its own: every kNode-th cell of the whole array is a cell of the level above, whatever lists they belong to.  A list
// is an interval on every level, so a search looks at one line of cache per level, and only the last two are far away.
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
      : last_(symbol(m - 1)), starts_(num_symbols + 1, 0) {
    for (std::uint32_t p = 0; p < m; ++p) ++starts_[symbol(p) + 1];
    for (std::size_t c = 0; c < num_symbols; ++c) starts_[c + 1] += starts_[c];
    // The last position precedes no suffix of the block: its symbol's list is shorter by one.
    for (std::size_t c = last_ + 1; c <= num_symbols; ++c) --starts_[c];
    std::vector<std::uint32_t> next(starts_.begin(), starts_.end() - 1);
    add_level(m);
    for (std::uint32_t r = 0; r < m; ++r) {
      if (sa[r] > 0) levels_[0][next[symbol(static_cast<std::uint32_t>(sa[r]) - 1)]++] = static_cast<Place>(r);
    }
    for (std::uint32_t cells = m; cells > kNode;) {
      const std::uint32_t above = (cells + kNode - 1) / kNode;
      add_level(above);
      const Place *const from = levels_[levels_.size() - 2].get(), *const end = from + cells;
      Place* to = levels_.back().get();
      for (const Place* cell = from; cell < end; cell += kNode) *to++ = *cell;
      cells = above;
    }
  }

  // A step in three parts, so that many walks can wait for memory together: `i` suffixes are smaller one symbol on.
  struct Step {
    std::size_t symbol;
    std::uint32_t i, node;
  };
  void begin(Step& s) const {
    Interval on[kMaxLevels];
    std::size_t level = 0;
    for (on[0] = list(s.symbol); on[level].begin < on[level].end; ++level) on[level + 1] = on[level].above();
    s.node = level > 0 ? on[level].begin - 1 : 0;
    while (level > 2) {
      --level;
      s.node = descend(level, on[level], s);
    }
    if (level == 2) __builtin_prefetch(levels_[1].get() + std::size_t{s.node} * kNode);
  }
  void go_on(Step& s) const {
    const Interval places = list(s.symbol), samples = places.above();
    if (places.begin < places.end && samples.begin < samples.end) s.node = descend(1, samples, s);
    __builtin_prefetch(levels_[0].get() + std::size_t{s.node} * kNode);
  }
  // Suffixes of the block that begin with s.symbol or less and are smaller; the block's last suffix is not counted.
  std::uint32_t finish(const Step& s) const {
    const Interval places = list(s.symbol);
    const std::uint32_t at = places.begin < places.end ? descend(0, places, s) + 1 : places.begin;
    return at + (s.symbol > last_);
  }

 private:
  using Place = std::int32_t;
  static constexpr std::uint32_t kNode = 16;  // cells of a node: a line of cache
  static constexpr std::size_t kMaxLevels = 10;
  static constexpr std::uint32_t kLanes = 4;
  typedef Place Cells __attribute__((vector_size(kLanes * sizeof(Place)), may_alias));

  // The cells of a list on one level.  On the level above are those that begin a node and are not the first here.
  struct Interval {
    std::uint32_t begin, end;
    Interval above() const { return {begin / kNode + 1, (end - 1) / kNode + 1}; }
  };
  Interval list(std::size_t symbol) const { return {starts_[symbol], starts_[symbol + 1]}; }
  void add_level(std::uint32_t cells) {
    const std::uint32_t whole = (cells + kNode - 1) / kNode * kNode;
    levels_.push_back(make_big_array<Place>(whole));
    std::fill(levels_.back().get() + cells, levels_.back().get() + whole, Place{0});
  }
  // The last cell of the interval that is below s.i, or the one before it: a node of the level below.
  std::uint32_t descend(std::size_t level, Interval in, const Step& s) const {
    const std::uint32_t first = s.node * kNode;
    const Place from = static_cast<Place>(std::max(in.begin, first) - first);
    const Place to = static_cast<Place>(std::min(in.end - first, kNode));
    const Cells* const cells = reinterpret_cast<const Cells*>(levels_[level].get() + first);
    const Cells i = Cells{} + static_cast<Place>(s.i), begin = Cells{} + from, end = Cells{} + to;
    Cells lane{0, 1, 2, 3}, found{};  // comparisons give -1 where they hold
    for (std::uint32_t k = 0; k < kNode / kLanes; ++k, lane += static_cast<Place>(kLanes)) {
      found += (cells[k] < i) & (lane >= begin) & (lane < end);
    }
    const Place below = -(found[0] + found[1] + found[2] + found[3]);
    return first + static_cast<std::uint32_t>(from + below) - 1;
  }

  std::size_t last_;                   // symbol of the block's last position
  std::vector<std::uint32_t> starts_;  // per symbol: the first of its places
  std::vector<BigArray<Place>> levels_;
};

}  // namespace gramcore::ngram
