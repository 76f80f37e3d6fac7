// Suffix sorting in linear time whatever the repetitions.  The suffixes that begin where an ascent follows a descent
// ("LMS") are sorted among themselves, the others induced from them (Ko & Aluru 2003; Nong, Zhang & Chan 2009).  LMS
// suffixes are first compared directly over a bounded stretch (PrefixSort).  Those that still agree with a neighbour
// become symbols of a shorter text, which is sorted the same way: what they begin with, in the order of the text, each
// run closed by a suffix that agrees with none, since no comparison gets past it.  Then all suffixes are induced
// (induction.h).
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "core/bitset.h"
#include "core/check.h"
#include "core/thread_pool.h"
#include "ngram/big_array.h"
#include "ngram/induction.h"
#include "ngram/prefix_sort.h"

namespace gramcore::ngram {

template <class Char, class Int>
class SuffixSort {
 public:
  static constexpr Int kSpare = 16;  // cells of text (zeros) and of sa (scratch) behind the n of each

  // Sizes from which work is done otherwise; smaller in tests.
  struct Sizes {
    Int large_group = PrefixSort<Char, Int>::kLargeGroup;
    Int block = Induction<Char, Int>::kBlock;
    Int piece = Int{1} << 20;  // positions that are worth a thread
  };

  // Sorts text[0, n) over symbols [1, k] into sa[0, n).
  static void sort(const Char* text, Int* sa, Int n, Int k) { sort(text, sa, n, k, Sizes{}); }
  static void sort(const Char* text, Int* sa, Int n, Int k, Sizes sizes) {
    if (n == 0) return;
    if (n == 1) {
      sa[0] = 0;
      return;
    }
    SuffixSort(text, sa, n, k, sizes).run();
  }

 private:
  static constexpr Int kAhead = 24;  // entries between prefetching what is read next and its use

  SuffixSort(const Char* text, Int* sa, Int n, Int k, Sizes sizes)
      : text_(text), sa_(sa), n_(n), k_(k), sizes_(sizes), cursors_(static_cast<std::size_t>(k) + 2) {}

  std::size_t at(Int i) const { return static_cast<std::size_t>(text_[i]); }

  // Whether suffix i begins an ascent: it is smaller than suffix i + 1.  The last is not.
  Int is_s(Int i) const {
    Int j = i + 1;
    while (j < n_ && text_[j] == text_[i]) ++j;
    return j < n_ && text_[i] < text_[j];
  }
  // fn(position) for the LMS positions in (low, high], right to left.  They are collected without a branch, which
  // would often be predicted wrongly.
  template <class F>
  void for_each_lms(Int low, Int high, F&& fn) const {
    constexpr Int kBlock = 512;
    Int block[kBlock + 1];
    Char next = text_[high];
    Int next_is_s = is_s(high);  // type of position i + 1
    for (Int i = high - 1; i >= low;) {
      Int found = 0;
      for (const Int stop = std::max<Int>(i - kBlock, low - 1); i > stop; --i) {
        const Char c = text_[i];
        const Int is_s = (c < next) | ((c == next) & next_is_s);
        block[found] = i + 1;
        found += next_is_s & ~is_s;
        next = c, next_is_s = is_s;
      }
      for (Int j = 0; j < found; ++j) fn(block[j]);
    }
  }
  template <class F>
  void for_each_lms(F&& fn) const {
    for_each_lms(0, n_ - 1, fn);
  }

  void run() {
    sort_lms();
    count_symbols();
    place_lms();
    Induction<Char, Int>(text_, sa_, n_, counts_, cursors_, sizes_.block).run();
  }

  // Leaves the m LMS suffixes, sorted, in sa[0, m), cursors_[c] behind those that begin with c.
  void sort_lms() {
    collect_lms();
    std::vector<typename PrefixSort<Char, Int>::Group> groups;
    for (std::size_t c = 1; c < cursors_.size(); ++c) {
      const Int low = cursors_[c - 1], high = cursors_[c];
      if (high - low > 1) groups.push_back({low, high, 1, 0});
    }
    const Int m = cursors_.back();
    PrefixSort<Char, Int>(text_, sa_, m, k_, sizes_.large_group).run(std::move(groups));
    if (std::any_of(sa_, sa_ + m, [](Int x) { return x < 0; })) sort_ties(m);
  }

