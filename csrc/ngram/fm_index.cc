#include "ngram/fm_index.h"

#include <algorithm>

#include "ngram/suffix_array.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {

void RankBits::finish() {
  blocks_.resize(words_.size() / 8);
  std::uint64_t sum = 0;
  for (std::size_t b = 0; b < blocks_.size(); ++b) {
    blocks_[b] = static_cast<std::uint32_t>(sum);
    for (std::size_t w = 0; w < 8; ++w) sum += static_cast<unsigned>(__builtin_popcountll(words_[8 * b + w]));
  }
}

template <class T>
FmIndex FmIndex::build(Span<const T> tokens, int sample_every) {
  GC_CHECK(sample_every >= 1, "sample_every must be >= 1, got ", sample_every);
  FmIndex fm;
  const std::size_t n = tokens.size();
  fm.size_ = n;
  fm.sample_every_ = sample_every;
  fm.symbols_.assign(tokens.begin(), tokens.end());
  std::sort(fm.symbols_.begin(), fm.symbols_.end());
  fm.symbols_.erase(std::unique(fm.symbols_.begin(), fm.symbols_.end()), fm.symbols_.end());
  fm.symbols_.shrink_to_fit();

  // Backwards, as dense symbols in big-endian bytes: the suffix order is then that of the symbols.
  std::vector<std::uint32_t> text(n);
  for (std::size_t i = 0; i < n; ++i) {
    const auto at = std::lower_bound(fm.symbols_.begin(), fm.symbols_.end(), std::uint32_t{tokens[n - 1 - i]});
    text[i] = rank_order(static_cast<std::uint32_t>(at - fm.symbols_.begin()));
  }
  const std::vector<std::int32_t> sa = suffix_array<std::uint32_t, std::int32_t>(text);

  // Row 0 is the empty suffix; row i + 1 is sa[i].  The row of the whole text has no token before it.
  std::vector<std::uint32_t> before;
  before.reserve(n);
  fm.marked_ = RankBits(n + 1);
  const auto every = static_cast<std::size_t>(sample_every);
  fm.rows_of_.assign(n / every + 1, 0);
  for (std::size_t row = 0; row <= n; ++row) {
    const std::size_t position = row == 0 ? n : static_cast<std::size_t>(sa[row - 1]);
    if (position == 0) {
      fm.primary_ = row;
    } else {
      before.push_back(rank_order(text[position - 1]));
    }
    if (position % every == 0) {
      fm.marked_.set(row);
      fm.positions_.push_back(static_cast<std::uint32_t>(position));
      fm.rows_of_[position / every] = static_cast<std::uint32_t>(row);
    }
  }
  fm.marked_.finish();

  fm.starts_.assign(fm.symbols_.size() + 1, 0);
  for (const std::uint32_t c : before) ++fm.starts_[c + 1];
  fm.starts_[0] = 1;
  for (std::size_t c = 1; c < fm.starts_.size(); ++c) fm.starts_[c] += fm.starts_[c - 1];
  while ((std::size_t{1} << fm.levels_) < fm.symbols_.size()) ++fm.levels_;
  std::vector<std::uint32_t> next(n);
  for (int level = fm.levels_ - 1; level >= 0; --level) {
    RankBits plane(n);
    std::size_t zero = 0;
    for (std::size_t i = 0; i < n; ++i) zero += ((before[i] >> level) & 1u) == 0;
    std::size_t to[2] = {0, zero};
    for (std::size_t i = 0; i < n; ++i) {
      const unsigned bit = (before[i] >> level) & 1u;
      if (bit) plane.set(i);
      next[to[bit]++] = before[i];
    }
    plane.finish();
    fm.planes_.push_back(std::move(plane));
    fm.zeros_.push_back(zero);
    before.swap(next);
  }
  fm.base_.resize(fm.symbols_.size());
  for (std::size_t c = 0; c < fm.base_.size(); ++c) fm.base_[c] = fm.descend(static_cast<std::uint32_t>(c), 0);
  return fm;
}

template FmIndex FmIndex::build(Span<const std::uint8_t>, int);
template FmIndex FmIndex::build(Span<const std::uint16_t>, int);
template FmIndex FmIndex::build(Span<const std::uint32_t>, int);

std::uint64_t FmIndex::bytes() const {
  std::uint64_t total = marked_.bytes() + (positions_.size() + rows_of_.size() + symbols_.size()) * 4 +
                        (starts_.size() + base_.size()) * 8;
  for (const RankBits& plane : planes_) total += plane.bytes();
  return total;
}

