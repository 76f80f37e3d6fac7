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

#include "core/check.h"
#include "core/thread_pool.h"
#include "ngram/big_array.h"
#include "ngram/induction.h"
#include "ngram/lms.h"
#include "ngram/prefix_sort.h"
#include "ngram/ties.h"

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

  // Sorts text[0, n) over symbols [1, k] into sa[0, n).  While it does, watch.done(low, high) says that those ranks are
  // final: once for every rank, from any thread, several at once; watch.reached(part) how much of the time is over, in
  // [0, 1], from the thread that called.
  template <class Watch>
  static void sort(const Char* text, Int* sa, Int n, Int k, Sizes sizes, const Watch& watch) {
    if (n > 1) return SuffixSort(text, sa, n, k, sizes).run(watch);
    if (n == 0) return;
    sa[0] = 0;
    watch.done(Int{0}, n);
  }
  struct Nobody {
    void done(Int, Int) const {}
    void reached(double) const {}
  };
  static void sort(const Char* text, Int* sa, Int n, Int k, Sizes sizes) { sort(text, sa, n, k, sizes, Nobody{}); }
  static void sort(const Char* text, Int* sa, Int n, Int k) { sort(text, sa, n, k, Sizes{}); }

 private:
  SuffixSort(const Char* text, Int* sa, Int n, Int k, Sizes sizes)
      : text_(text), lms_(text, n), sa_(sa), n_(n), k_(k), sizes_(sizes), cursors_(static_cast<std::size_t>(k) + 2) {}

  std::size_t at(Int i) const { return static_cast<std::size_t>(text_[i]); }

  template <class Watch>
  void run(const Watch& watch) {
    sort_lms(watch);
    count_symbols();
    place_lms();
    Induction<Char, Int>(text_, sa_, n_, counts_, cursors_, sizes_.block).run(watch, kInduction);
  }
  // How much of the time is over, about.
  static constexpr double kCollected = 0.07, kCompared = 0.45, kInduction = 0.65;

  // Leaves the m LMS suffixes, sorted, in sa[0, m), cursors_[c] behind those that begin with c.
  template <class Watch>
  void sort_lms(const Watch& watch) {
    collect_lms();
    watch.reached(kCollected);
    std::vector<typename PrefixSort<Char, Int>::Group> groups;
    for (std::size_t c = 1; c < cursors_.size(); ++c) {
      const Int low = cursors_[c - 1], high = cursors_[c];
      if (high - low > 1) groups.push_back({low, high, 1, 0});
    }
    const Int m = cursors_.back();
    PrefixSort<Char, Int>(text_, sa_, m, k_, sizes_.large_group).run(std::move(groups));
    watch.reached(kCompared);
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
      lms_.for_each(piece.low, piece.high, [&](Int p) { ++counts[at(p)]; });
    });
    Int sum = 0;
    for (std::size_t c = 0; c < cursors_.size(); ++c) {
      for (Piece& piece : found) sum += std::exchange(piece.counts[c], sum);
      cursors_[c] = sum;
    }
    for_each_piece(found, [&](Piece& piece) {
      Int* const cursors = piece.counts.data();
      lms_.for_each(piece.low, piece.high, [&](Int p) { sa_[cursors[at(p)]++] = p; });
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

  // Orders the suffixes of sa[0, m) that agree with a neighbour.
  void sort_ties(Int m) {
    Ties<Char, Int> ties(text_, sa_, n_, m, sizes_.piece);
    Int* const end = sa_ + n_;  // the spare cells behind are the shorter text's
    Int k = 0;
    Int* const text = ties.write_shorter_text(&k);
    const Int n = static_cast<Int>(end - text);
    std::fill(end, end + kSpare, Int{0});
    BigArray<Int> own;
    Int* sorted = sa_ + m;
    if (text - sorted < n + kSpare) {
      own = make_big_array<Int>(static_cast<std::size_t>(n + kSpare));
      sorted = own.get();
    }
    SuffixSort<Int, Int>::sort(text, sorted, n, k, {sizes_.large_group, sizes_.block, sizes_.piece});
    ties.order(text, sorted);
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
  LmsScan<Char, Int> lms_;
  Int* sa_;
  Int n_, k_;
  Sizes sizes_;
  std::vector<Int> cursors_, counts_;  // by symbol
};

}  // namespace gramcore::ngram
