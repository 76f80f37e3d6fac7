#include "grammar/utf8.h"

#include <algorithm>

namespace gramcore::grammar {

void append_utf8(std::string* out, std::uint32_t c) {
  const auto put = [&](std::uint32_t b) { out->push_back(static_cast<char>(b)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | (c >> 6)), put(0x80 | (c & 63));
  } else if (c < 0x10000) {
    put(0xE0 | (c >> 12)), put(0x80 | ((c >> 6) & 63)), put(0x80 | (c & 63));
  } else {
    put(0xF0 | (c >> 18)), put(0x80 | ((c >> 12) & 63)), put(0x80 | ((c >> 6) & 63)), put(0x80 | (c & 63));
  }
}

bool next_code_point(std::string_view text, std::size_t* at, std::uint32_t* code_point) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(text[i]); };
  if (*at >= text.size()) return false;
  const std::uint32_t b = byte(*at);
  if (b < 0x80) {
    *code_point = b;
    ++*at;
    return true;
  }
  const std::size_t more = b >= 0xF0 ? 3 : b >= 0xE0 ? 2 : 1;
  if (b < 0xC2 || b > 0xF4 || *at + more >= text.size()) return false;
  std::uint32_t c = b & (0x3Fu >> more);
  for (std::size_t i = 1; i <= more; ++i) {
    if ((byte(*at + i) & 0xC0) != 0x80) return false;
    c = (c << 6) | (byte(*at + i) & 63u);
  }
  const std::uint32_t least[] = {0, 0x80, 0x800, 0x10000};
  if (c < least[more] || c > kMaxCodePoint || (c >= 0xD800 && c <= 0xDFFF)) return false;
  *code_point = c;
  *at += more + 1;
  return true;
}

CodeSet::CodeSet(std::initializer_list<std::pair<std::uint32_t, std::uint32_t>> ranges) {
  for (const auto& [lo, hi] : ranges) add(lo, hi);
}

void CodeSet::add(std::uint32_t lo, std::uint32_t hi) {
  ranges_.push_back({lo, hi});
  std::sort(ranges_.begin(), ranges_.end());
  std::size_t out = 0;
  for (std::size_t i = 1; i < ranges_.size(); ++i) {
    if (ranges_[i].first <= ranges_[out].second + 1) {
      ranges_[out].second = std::max(ranges_[out].second, ranges_[i].second);
    } else {
      ranges_[++out] = ranges_[i];
    }
  }
  ranges_.resize(out + 1);
}

void CodeSet::add(const CodeSet& other) {
  for (const auto& [lo, hi] : other.ranges_) add(lo, hi);
}

CodeSet CodeSet::complement() const {
  CodeSet out;
  std::uint32_t next = 0;
  for (const auto& [lo, hi] : ranges_) {
    if (lo > next) out.ranges_.push_back({next, lo - 1});
    next = hi + 1;
  }
  if (next <= kMaxCodePoint) out.ranges_.push_back({next, kMaxCodePoint});
  return out;
}

namespace {

using Bytes = std::vector<std::uint8_t>;

// The strings between two encodings of equal length, position by position.
ExprId between(ExprPool* pool, const Bytes& lo, const Bytes& hi, std::size_t i) {
  if (i == lo.size()) return ExprPool::kEpsilon;
  const auto tail = [&](std::uint8_t fill_lo, std::uint8_t fill_hi, unsigned from, unsigned to) {
    Bytes a = lo, b = hi;
    for (std::size_t k = i + 1; k < lo.size(); ++k) {
      if (fill_lo) a[k] = 0x80;
      if (fill_hi) b[k] = 0xBF;
    }
    return pool->cat(pool->byte_class(ByteSet::range(from, to)), between(pool, a, b, i + 1));
  };
  if (lo[i] == hi[i]) return tail(0, 0, lo[i], lo[i]);
  std::vector<ExprId> kids{tail(0, 1, lo[i], lo[i]), tail(1, 0, hi[i], hi[i])};
  if (lo[i] + 1 < hi[i]) kids.push_back(tail(1, 1, lo[i] + 1u, hi[i] - 1u));
  return pool->alt(std::move(kids));
}

}  // namespace

ExprId CodeSet::to_expr(ExprPool* pool) const {
  // pieces on which all encodings have one length, surrogates left out
  constexpr std::pair<std::uint32_t, std::uint32_t> kPlanes[] = {
      {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, kMaxCodePoint}};
  std::vector<ExprId> kids;
  ByteSet single;
  for (const auto& [lo, hi] : ranges_) {
    for (std::uint32_t c = lo; c <= std::min(hi, 0x7Fu); ++c) single.add(static_cast<std::uint8_t>(c));
    if (hi < 0x80) continue;
    for (const auto& [first, last] : kPlanes) {
      const std::uint32_t a = std::max(lo, first), b = std::min(hi, last);
      if (a > b) continue;
      std::string from, to;
      append_utf8(&from, a);
      append_utf8(&to, b);
      kids.push_back(between(pool, Bytes(from.begin(), from.end()), Bytes(to.begin(), to.end()), 0));
    }
  }
  kids.push_back(pool->byte_class(single));
  return pool->alt(std::move(kids));
}

std::string place_of(std::string_view text, std::size_t at) {
  at = std::min(at, text.size());
  std::size_t line = 1, column = 1;
  for (std::size_t i = 0; i < at; ++i) {
    if (text[i] == '\n') {
      ++line;
      column = 1;
    } else if ((static_cast<std::uint8_t>(text[i]) & 0xC0) != 0x80) {
      ++column;
    }
  }
  return cat("line ", line, ", column ", column);
}

}  // namespace gramcore::grammar