std::uint64_t FmIndex::descend(std::uint32_t symbol, std::uint64_t at) const {
  for (std::size_t level = 0; level < planes_.size(); ++level) {
    const std::uint64_t ones = planes_[level].rank1(at);
    at = (symbol >> (planes_.size() - 1 - level)) & 1u ? zeros_[level] + ones : at - ones;
  }
  return at;
}

FmIndex::Rows FmIndex::extend(Rows rows, std::uint32_t token) const {
  const auto at = std::lower_bound(symbols_.begin(), symbols_.end(), token);
  if (at == symbols_.end() || *at != token || rows.size() == 0) return {};
  const auto symbol = static_cast<std::uint32_t>(at - symbols_.begin());
  const std::uint64_t shift = starts_[symbol] - base_[symbol];
  const Rows next{shift + descend(symbol, skip_end(rows.begin)), shift + descend(symbol, skip_end(rows.end))};
  return next.size() > 0 ? next : Rows{};
}

FmIndex::Rows FmIndex::find(Span<const std::uint32_t> ids) const {
  Rows rows = all();
  for (const std::uint32_t id : ids) rows = extend(rows, id);
  return rows;
}

void FmIndex::successors(Rows rows, std::vector<std::uint32_t>& ids, std::vector<std::int64_t>& counts) const {
  ids.clear();
  counts.clear();
  if (rows.size() == 0 || size_ == 0) return;
  struct Node {
    std::size_t level;
    std::uint32_t symbol;
    std::uint64_t begin, end;
  };
  std::vector<Node> stack{{0, 0, skip_end(rows.begin), skip_end(rows.end)}};
  while (!stack.empty()) {
    const Node node = stack.back();
    stack.pop_back();
    if (node.begin == node.end) continue;
    if (node.level == planes_.size()) {
      ids.push_back(symbols_[node.symbol]);
      counts.push_back(static_cast<std::int64_t>(node.end - node.begin));
      continue;
    }
    const std::uint64_t left = planes_[node.level].rank1(node.begin), right = planes_[node.level].rank1(node.end);
    const std::uint64_t zero = zeros_[node.level];
    stack.push_back({node.level + 1, 2 * node.symbol + 1, zero + left, zero + right});
    stack.push_back({node.level + 1, 2 * node.symbol, node.begin - left, node.end - right});
  }
}

std::uint64_t FmIndex::back(std::uint64_t row, std::uint32_t* symbol) const {
  std::uint64_t at = skip_end(row);
  std::uint32_t c = 0;
  for (std::size_t level = 0; level < planes_.size(); ++level) {
    const std::uint64_t ones = planes_[level].rank1(at);
    const bool bit = planes_[level].test(at);
    c = 2 * c + bit;
    at = bit ? zeros_[level] + ones : at - ones;
  }
  *symbol = c;
  return starts_[c] + at - base_[c];
}

void FmIndex::locate(Rows rows, std::size_t length, std::vector<std::int64_t>& positions) const {
  positions.clear();
  for (std::uint64_t row = rows.begin; row < rows.end; ++row) {
    std::uint64_t at = row, steps = 0;
    std::uint32_t symbol = 0;
    for (; !marked_.test(at); ++steps) at = back(at, &symbol);
    const std::uint64_t backwards = positions_[marked_.rank1(at)] + steps;
    positions.push_back(static_cast<std::int64_t>(size_ - backwards - length));
  }
  std::sort(positions.begin(), positions.end());
}

std::vector<std::uint32_t> FmIndex::extract(std::uint64_t begin, std::uint64_t end) const {
  GC_CHECK_AS(OutOfRange, begin <= end && end <= size_, "positions must be in [0, ", size_, "], got ", begin, " to ",
              end);
  std::vector<std::uint32_t> out(end - begin);
  if (out.empty()) return out;
  const std::uint64_t every = static_cast<std::uint64_t>(sample_every_), wanted = size_ - begin;
  const std::uint64_t sample = (wanted + every - 1) / every;
  // Walk back from the next kept position, or from the empty suffix at the end.
  std::uint64_t position = std::min(sample * every, size_), row = sample * every <= size_ ? rows_of_[sample] : 0;
  std::uint32_t symbol = 0;
  for (; position > wanted; --position) row = back(row, &symbol);
  for (std::uint32_t& token : out) {
    row = back(row, &symbol);
    token = symbols_[symbol];
  }
  return out;
}

}  // namespace gramcore::ngram
