#include "ngram/fm_index.h"

#include <algorithm>

#include "ngram/suffix_array.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {

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
  const auto every = static_cast<std::size_t>(sample_every),
             row_every = static_cast<std::size_t>(fm.row_sample_every());
  fm.positions_ = PackedInts(n / every + 1, n / every);
  fm.rows_of_ = PackedInts(n / row_every + 1, n);
  std::size_t kept = 0;
  for (std::size_t row = 0; row <= n; ++row) {
    const std::size_t position = row == 0 ? n : static_cast<std::size_t>(sa[row - 1]);
    if (position == 0) {
      fm.primary_ = row;
    } else {
      before.push_back(rank_order(text[position - 1]));
    }
    fm.marked_.push(position % every == 0);
    if (position % every == 0) fm.positions_.set(kept++, position / every);
    if (position % row_every == 0) fm.rows_of_.set(position / row_every, row);
  }
  fm.marked_.finish();
  fm.starts_.assign(fm.symbols_.size() + 1, 0);
  for (const std::uint32_t c : before) ++fm.starts_[c + 1];
  fm.starts_[0] = 1;
  for (std::size_t c = 1; c < fm.starts_.size(); ++c) fm.starts_[c] += fm.starts_[c - 1];
  fm.before_ = WaveletTree(std::move(before), static_cast<std::uint32_t>(fm.symbols_.size()));
  return fm;
}

template FmIndex FmIndex::build(Span<const std::uint8_t>, int);
template FmIndex FmIndex::build(Span<const std::uint16_t>, int);
template FmIndex FmIndex::build(Span<const std::uint32_t>, int);

std::uint64_t FmIndex::bytes() const {
  return before_.bytes() + marked_.bytes() + positions_.bytes() + rows_of_.bytes() + symbols_.size() * 4 +
         starts_.size() * 8;
}

FmIndex::Rows FmIndex::extend(Rows rows, std::uint32_t token) const {
  const auto at = std::lower_bound(symbols_.begin(), symbols_.end(), token);
  if (at == symbols_.end() || *at != token || rows.size() == 0) return {};
  const auto symbol = static_cast<std::uint32_t>(at - symbols_.begin());
  std::uint64_t begin = skip_end(rows.begin), end = skip_end(rows.end);
  before_.rank(symbol, &begin, &end);
  return begin < end ? Rows{starts_[symbol] + begin, starts_[symbol] + end} : Rows{};
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
  std::vector<WaveletTree::Found> found;
  before_.distinct(skip_end(rows.begin), skip_end(rows.end), &found);
  std::sort(found.begin(), found.end(), [](const auto& x, const auto& y) { return x.symbol < y.symbol; });
  for (const auto& f : found) {
    ids.push_back(symbols_[f.symbol]);
    counts.push_back(static_cast<std::int64_t>(f.count));
  }
}

std::uint64_t FmIndex::back(std::uint64_t row, std::uint32_t* symbol) const {
  std::uint64_t rank = 0;
  *symbol = before_.access(skip_end(row), &rank);
  return starts_[*symbol] + rank;
}

void FmIndex::locate(Rows rows, std::size_t length, std::vector<std::int64_t>& positions) const {
  positions.clear();
  for (std::uint64_t row = rows.begin; row < rows.end; ++row) {
    std::uint64_t at = row, steps = 0, rank = 0;
    std::uint32_t symbol = 0;
    for (bool here = false; rank = marked_.rank1(at, &here), !here; ++steps) at = back(at, &symbol);
    const std::uint64_t backwards = positions_[rank] * static_cast<std::uint64_t>(sample_every_) + steps;
    positions.push_back(static_cast<std::int64_t>(size_ - backwards - length));
  }
  std::sort(positions.begin(), positions.end());
}

std::vector<std::uint32_t> FmIndex::extract(std::uint64_t begin, std::uint64_t end) const {
  GC_CHECK_AS(OutOfRange, begin <= end && end <= size_, "positions must be in [0, ", size_, "], got ", begin, " to ",
              end);
  std::vector<std::uint32_t> out(end - begin);
  if (out.empty()) return out;
  const std::uint64_t every = row_sample_every(), wanted = size_ - begin;
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
