// Suffix sorting by induced sorting (Nong, Zhang & Chan 2009), linear time whatever the repetitions.
//
// An entry of `sa` is a position, or its complement when the scan in progress must not induce from it: the type of the
// position's predecessor is decided when the entry is written, while its neighbour in the text is still in cache.
// Position 0 has no predecessor, so 0 also serves as "empty" in the first stage.  Each scan looks ahead: first the
// text at a coming entry is prefetched, then the bucket cell it will be written to.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/check.h"
#include "core/span.h"

namespace gramcore::ngram {

template <class Char, class Int>
class Sais {
 public:
  // Sorts text[0, n) over symbols [0, k) into sa[0, n); sa needs n + extra cells, the extra ones as scratch.
  static void sort(const Char* text, Int* sa, Int n, Int k) {
    if (n == 0) return;
    if (n == 1) {
      sa[0] = 0;
      return;
    }
    Sais s(text, sa, n, k);
    s.run();
  }

 private:
  static constexpr Int kAhead = 24;  // entries between prefetching the text, the bucket cell, and the use

  Sais(const Char* text, Int* sa, Int n, Int k)
      : text_(text), sa_(sa), n_(n), buckets_(static_cast<std::size_t>(k)), counts_(static_cast<std::size_t>(k), 0) {
    for (Int i = 0; i < n; ++i) ++counts_[at(i)];
  }

  std::size_t at(Int i) const { return static_cast<std::size_t>(text_[i]); }
  void starts() {
    Int sum = 0;
    for (std::size_t c = 0; c < counts_.size(); ++c) buckets_[c] = sum, sum += counts_[c];
  }
  void ends() {
    Int sum = 0;
    for (std::size_t c = 0; c < counts_.size(); ++c) buckets_[c] = sum += counts_[c];
  }

  // fn(position) for every position where an ascent follows a descent (leftmost S-type), right to left.
  template <class F>
  void for_each_lms(F&& fn) const {
    bool later_is_s = false;  // type of position i + 1; the last position is L
    for (Int i = n_ - 2; i >= 0; --i) {
      const bool is_s = text_[i] < text_[i + 1] || (text_[i] == text_[i + 1] && later_is_s);
      if (later_is_s && !is_s) fn(i + 1);
      later_is_s = is_s;
    }
  }

  void run() {
    const Int m = sort_lms_substrings();
    if (m > 1) sort_lms_suffixes(m);
    place_lms(m);
    induce();
  }

  // Leaves the LMS positions in sa[0, m), ordered by their substrings (up to the next LMS position).
  Int sort_lms_substrings() {
    std::fill(sa_, sa_ + n_, Int{0});
    ends();
    Int m = 0, only = 0;
    for_each_lms([&](Int p) {
      sa_[--buckets_[at(p)]] = p - 1;  // entries name the predecessor, which is to be placed next
      only = p;
      ++m;
    });
    if (m <= 1) {
      if (m == 1) sa_[0] = only;
      return m;
    }
    starts();
    sa_[buckets_[at(n_ - 1)]++] = predecessor_of_last();
    for (Int i = 0; i < n_; ++i) {
      look_ahead(i + 2 * kAhead, i + kAhead, [](Int x) { return x > 0 ? x : 0; });
      const Int j = sa_[i];
      if (j > 0) {
        const Char c = text_[j], before = text_[j - 1];
        sa_[buckets_[static_cast<std::size_t>(c)]++] = before < c ? ~(j - 1) : j - 1;
        sa_[i] = 0;
      } else if (j < 0) {
        sa_[i] = ~j;
      }
    }
    ends();
    for (Int i = n_ - 1; i >= 0; --i) {
      look_ahead(i - 2 * kAhead, i - kAhead, [](Int x) { return x > 0 ? x : 0; });
      const Int j = sa_[i];
      if (j > 0) {
        const Char c = text_[j], before = text_[j - 1];
        sa_[--buckets_[static_cast<std::size_t>(c)]] = before > c ? ~j : j - 1;  // ~j: j is an LMS position
        sa_[i] = 0;
      }
    }
    Int found = 0;
    for (Int i = 0; i < n_; ++i) {
      if (sa_[i] < 0) sa_[found++] = ~sa_[i];
    }
    GC_DCHECK(found == m);
    return m;
  }

  Int predecessor_of_last() const { return text_[n_ - 2] < text_[n_ - 1] ? ~(n_ - 2) : n_ - 2; }