  // Work over [0, n) in pieces, each with counts of symbols of its own, which stay small beside the text.
  struct Piece {
    Int low, high;
    std::vector<Int> counts;
  };
  std::vector<Piece> pieces(Int n) const {
    const Int useful = std::min(n_ / sizes_.piece, n_ / 64 / k_);
    const Int number = std::clamp<Int>(useful, 1, static_cast<Int>(num_threads())), each = (n + number - 1) / number;
    std::vector<Piece> found;
    for (Int low = 0; low < n; low += each) {
      found.push_back({low, std::min(n, low + each), std::vector<Int>(cursors_.size(), 0)});
    }
    return found;
  }
  template <class F>
  static void for_each_piece(std::vector<Piece>& pieces, F&& fn) {
    parallel_chunks(static_cast<std::int64_t>(pieces.size()),
                    [&](std::int64_t i) { fn(pieces[static_cast<std::size_t>(i)]); });
  }

  // Sorts the LMS suffixes by their first symbols into sa[0, m); cursors_[c]: behind those that begin with c.
  void collect_lms() {
    auto found = pieces(n_ - 1);
    for_each_piece(found, [&](Piece& piece) {
      Int* const counts = piece.counts.data();
      for_each_lms(piece.low, piece.high, [&](Int p) { ++counts[at(p)]; });
    });
    Int sum = 0;
    for (std::size_t c = 0; c < cursors_.size(); ++c) {
      for (Piece& piece : found) sum += std::exchange(piece.counts[c], sum);
      cursors_[c] = sum;
    }
    for_each_piece(found, [&](Piece& piece) {
      Int* const cursors = piece.counts.data();
      for_each_lms(piece.low, piece.high, [&](Int p) { sa_[cursors[at(p)]++] = p; });
    });
  }
  void count_symbols() {
    auto found = pieces(n_);
    for_each_piece(found, [&](Piece& piece) {
      Int* const counts = piece.counts.data();
      for (Int i = piece.low; i < piece.high; ++i) ++counts[at(i)];
    });
    counts_.assign(static_cast<std::size_t>(k_) + 1, 0);
    for (const Piece& piece : found) {
      for (std::size_t c = 0; c < counts_.size(); ++c) counts_[c] += piece.counts[c];
    }
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
    SuffixSort<Int, Int>::sort(text, sorted, n, k, {sizes_.large_group, sizes_.block, sizes_.piece});
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
    parallel_for(m, sizes_.piece, [&](std::int64_t begin, std::int64_t end) {
      Int rank = static_cast<Int>(begin);
      while (sa_[rank] < 0) --rank;
      for (Int i = static_cast<Int>(begin); i < static_cast<Int>(end); ++i) {
        if (i + kAhead < m) __builtin_prefetch(rank_at + std::max(sa_[i + kAhead], ~sa_[i + kAhead]) / 2, 1);
        if (sa_[i] >= 0) rank = i;
        rank_at[std::max(sa_[i], ~sa_[i]) / 2] = is_tied(i, m) ? ~rank : rank;
      }
    });
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

  // Moves the sorted LMS suffixes to the ends of their buckets, everything else empty.
  void place_lms() {
    Int end = n_;  // of the bucket
    for (std::size_t c = counts_.size() - 1; c > 0; --c) {
      const Int begin = end - counts_[c], first = cursors_[c - 1], cell = end - (cursors_[c] - first);
      std::memmove(sa_ + cell, sa_ + first, static_cast<std::size_t>(end - cell) * sizeof(Int));
      std::fill(sa_ + begin, sa_ + cell, Int{0});
      end = begin;
    }
  }

  const Char* text_;
  Int* sa_;
  Int n_, k_;
  Sizes sizes_;
  std::vector<Int> cursors_, counts_;  // by symbol
};

}  // namespace gramcore::ngram
