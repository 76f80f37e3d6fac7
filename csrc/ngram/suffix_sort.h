// Suffix sorting in linear time whatever the repetitions.  The suffixes that begin where an ascent follows a descent
// ("LMS") are sorted among themselves, the others induced from them (Ko & Aluru 2003; Nong, Zhang & Chan 2009).  LMS
// suffixes are first compared directly over a bounded stretch (PrefixSort).  Those that still agree with a neighbour
// become symbols of a shorter text, which is sorted the same way: what they begin with, in the order of the text, each
// run closed by a suffix that agrees with none, since no comparison gets past it.
//
// During induction an entry of `sa` is a position, or its complement when the scan in progress must not induce from it:
// the type of the position's predecessor is decided when the entry is written, while its neighbour in the text is still
// in cache.  Position 0 has no predecessor, so 0 also serves as "empty".
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/bitset.h"
#include "core/check.h"
#include "ngram/big_array.h"
#include "ngram/prefix_sort.h"

namespace gramcore::ngram {

template <class Char, class Int>
class SuffixSort {
 public:
  static constexpr Int kSpare = 16;  // cells of text (zeros) and of sa (scratch) behind the n of each

  // Sorts text[0, n) over symbols [1, k] into sa[0, n).
  static void sort(const Char* text, Int* sa, Int n, Int k, Int large_group = PrefixSort<Char, Int>::kLargeGroup) {
    if (n == 0) return;
    if (n == 1) {
      sa[0] = 0;
      return;
    }
    SuffixSort(text, sa, n, k, large_group).run();
  }

 private:
  static constexpr Int kAhead = 24;  // entries between prefetching the text, the bucket cell, and the use

  SuffixSort(const Char* text, Int* sa, Int n, Int k, Int large_group)
      : text_(text), sa_(sa), n_(n), k_(k), large_group_(large_group), cursors_(static_cast<std::size_t>(k) + 2) {}

  std::size_t at(Int i) const { return static_cast<std::size_t>(text_[i]); }

  // fn(position) for every LMS position, right to left.  They are collected without a branch, which would often be
  // predicted wrongly.
  template <class F>
  void for_each_lms(F&& fn) const {
    constexpr Int kBlock = 512;
    Int block[kBlock + 1];
    Char next = text_[n_ - 1];
    Int next_is_s = 0;  // type of position i + 1; the last position is L
    for (Int i = n_ - 2; i >= 0;) {
      Int found = 0;
      for (const Int stop = std::max<Int>(i - kBlock, -1); i > stop; --i) {
        const Char c = text_[i];
        const Int is_s = (c < next) | ((c == next) & next_is_s);
        block[found] = i + 1;
        found += next_is_s & ~is_s;
        next = c, next_is_s = is_s;
      }
      for (Int j = 0; j < found; ++j) fn(block[j]);
    }
  }

  void run() {
    const Int m = sort_lms();
    counts_.assign(static_cast<std::size_t>(k_) + 1, 0);
    for (Int i = 0; i < n_; ++i) ++counts_[at(i)];
    place_lms(m);
    induce();
  }

  // Leaves the LMS suffixes, sorted, in sa[0, m); returns m.
  Int sort_lms() {
    for_each_lms([&](Int p) { ++cursors_[at(p) + 1]; });
    std::vector<typename PrefixSort<Char, Int>::Group> groups;
    for (std::size_t c = 1; c < cursors_.size(); ++c) {
      const Int low = cursors_[c - 1], high = cursors_[c] += low;
      if (high - low > 1) groups.push_back({low, high, 1, 0});
    }
    const Int m = cursors_.back();
    for_each_lms([&](Int p) { sa_[cursors_[at(p)]++] = p; });
    PrefixSort<Char, Int>(text_, sa_, m, k_, large_group_).run(std::move(groups));
    if (std::any_of(sa_, sa_ + m, [](Int x) { return x < 0; })) sort_ties(m);
    return m;
  }

  // The shorter text, read from the right: which LMS suffixes are its symbols, and which of those agree with others.
  struct Ties {
    Bitset kept, tied;
  };
  bool is_tied(Int i, Int m) const { return sa_[i] < 0 || (i + 1 < m && sa_[i + 1] < 0); }