  template <class Position>
  void look_ahead(Int text_at, Int cell_at, Position position) const {
    if (text_at >= 0 && text_at < n_) {
      const Int p = position(sa_[text_at]);
      __builtin_prefetch(text_ + (p > 0 ? p - 1 : 0));
    }
    if (cell_at >= 0 && cell_at < n_) {
      const Int p = position(sa_[cell_at]);
      if (p > 0) __builtin_prefetch(sa_ + std::min(buckets_[at(p)], n_ - 1), 1);
    }
  }

  // Orders sa[0, m) by whole suffixes: names the substrings and, where names repeat, sorts the string of names.
  void sort_lms_suffixes(Int m) {
    Int* const names = sa_ + m;  // by position / 2: LMS positions are at least two apart
    const Int num_names = name_substrings(m);
    if (num_names == m) return;
    Int* const reduced = sa_ + n_ - m;
    Int to = n_;
    for (Int i = m + (n_ - m < n_ / 2 + 1 ? n_ - m : n_ / 2 + 1) - 1; i >= m; --i) {
      if (sa_[i] > 0) sa_[--to] = sa_[i] - 1;
    }
    GC_DCHECK(to == n_ - m);
    static_cast<void>(names);
    Sais<Int, Int>::sort(reduced, sa_, m, num_names);
    Int r = m;
    for_each_lms([&](Int p) { reduced[--r] = p; });
    for (Int i = 0; i < m; ++i) sa_[i] = reduced[sa_[i]];
  }

  // Writes name + 1 of each LMS substring at sa[m + position / 2]; returns the number of names.
  Int name_substrings(Int m) {
    Int* const by_position = sa_ + m;
    std::fill(by_position, sa_ + n_, Int{0});
    Int next = n_;
    for_each_lms([&](Int p) {
      by_position[p / 2] = (next == n_ ? n_ : next + 1) - p;  // length with the next LMS symbol included
      next = p;
    });
    Int names = 0, previous = 0, previous_length = 0;
    for (Int i = 0; i < m; ++i) {
      if (i + kAhead < m) {
        __builtin_prefetch(text_ + sa_[i + kAhead]);
        __builtin_prefetch(by_position + sa_[i + kAhead] / 2, 1);
      }
      const Int p = sa_[i], length = by_position[p / 2];
      // The last substring ends at the end of the text and equals no other.
      const bool same = i > 0 && length == previous_length && p + length < n_ && previous + length < n_ &&
                        std::equal(text_ + p, text_ + p + length, text_ + previous);
      if (!same) ++names;
      by_position[p / 2] = names;
      previous = p;
      previous_length = length;
    }
    return names;
  }

  // Moves the sorted LMS suffixes to the ends of their buckets, everything else empty.
  void place_lms(Int m) {
    ends();
    Int filled = n_;
    for (Int i = m - 1; i >= 0; --i) {
      const Int p = sa_[i];
      const Int cell = --buckets_[at(p)];
      std::fill(sa_ + cell + 1, sa_ + filled, Int{0});
      sa_[cell] = p;
      filled = cell;
    }
    std::fill(sa_, sa_ + filled, Int{0});
  }

  void induce() {
    starts();
    const Int last = n_ - 1;
    sa_[buckets_[at(last)]++] = text_[last - 1] < text_[last] ? ~last : last;
    for (Int i = 0; i < n_; ++i) {
      look_ahead(i + 2 * kAhead, i + kAhead, [](Int x) { return x > 0 ? x - 1 : 0; });
      const Int j = sa_[i];
      sa_[i] = ~j;
      if (j > 0) put<true>(j - 1);
    }
    ends();
    for (Int i = n_ - 1; i >= 0; --i) {
      look_ahead(i - 2 * kAhead, i - kAhead, [](Int x) { return x > 0 ? x - 1 : 0; });
      const Int j = sa_[i];
      if (j > 0) {
        put<false>(j - 1);
      } else {
        sa_[i] = ~j;
      }
    }
  }

  // Places suffix p in its bucket, complemented when this scan must not induce from it.
  template <bool kForward>
  void put(Int p) {
    const Char c = text_[p];
    Int& cursor = buckets_[static_cast<std::size_t>(c)];
    if (kForward) {
      sa_[cursor++] = p > 0 && text_[p - 1] < c ? ~p : p;
    } else {
      sa_[--cursor] = p == 0 || text_[p - 1] > c ? ~p : p;
    }
  }

  const Char* text_;
  Int* sa_;
  Int n_;
  std::vector<Int> buckets_, counts_;
};

}  // namespace gramcore::ngram
