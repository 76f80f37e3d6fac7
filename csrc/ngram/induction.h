// Induction: all suffixes from the sorted LMS suffixes, in one scan up for those that begin a descent ("L") and one
// down for those that begin an ascent ("S").  A scan that passes suffix j places suffix j - 1 in the bucket of its
// symbol.
//
// An entry of `sa` is a position, or its complement when the scan in progress must not induce from it: the type of the
// position's predecessor is decided when the entry is written, while its neighbour in the text is still in cache.
// Position 0 has no predecessor, so 0 also serves as "empty".
//
// What costs time is waiting for memory: the text at j - 1, then the cell.  With several threads a scan goes block by
// block, each of which passes three stages: threads gather what it induces, one thread alone moves the buckets'
// cursors, which are all it touches, and threads scatter the suffixes to their cells.  While the one thread is at a
// block, the others scatter the block before and gather the block behind; so what a block induces into itself or into
// the next is looked up by the one thread.
#pragma once

#include <algorithm>
#include <atomic>
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

  // watch: see SuffixSort::sort, of whose time `before` is over.
  template <class Watch>
  void run(const Watch& watch, double before) {
    const bool blocks = num_threads() > 1 && n_ > block_;
    for (auto& puts : puts_) puts = blocks ? make_big_array<Put>(static_cast<std::size_t>(block_)) : BigArray<Put>();
    starts();
    const Int last = n_ - 1;
    sa_[cursors_[at(last)]++] = text_[last - 1] < text_[last] ? ~last : last;
    const double half = (1 - before) / 2;
    blocks ? scan_blocks<true>(watch, before, half) : scan<true>(watch, before, half);
    ends();
    blocks ? scan_blocks<false>(watch, before + half, half) : scan<false>(watch, before + half, half);
  }

 private:
  static constexpr int kPieces = 4;  // of a block, shared by threads
  static constexpr Int kAhead = 24;  // entries between prefetching the text, the bucket cell, and the use

  struct Put {
    Int suffix;  // as it is written
    Int to;      // symbol, later cell; or one of:
  };
  static constexpr Int kNone = -1;   // nothing is induced
  static constexpr Int kLater = -2;  // what `suffix`, which lies here, induces is yet to be looked up

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
    if (entry <= 0) return {0, kNone};
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

  template <bool kUp, class Watch>
  void scan(const Watch& watch, double before, double share) {
    constexpr Int step = kUp ? 1 : -1;
    for (Int left = n_, i = kUp ? 0 : n_ - 1; left > 0;) {
      const Int first = i;
      for (const Int stop = std::max<Int>(left - kBlock, 0); left > stop; --left, i += step) {
        if (left > 2 * kAhead) {
          touch_text(i + 2 * step * kAhead);
          touch_cell(i + step * kAhead);
        }
        const Int entry = sa_[i];
        sa_[i] = passed<kUp>(entry);
        const Put put = induced<kUp>(entry);
        if (put.to >= 0) sa_[next_cell<kUp>(put.to)] = put.suffix;
      }
      if (!kUp) watch.done(i + 1, first + 1);
      watch.reached(before + share * (n_ - left) / n_);
    }
  }
  void touch_text(Int i) const { __builtin_prefetch(text_ + std::max<Int>(sa_[i], 2) - 2); }
  void touch_cell(Int i) const {
    const Int j = sa_[i];
    if (j > 1) __builtin_prefetch(sa_ + std::min(cursors_[at(j - 1)], n_ - 1), 1);
  }

  Put* puts(Int block) const { return puts_[static_cast<std::size_t>(block % 3)].get(); }

  template <bool kUp, class Watch>
  void scan_blocks(const Watch& watch, double before, double share) {
    const Int blocks = (n_ + block_ - 1) / block_;
    const auto each = [&](Int block, std::int64_t piece, auto&& fn) {  // fn(block's first cell, part of the block)
      if (block < 0 || block >= blocks) return;
      const Int low = first<kUp>(block), size = size_of(block);
      const Int part = (size + kPieces - 1) / kPieces, begin = std::min(size, static_cast<Int>(piece) * part);
      fn(low, begin, std::min(size, begin + part));
    };
    late_.clear();
    for (Int b = -1; b < blocks + 2; ++b) {
      std::atomic<int> scattered{0};
      parallel_chunks(1 + 3 * kPieces, [&](std::int64_t chunk) {
        const std::int64_t stage = (chunk - 1) / kPieces, piece = (chunk - 1) % kPieces;
        if (chunk == 0) {
          if (b >= 0 && b < blocks) assign<kUp>(b);
        } else if (stage == 0) {
          each(b - 1, piece, [&](Int, Int begin, Int end) { scatter(puts(b - 1), begin, end); });
          scattered.fetch_add(1, std::memory_order_release);
        } else if (stage == 1) {
          // Chunks are taken in turn: those waited for are under way.
          while (scattered.load(std::memory_order_acquire) < kPieces) cpu_pause();
          each(b + 1, piece, [&](Int low, Int begin, Int end) { gather<kUp>(puts(b + 1), low, begin, end); });
        } else if (!kUp) {
          each(b - 2, piece, [&](Int low, Int begin, Int end) { watch.done(low + begin, low + end); });
        }
      });
      watch.reached(before + share * std::clamp<Int>(b, 0, blocks) / blocks);
    }
  }
  Int size_of(Int block) const { return std::min(block_, n_ - block * block_); }
  template <bool kUp>
  Int first(Int block) const {  // cell of a block, the lowest
    return kUp ? block * block_ : n_ - block * block_ - size_of(block);
  }
  template <bool kUp>
  void gather(Put* puts, Int low, Int begin, Int end) {
    Int* const entries = sa_ + low;
    for (Int i = begin; i < end; ++i) {
      if (i + kAhead < end) touch_text(low + i + kAhead);
      puts[i] = induced<kUp>(entries[i]);
      entries[i] = passed<kUp>(entries[i]);
    }
  }
  template <bool kUp>
  void assign(Int block) {
    Put* const puts = this->puts(block);
    const Int low = first<kUp>(block), size = size_of(block);
    // Cells from `near` on, in the direction of the scan, are of this block or of the next.
    const Int next = (block + 1) * block_ < n_ ? size_of(block + 1) : 0;
    const Int near_low = kUp ? low : low - next, near_high = kUp ? low + size + next : low + size;
    for (const Put& put : late_) puts[put.to] = {put.suffix, kLater};
    late_.clear();
    for (Int left = size, i = kUp ? 0 : size - 1; left > 0; --left, i += kUp ? 1 : -1) {
      Put& put = puts[i];
      if (put.to == kLater) put = induced<kUp>(put.suffix);
      if (put.to < 0) continue;
      put.to = next_cell<kUp>(put.to);
      if (put.to < near_low || put.to >= near_high) continue;
      if (put.suffix > 0) {
        __builtin_prefetch(text_ + std::max<Int>(put.suffix, 2) - 2);
        if (put.to >= low && put.to < low + size) {
          puts[put.to - low] = {put.suffix, kLater};
        } else {
          late_.push_back({put.suffix, kUp ? put.to - low - size : put.to - near_low});
        }
      }
      put.suffix = passed<kUp>(put.suffix);
    }
  }
  void scatter(const Put* puts, Int begin, Int end) {
    for (Int i = begin; i < end; ++i) {
      if (i + kAhead < end) __builtin_prefetch(sa_ + std::max<Int>(puts[i + kAhead].to, 0), 1);
      if (puts[i].to >= 0) sa_[puts[i].to] = puts[i].suffix;
    }
  }

  const Char* text_;
  Int* sa_;
  Int n_;
  const std::vector<Int>& counts_;  // by symbol
  std::vector<Int>& cursors_;
  Int block_;
  BigArray<Put> puts_[3];  // of the blocks scattered, assigned and gathered at one time
  std::vector<Put> late_;  // what a block induces into the next: suffix, and place in that block
};

}  // namespace gramcore::ngram