  // Orders the suffixes of sa[0, m) that agree with a neighbour.
  void sort_ties(Int m) {
    Int k = 0;
    Ties ties{Bitset(static_cast<std::size_t>(m)), Bitset(static_cast<std::size_t>(m))};
    Int* const end = sa_ + n_;  // the spare cells behind are the shorter text's
    Int* const text = write_shorter_text(m, end, &ties, &k);
    const Int n = static_cast<Int>(end - text);
    std::fill(end, end + kSpare, Int{0});
    BigArray<Int> own;
    Int* sorted = sa_ + m;
    if (text - sorted < n + kSpare) {
      own = make_big_array<Int>(static_cast<std::size_t>(n + kSpare));
      sorted = own.get();
    }
    SuffixSort<Int, Int>::sort(text, sorted, n, k, large_group_);
    Int* symbol = end;
    std::size_t lms = 0;
    for_each_lms([&](Int p) {
      if (!ties.kept.test(lms++)) return;
      const bool tied = ties.tied.test(static_cast<std::size_t>(end - symbol));
      *--symbol = tied ? p : 0;
    });
    Int cell = 0;
    for (Int i = 0; i < n; ++i) {
      if (i + kAhead < n) __builtin_prefetch(text + sorted[i + kAhead]);
      const Int p = text[sorted[i]];
      if (p == 0) continue;
      while (!is_tied(cell, m)) ++cell;
      sa_[cell++] = p;
    }
  }
  // Writes the shorter text so that it ends at `end`, over symbols [1, k]; returns its first cell.
  Int* write_shorter_text(Int m, Int* end, Ties* ties, Int* k) {
    // The rank of each suffix among what they begin with, complemented where others share it, by position / 2: LMS
    // positions are at least two apart.
    Int* const rank_at = sa_ + m;
    for (Int i = 0, rank = 0; i < m; ++i) {
      if (i + kAhead < m) __builtin_prefetch(rank_at + std::max(sa_[i + kAhead], ~sa_[i + kAhead]) / 2, 1);
      if (sa_[i] >= 0) rank = i;
      rank_at[std::max(sa_[i], ~sa_[i]) / 2] = is_tied(i, m) ? ~rank : rank;
    }
    Bitset ranks(static_cast<std::size_t>(m));
    std::size_t lms = 0, kept = 0;
    Int right = 0;  // rank_at of the LMS position to the right
    const auto add = [&](bool keep) {
      ties->kept.mutable_words()[lms / 64] |= std::uint64_t{keep} << lms % 64;
      ties->tied.mutable_words()[kept / 64] |= std::uint64_t{keep && right < 0} << kept % 64;
      const Int rank = std::max(right, ~right);
      if (keep) ranks.set(static_cast<std::size_t>(rank));
      // Never over a cell yet to be read: each cell read is at least two positions wide.
      if (keep) *(end - ++kept) = rank;
      ++lms;
    };
    bool first = true;
    for_each_lms([&](Int p) {
      const Int here = rank_at[p / 2];
      if (!first) add(right < 0 || here < 0);
      first = false;
      right = here;
    });
    add(right < 0);
    return number_densely(end - kept, end, ranks, k);
  }
  // Renumbers the ranks from 1.
  static Int* number_densely(Int* begin, Int* end, const Bitset& ranks, Int* k) {
    const auto words = ranks.words();
    std::vector<Int> before(words.size());
    Int sum = 0;
    for (std::size_t w = 0; w < words.size(); ++w) {
      before[w] = sum;
      sum += static_cast<Int>(__builtin_popcountll(words[w]));
    }
    for (Int* x = begin; x < end; ++x) {
      const auto r = static_cast<std::size_t>(*x);
      *x = before[r / 64] + static_cast<Int>(__builtin_popcountll(words[r / 64] & ((1ull << r % 64) - 1))) + 1;
    }
    *k = sum;
    return begin;
  }

  void starts() {
    Int sum = 0;
    for (std::size_t c = 0; c < counts_.size(); ++c) cursors_[c] = sum, sum += counts_[c];
  }
  void ends() {
    Int sum = 0;
    for (std::size_t c = 0; c < counts_.size(); ++c) cursors_[c] = sum += counts_[c];
  }

  // Moves the sorted LMS suffixes to the ends of their buckets, everything else empty.
  void place_lms(Int m) {
    ends();
    Int filled = n_;
    for (Int i = m - 1; i >= 0; --i) {
      if (i >= kAhead) __builtin_prefetch(text_ + sa_[i - kAhead]);
      const Int p = sa_[i];
      const Int cell = --cursors_[at(p)];
      std::fill(sa_ + cell + 1, sa_ + filled, Int{0});
      sa_[cell] = p;
      filled = cell;
    }
    std::fill(sa_, sa_ + filled, Int{0});
  }

  void induce() {
    starts();
    const Int last = n_ - 1;
    sa_[cursors_[at(last)]++] = text_[last - 1] < text_[last] ? ~last : last;
    for (Int i = 0; i < n_; ++i) {
      look_ahead(i + 2 * kAhead, i + kAhead);
      const Int j = sa_[i];
      sa_[i] = ~j;
      if (j > 0) put<true>(j - 1);
    }
    ends();
    for (Int i = n_ - 1; i >= 0; --i) {
      look_ahead(i - 2 * kAhead, i - kAhead);
      const Int j = sa_[i];
      if (j > 0) {
        put<false>(j - 1);
      } else {
        sa_[i] = ~j;
      }
    }
  }
  // First the text at a coming entry is prefetched, then the cell it will be written to.
  void look_ahead(Int text_at, Int cell_at) const {
    if (text_at >= 0 && text_at < n_) {
      const Int j = sa_[text_at];
      __builtin_prefetch(text_ + (j > 1 ? j - 2 : 0));
    }
    if (cell_at >= 0 && cell_at < n_) {
      const Int j = sa_[cell_at];
      if (j > 1) __builtin_prefetch(sa_ + std::min(cursors_[at(j - 1)], n_ - 1), 1);
    }
  }
  // Places suffix p in its bucket, complemented when this scan must not induce from it.
  template <bool kForward>
  void put(Int p) {
    const Char c = text_[p];
    Int& cursor = cursors_[static_cast<std::size_t>(c)];
    if (kForward) {
      sa_[cursor++] = p > 0 && text_[p - 1] < c ? ~p : p;
    } else {
      sa_[--cursor] = p == 0 || text_[p - 1] > c ? ~p : p;
    }
  }

  const Char* text_;
  Int* sa_;
  Int n_, k_, large_group_;
  std::vector<Int> cursors_, counts_;  // by symbol
};

}  // namespace gramcore::ngram
