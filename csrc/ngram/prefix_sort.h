// Sorts suffixes that begin where an ascent follows a descent ("LMS" suffixes) by what they begin with, as far as it
// takes to reach beyond the next such place and at least kDepth symbols.  Several symbols are compared as one integer;
// groups of different beginnings are independent, so threads share them.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "core/check.h"
#include "core/thread_pool.h"
#include "ngram/big_array.h"

namespace gramcore::ngram {

// kWindow symbols from `at`, as an integer that compares as they do.
template <class Char>
struct Window {
  static constexpr int kSize = sizeof(std::uint64_t) / sizeof(Char);
  static std::uint64_t load(const Char* at) {
    std::uint64_t x;
    std::memcpy(&x, at, sizeof(x));
    if constexpr (sizeof(Char) == 8) return x;
    if constexpr (sizeof(Char) == 4) return x << 32 | x >> 32;
    x = __builtin_bswap64(x);
    if constexpr (sizeof(Char) == 1) return x;
    constexpr std::uint64_t kOdd = 0x00FF00FF00FF00FFull;
    return (x >> 8 & kOdd) | (x & kOdd) << 8;
  }
};

// `text` is followed by a window of zeros, and zero is no symbol.
template <class Char, class Int>
class PrefixSort {
 public:
  static constexpr Int kDepth = 16;  // symbols compared at least: comparing is cheaper than naming and sorting names
  static constexpr Int kLargeGroup = 65536;  // suffixes above which a group is split symbol by symbol, without copies

  // Suffixes sa[low, high) agree in their first `depth` symbols; `phase` of follow() says what those are.
  struct Group {
    Int low, high, depth;
    int phase;
  };

  // Suffixes are sa[0, m); as many cells behind them are scratch.  Symbols are at most k.
  PrefixSort(const Char* text, Int* sa, Int m, Int k, Int large_group)
      : text_(text), sa_(sa), m_(m), k_(k), large_(large_group) {}

  // Sorts each group.  Entries that agree with the one before them as far as was compared are left complemented.
  void run(std::vector<Group> groups) {
    split_large(&groups);
    constexpr std::size_t kAtOnce = 64;
    std::atomic<std::size_t> next{0};
    parallel_chunks(num_threads(), [&](std::int64_t) {
      Scratch scratch;
      for (std::size_t g; (g = next.fetch_add(kAtOnce)) < groups.size();) {
        for (std::size_t i = g; i < std::min(g + kAtOnce, groups.size()); ++i) sort_group(groups[i], &scratch);
      }
    });
  }

 private:
  struct Entry {
    std::uint64_t window;
    Int suffix;
  };
  struct Scratch {
    BigArray<Entry> a, b;
    std::size_t size = 0;
    std::vector<Group> pending;
    void reserve(std::size_t n) {
      if (n <= size) return;
      size = n + n / 2;
      a = make_big_array<Entry>(size), b = make_big_array<Entry>(size);
    }
  };
  static constexpr int kAhead = 16;  // suffixes between prefetching the text and its use

  // Reads symbols [from, to) of suffix p.  0: none descended; 1: some did; 2: then one ascended, so that the next LMS
  // place lies before it.
  int follow(Int p, Int from, Int to, int phase) const {
    for (Int i = from; i < to && phase < 2; ++i) {
      const Char before = text_[p + i - 1], c = text_[p + i];
      phase += phase == 0 ? c < before : c > before;
    }
    return phase;
  }

  // The group's suffixes agree up to `depth`: false if that is as far as they are compared, and then they are marked.
  bool goes_on(Group* g, Int depth) {
    g->phase = follow(sa_[g->low], g->depth, depth, g->phase);
    g->depth = depth;
    if (depth < kDepth || g->phase < 2) return true;
    for (Int i = g->low + 1; i < g->high; ++i) sa_[i] = ~sa_[i];
    return false;
  }

  void split_large(std::vector<Group>* groups) {
    std::vector<Group> large;
    const auto is_large = [&](const Group& g) { return g.high - g.low > std::max(large_, k_); };
    const auto moved =
        std::stable_partition(groups->begin(), groups->end(), [&](const Group& g) { return !is_large(g); });
    large.assign(moved, groups->end());
    groups->erase(moved, groups->end());
    std::sort(large.begin(), large.end(),
              [](const Group& a, const Group& b) { return a.high - a.low > b.high - b.low; });
    std::atomic<std::size_t> next{0};
    std::mutex mutex;
    parallel_chunks(std::min<std::int64_t>(num_threads(), static_cast<std::int64_t>(large.size())), [&](std::int64_t) {
      std::vector<Int> ends(static_cast<std::size_t>(k_) + 2);
      std::vector<Group> pending, found;
      for (std::size_t i; (i = next.fetch_add(1)) < large.size();) {
        pending.assign(1, large[i]);
        while (!pending.empty()) {
          const Group g = pending.back();
          pending.pop_back();
          split(g, &ends);
          for (Int low = g.low; low < g.high;) {
            const Int high = g.low + ends[static_cast<std::size_t>(text_[sa_[low] + g.depth])];
            Group part{low, high, g.depth, g.phase};
            if (high - low > 1 && goes_on(&part, g.depth + 1)) (is_large(part) ? pending : found).push_back(part);
            low = high;
          }
        }
      }
      const std::lock_guard<std::mutex> lock(mutex);
      groups->insert(groups->end(), found.begin(), found.end());
    });
  }
  // Sorts the group by the symbol behind what agrees; ends[c]: past the last suffix with symbol c, from g.low.
  void split(const Group& g, std::vector<Int>* ends) {
    std::fill(ends->begin(), ends->end(), Int{0});
    Int* const copy = sa_ + m_ + g.low;
    for (Int i = g.low; i < g.high; ++i) {
      if (i + kAhead < g.high) __builtin_prefetch(text_ + sa_[i + kAhead] + g.depth);
      ++(*ends)[static_cast<std::size_t>(text_[sa_[i] + g.depth]) + 1];
      copy[i - g.low] = sa_[i];
    }
    for (std::size_t c = 1; c < ends->size(); ++c) (*ends)[c] += (*ends)[c - 1];
    for (Int i = 0; i < g.high - g.low; ++i) {
      if (i + kAhead < g.high - g.low) __builtin_prefetch(text_ + copy[i + kAhead] + g.depth);
      sa_[g.low + (*ends)[static_cast<std::size_t>(text_[copy[i] + g.depth])]++] = copy[i];
    }
  }

