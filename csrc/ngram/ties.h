// The shorter text of a suffix sort: what those LMS suffixes begin with that agree with a neighbour as far as was
// compared, in the order of the text, each run closed by one that agrees with none.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "core/bitset.h"
#include "core/thread_pool.h"
#include "ngram/lms.h"

namespace gramcore::ngram {

template <class Char, class Int>
class Ties {
 public:
  // sa[0, m): the LMS suffixes sorted by what they begin with, complemented where they agree with the one before; n
  // cells in all.  piece: positions of the text that are worth a thread.
  Ties(const Char* text, Int* sa, Int n, Int m, Int piece) : lms_(text, n), sa_(sa), n_(n), m_(m), piece_(piece) {
    const Int pieces = std::clamp<Int>(n / std::max<Int>(piece, 4), 1, static_cast<Int>(num_threads()));
    // Odd borders: no pair of positions, which share a cell of ranks, is of two pieces.
    for (Int i = 0; i < pieces; ++i) pieces_.push_back({i == 0 ? 0 : n / pieces * i | 1, n - 1, 0, 0, false, {}, {}});
    for (std::size_t i = 1; i < pieces_.size(); ++i) pieces_[i - 1].high = pieces_[i].low;
  }

  // Writes the shorter text, over symbols [1, k], so that it ends at sa[n); returns its first cell.
  Int* write_shorter_text(Int* k) {
    Int* const rank_at = sa_ + m_;
    write_ranks(rank_at);
    for (Piece& piece : pieces_) {
      const Int left = lms_.last(piece.low);
      piece.left_tied = left >= 0 && rank_at[left / 2] < 0;
    }
    for_each_piece([&](Piece& piece) { collect(piece, rank_at); });
    Int* begin = sa_ + n_;
    for (std::size_t i = pieces_.size(); i-- > 0;) {
      Piece& piece = pieces_[i];
      const Int* const end = rank_at + piece.high / 2 + 1;
      begin = std::copy_backward(end - piece.size, end, begin);
      piece.end = begin + piece.size;
    }
    number_densely(begin, k);
    return begin;
  }

  // Puts the suffixes that agree in order: sorted[0, size) are those of the shorter text, which is overwritten.
  void order(Int* text, Int* sorted) {
    for_each_piece([&](Piece& piece) {
      Int* symbol = piece.end;
      std::size_t lms = 0, kept = 0;
      lms_.for_each(piece.low, piece.high, [&](Int p) {
        if (piece.kept.test(lms++)) *--symbol = piece.tied.test(kept++) ? p : 0;
      });
    });
    const Int size = static_cast<Int>(sa_ + n_ - text);
    parallel_for(size, piece_, [&](std::int64_t begin, std::int64_t end) {
      for (auto i = static_cast<Int>(begin); i < static_cast<Int>(end); ++i) {
        if (i + kAhead < size) __builtin_prefetch(text + sorted[std::min<Int>(i + kAhead, static_cast<Int>(end) - 1)]);
        sorted[i] = text[sorted[i]];
      }
    });
    Int cell = 0;
    for (Int i = 0; i < size; ++i) {
      if (sorted[i] == 0) continue;
      while (!is_tied(cell)) ++cell;
      sa_[cell++] = sorted[i];
    }
  }

 private:
  static constexpr Int kAhead = 24;  // entries between prefetching what is read next and its use

  struct Piece {  // of the text: LMS positions in (low, high]
    Int low, high;
    Int size;           // of its part of the shorter text
    Int* end;           // of that part
    bool left_tied;     // whether the LMS suffix before the piece agrees with others
    Bitset kept, tied;  // LMS suffixes that are symbols of the shorter text; of these, those that agree; from the right
  };
  template <class F>
  void for_each_piece(F&& fn) {
    parallel_chunks(static_cast<std::int64_t>(pieces_.size()),
                    [&](std::int64_t i) { fn(pieces_[static_cast<std::size_t>(i)]); });
  }
  bool is_tied(Int i) const { return sa_[i] < 0 || (i + 1 < m_ && sa_[i + 1] < 0); }

