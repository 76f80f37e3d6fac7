// Where an ascent of a text follows a descent ("LMS" positions).
#pragma once

#include <algorithm>
#include <cstdint>

namespace gramcore::ngram {

template <class Char, class Int>
class LmsScan {
 public:
  LmsScan(const Char* text, Int n) : text_(text), n_(n) {}

  // fn(position) for the LMS positions in (low, high], right to left; high < n.  They are collected without a branch,
  // which would often be predicted wrongly.
  template <class F>
  void for_each(Int low, Int high, F&& fn) const {
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
  // The last LMS position that is not behind `at`, or -1.
  Int last(Int at) const {
    Int found = -1;
    for (Int size = 64, high = at; found < 0 && high > 0; size *= 2) {
      const Int low = std::max<Int>(0, high - size);
      for_each(low, high, [&](Int p) { found = std::max(found, p); });
      high = low;
    }
    return found;
  }

 private:
  // Whether suffix i begins an ascent: it is smaller than suffix i + 1.  The last is not.
  Int is_s(Int i) const {
    Int j = i + 1;
    while (j < n_ && text_[j] == text_[i]) ++j;
    return j < n_ && text_[i] < text_[j];
  }

  const Char* text_;
  Int n_;
};

}  // namespace gramcore::ngram