  void sort_group(const Group& whole, Scratch* scratch) {
    auto& pending = scratch->pending;
    pending.assign(1, whole);
    while (!pending.empty()) {
      const Group g = pending.back();
      pending.pop_back();
      if (!pending.empty()) {
        const Group& next = pending.back();
        for (Int i = next.low; i < std::min(next.high, next.low + kAhead); ++i) {
          __builtin_prefetch(text_ + sa_[i] + next.depth);
        }
      }
      if (g.high - g.low == 2) {
        sort_pair(g);
      } else {
        sort_by_window(g, scratch);
      }
    }
  }
  void sort_pair(Group g) {
    Int &a = sa_[g.low], &b = sa_[g.low + 1];
    for (;;) {
      const std::uint64_t x = Window<Char>::load(text_ + a + g.depth), y = Window<Char>::load(text_ + b + g.depth);
      if (x != y) {
        if (y < x) std::swap(a, b);
        return;
      }
      if (!goes_on(&g, g.depth + Window<Char>::kSize)) return;
    }
  }
  void sort_by_window(const Group& g, Scratch* scratch) {
    const Int n = g.high - g.low;
    scratch->reserve(static_cast<std::size_t>(n));
    Entry* const entries = scratch->a.get();
    Int* const suffixes = sa_ + g.low;
    for (Int i = 0; i < n; ++i) {
      if (i + kAhead < n) __builtin_prefetch(text_ + suffixes[i + kAhead] + g.depth);
      entries[i] = {Window<Char>::load(text_ + suffixes[i] + g.depth), suffixes[i]};
    }
    sort_entries(entries, scratch->b.get(), n, false);
    for (Int i = 0; i < n; ++i) suffixes[i] = entries[i].suffix;
    for (Int i = 0; i < n;) {
      Int j = i + 1;
      while (j < n && entries[j].window == entries[i].window) ++j;
      if (j - i > 1) {
        Group part{g.low + i, g.low + j, g.depth, g.phase};
        if (goes_on(&part, g.depth + Window<Char>::kSize)) scratch->pending.push_back(part);
      }
      i = j;
    }
  }

  // Sorts a[0, n) by window, into b if asked; both are overwritten.  Radix sort from the highest bit that differs.
  static void sort_entries(Entry* a, Entry* b, Int n, bool into_b) {
    std::uint64_t differ = 0;
    if (n <= kSmall) {
      insertion_sort(a, n);
    } else {
      for (Int i = 1; i < n; ++i) differ |= a[i].window ^ a[0].window;
    }
    if (differ == 0) {
      if (into_b) std::copy(a, a + n, b);
      return;
    }
    const int bits = n >= 2048 ? 8 : n >= 256 ? 6 : 4;
    const int shift = std::max(0, 64 - __builtin_clzll(differ) - bits);
    const auto digit = [&](const Entry& e) { return e.window >> shift & ((1u << bits) - 1); };
    Int ends[257] = {0};
    for (Int i = 0; i < n; ++i) ++ends[digit(a[i]) + 1];
    for (int d = 1; d <= 1 << bits; ++d) ends[d] += ends[d - 1];
    for (Int i = 0; i < n; ++i) b[ends[digit(a[i])]++] = a[i];
    for (Int d = 0, begin = 0; d < Int{1} << bits; ++d) {
      const Int size = ends[d] - begin;
      if (size > 1 && shift > 0) {
        sort_entries(b + begin, a + begin, size, !into_b);
      } else if (!into_b) {
        std::copy(b + begin, b + begin + size, a + begin);
      }
      begin = ends[d];
    }
  }
  static constexpr Int kSmall = 24;  // entries up to which insertion is quickest
  static void insertion_sort(Entry* a, Int n) {
    for (Int i = 1; i < n; ++i) {
      const Entry e = a[i];
      Int j = i;
      for (; j > 0 && a[j - 1].window > e.window; --j) a[j] = a[j - 1];
      a[j] = e;
    }
  }

  const Char* text_;
  Int* sa_;
  Int m_, k_, large_;
};

}  // namespace gramcore::ngram