  // The rank of each suffix among what they begin with, complemented where others share it, by position / 2: LMS
  // positions are at least two apart.
  void write_ranks(Int* rank_at) const {
    parallel_for(m_, piece_, [&](std::int64_t begin, std::int64_t end) {
      Int rank = static_cast<Int>(begin);
      while (sa_[rank] < 0) --rank;
      for (Int i = static_cast<Int>(begin); i < static_cast<Int>(end); ++i) {
        if (i + kAhead < m_) __builtin_prefetch(rank_at + std::max(sa_[i + kAhead], ~sa_[i + kAhead]) / 2, 1);
        if (sa_[i] >= 0) rank = i;
        rank_at[std::max(sa_[i], ~sa_[i]) / 2] = is_tied(i) ? ~rank : rank;
      }
    });
  }
  // Leaves the piece's part of the shorter text at the end of its cells of ranks: never over a cell yet to be read,
  // since each cell read is at least two positions wide.
  void collect(Piece& piece, Int* rank_at) const {
    const auto most = static_cast<std::size_t>((piece.high - piece.low) / 2 + 1);
    piece.kept = Bitset(most), piece.tied = Bitset(most);
    const auto kept_words = piece.kept.mutable_words(), tied_words = piece.tied.mutable_words();
    Int* const end = rank_at + piece.high / 2 + 1;
    std::size_t lms = 0, kept = 0;
    Int right = 0;  // rank_at of the LMS position to the right
    const auto add = [&](bool keep) {
      kept_words[lms / 64] |= std::uint64_t{keep} << lms % 64;
      if (keep) {
        tied_words[kept / 64] |= std::uint64_t{right < 0} << kept % 64;
        *(end - ++kept) = std::max(right, ~right);
      }
      ++lms;
    };
    bool first = true;
    lms_.for_each(piece.low, piece.high, [&](Int p) {
      const Int here = rank_at[p / 2];
      if (!first) add(right < 0 || here < 0);
      first = false;
      right = here;
    });
    if (!first) add(right < 0 || piece.left_tied);
    piece.size = static_cast<Int>(kept);
  }
  // Renumbers the ranks in [begin, sa + n) from 1 to k.
  void number_densely(Int* begin, Int* k) const {
    Bitset ranks(static_cast<std::size_t>(m_));
    const auto words = ranks.mutable_words();
    const std::int64_t size = sa_ + n_ - begin;
    parallel_for(size, piece_, [&](std::int64_t low, std::int64_t high) {
      for (std::int64_t i = low; i < high; ++i) {
        const auto r = static_cast<std::size_t>(begin[i]);
        const std::uint64_t bit = 1ull << r % 64;
        // Most ranks are of many suffixes.
        if ((__atomic_load_n(&words[r / 64], __ATOMIC_RELAXED) & bit) == 0) {
          __atomic_fetch_or(&words[r / 64], bit, __ATOMIC_RELAXED);
        }
      }
    });
    std::vector<Int> before(words.size());
    Int sum = 0;
    for (std::size_t w = 0; w < words.size(); ++w) {
      before[w] = sum;
      sum += static_cast<Int>(__builtin_popcountll(words[w]));
    }
    parallel_for(size, piece_, [&](std::int64_t low, std::int64_t high) {
      for (std::int64_t i = low; i < high; ++i) {
        const auto r = static_cast<std::size_t>(begin[i]);
        begin[i] = before[r / 64] + static_cast<Int>(__builtin_popcountll(words[r / 64] & ((1ull << r % 64) - 1))) + 1;
      }
    });
    *k = sum;
  }

  const LmsScan<Char, Int> lms_;
  Int* sa_;
  const Int n_, m_, piece_;
  std::vector<Piece> pieces_;
};

}  // namespace gramcore::ngram
