// Induction: all suffixes from the sorted LMS suffixes, in one scan up for those that begin a descent ("L") and one
// down for those that begin an ascent ("S").  A scan that passes suffix j places suffix j - 1 in the bucket of its
// symbol.
//
// An entry of `sa` is a position, or its complement when the scan in progress must not induce from it: the type of the
// position's predecessor is decided when the entry is written, while its neighbour in the text is still in cache.
// Position 0 has no predecessor, so 0 also serves as "empty".
//
// What costs time is waiting for memory: the text at j - 1, then the cell.  With several threads a scan goes block by
// block.  They gather what a block induces, one thread alone moves the buckets' cursors, which are all it touches, and
// they scatter the suffixes to their cells.  Where a suffix falls into its own block, the one thread also looks up what
// that induces.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/thread_pool.h"
#include "ngram/big_array.h"

namespace gramcore::ngram {

template <class Char, class Int>
class Induction {
 public:
  static constexpr Int kBlock = 65536;  // entries gathered together

  // sa[0, n): the LMS suffixes in order at the ends of their buckets, else 0; counts[c]: occurrences of symbol c;
  // cursors: as many cells of scratch; block: entries gathered together where several threads share a scan.
  Induction(const Char* text, Int* sa, Int n, const std::vector<Int>& counts, std::vector<Int>& cursors, Int block)
      : text_(text), sa_(sa), n_(n), counts_(counts), cursors_(cursors), block_(block) {}

  void run() {
    const bool blocks = num_threads() > 1 && n_ > block_;
    if (blocks) puts_ = make_big_array<Put>(static_cast<std::size_t>(block_));
    starts();
    const Int last = n_ - 1;
    sa_[cursors_[at(last)]++] = text_[last - 1] < text_[last] ? ~last : last;
    blocks ? scan_blocks<true>() : scan<true>();
    ends();
    blocks ? scan_blocks<false>() : scan<false>();
  }

 private:
  static constexpr Int kAhead = 24;  // entries between prefetching the text, the bucket cell, and the use

  struct Put {
    Int suffix;  // as it is written
    Int to;      // symbol, later cell; negative: nothing is induced
  };

  std::size_t at(Int i) const { return static_cast<std::size_t>(text_[i]); }
  void starts() {
    Int sum = 0;
    for (std::size_t c = 0; c < counts_.size(); ++c) cursors_[c] = sum, sum += counts_[c];
  }
  void ends() {
    Int sum = 0;
    for (std::size_t c = 0; c < counts_.size(); ++c) cursors_[c] = sum += counts_[c];
  }

  // What a scan leaves where it has passed, what it induces there, and the cell that goes to.
  template <bool kUp>
  static Int passed(Int entry) {
    return kUp || entry <= 0 ? ~entry : entry;
  }
  template <bool kUp>
  Put induced(Int entry) const {
    if (entry <= 0) return {0, -1};
    const Int p = entry - 1;
    const Char c = text_[p];
    const bool not_again = kUp ? p > 0 && text_[p - 1] < c : p == 0 || text_[p - 1] > c;
    return {not_again ? ~p : p, static_cast<Int>(c)};
  }
  template <bool kUp>
  Int next_cell(Int symbol) {
    Int& cursor = cursors_[static_cast<std::size_t>(symbol)];
    return kUp ? cursor++ : --cursor;
  }

  template <bool kUp>
  void scan() {
    constexpr Int step = kUp ? 1 : -1;
    for (Int left = n_, i = kUp ? 0 : n_ - 1; left > 0; --left, i += step) {
      if (left > 2 * kAhead) {
        touch_text(i + 2 * step * kAhead);
        touch_cell(i + step * kAhead);
      }
      const Int entry = sa_[i];
      sa_[i] = passed<kUp>(entry);
      const Put put = induced<kUp>(entry);
      if (put.to >= 0) sa_[next_cell<kUp>(put.to)] = put.suffix;
    }
  }
  void touch_text(Int i) const { __builtin_prefetch(text_ + std::max<Int>(sa_[i], 2) - 2); }
  void touch_cell(Int i) const {
    const Int j = sa_[i];
    if (j > 1) __builtin_prefetch(sa_ + std::min(cursors_[at(j - 1)], n_ - 1), 1);
  }

  template <bool kUp>
  void scan_blocks() {
    for (Int done = 0; done < n_; done += block_) {
      const Int size = std::min(block_, n_ - done), low = kUp ? done : n_ - done - size;
      in_pieces(size, [&](Int begin, Int end) { gather<kUp>(low, begin, end); });
      assign<kUp>(low, size);
      in_pieces(size, [&](Int begin, Int end) { scatter(begin, end); });
    }
  }
  template <class F>
  static void in_pieces(Int size, F&& fn) {
    const Int pieces = static_cast<Int>(num_threads()), each = (size + pieces - 1) / pieces;
    parallel_chunks(pieces, [&](std::int64_t piece) {
      const Int begin = std::min(size, static_cast<Int>(piece) * each);
      fn(begin, std::min(size, begin + each));
    });
  }
  template <bool kUp>
  void gather(Int low, Int begin, Int end) {
    Int* const entries = sa_ + low;
    for (Int i = begin; i < end; ++i) {
      if (i + kAhead < end) touch_text(low + i + kAhead);
      puts_[i] = induced<kUp>(entries[i]);
      entries[i] = passed<kUp>(entries[i]);
    }
  }
  template <bool kUp>
  void assign(Int low, Int size) {
    for (Int left = size, i = kUp ? 0 : size - 1; left > 0; --left, i += kUp ? 1 : -1) {
      Put& put = puts_[i];
      if (put.to < 0) continue;
      put.to = next_cell<kUp>(put.to);
      if (put.to < low || put.to >= low + size) continue;
      puts_[put.to - low] = induced<kUp>(put.suffix);
      put.suffix = passed<kUp>(put.suffix);
    }
  }
  void scatter(Int begin, Int end) {
    for (Int i = begin; i < end; ++i) {
      if (i + kAhead < end) __builtin_prefetch(sa_ + std::max<Int>(puts_[i + kAhead].to, 0), 1);
      if (puts_[i].to >= 0) sa_[puts_[i].to] = puts_[i].suffix;
    }
  }

  const Char* text_;
  Int* sa_;
  Int n_;
  const std::vector<Int>& counts_;  // by symbol
  std::vector<Int>& cursors_;
  Int block_;
  BigArray<Put> puts_;
};

}  // namespace gramcore::ngram
