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
  std::vector<std::uint64_t> counts(fm.symbols_.size(), 0);
  for (const std::uint32_t c : before) ++counts[c];
  fm.count_rows(counts);
  fm.before_ = WaveletTree(std::move(before), static_cast<std::uint32_t>(fm.symbols_.size()));
  return fm;
}

template FmIndex FmIndex::build(Span<const std::uint8_t>, int);
template FmIndex FmIndex::build(Span<const std::uint16_t>, int);
template FmIndex FmIndex::build(Span<const std::uint32_t>, int);

void FmIndex::count_rows(const std::vector<std::uint64_t>& counts) {
  starts_.assign(counts.size() + 1, 1);
  for (std::size_t c = 0; c < counts.size(); ++c) starts_[c + 1] = starts_[c] + counts[c];
}

namespace {

constexpr char kMagic[] = "GCNGFMIX";
constexpr std::uint32_t kVersion = 1;
constexpr std::uint32_t kMaxSampleEvery = 1u << 20;

}  // namespace

struct FmIndex::Facts {
  std::uint64_t size, primary;
  std::uint32_t sample_every, num_symbols;
  WaveletTree::Facts before;
  std::uint64_t marked_data;
};

void FmIndex::save(const std::string& path) const {
  const Facts facts{size_,
                    primary_,
                    static_cast<std::uint32_t>(sample_every_),
                    static_cast<std::uint32_t>(symbols_.size()),
                    before_.facts(),
                    marked_.data_bytes()};
  SectionWriter file;
  file.add(Span<const Facts>(&facts, 1));
  file.add(Span<const std::uint32_t>(symbols_));
  before_.save(file);
  marked_.save(file);
  positions_.save(file);
  rows_of_.save(file);
  file.save(path, kMagic, kVersion);
}

FmIndex FmIndex::load(const std::string& path) {
  SectionReader file(path, kMagic, kVersion, "an FM-index");
  const Facts facts = file.take<Facts>(1)[0];
  const std::uint64_t n = facts.size;
  file.require(n < (std::uint64_t{1} << 31) && facts.primary <= n && facts.num_symbols <= n &&
                   (n == 0) == (facts.num_symbols == 0) && facts.sample_every >= 1 &&
                   facts.sample_every <= kMaxSampleEvery && facts.before.bits <= 64 * n,
               "sizes must agree with each other");
  FmIndex fm;
  fm.size_ = n;
  fm.primary_ = facts.primary;
  fm.sample_every_ = static_cast<int>(facts.sample_every);
  const auto symbols = file.take<std::uint32_t>(facts.num_symbols);
  fm.symbols_.assign(symbols.begin(), symbols.end());
  for (std::size_t c = 1; c < symbols.size(); ++c) file.require(symbols[c - 1] < symbols[c], "symbols must ascend");
  std::vector<std::uint64_t> counts;
  fm.before_ = WaveletTree::map(file, n, facts.num_symbols, facts.before, &counts);
  fm.count_rows(counts);
  fm.marked_ = HybridBits::map(file, n + 1, facts.marked_data);
  const std::uint64_t kept = n / facts.sample_every + 1;
  file.require(fm.marked_.rank1(n + 1, nullptr) == kept, "as many rows must be marked as positions are kept");
  fm.positions_ = PackedInts::map(file, kept, n / facts.sample_every);
  fm.rows_of_ = PackedInts::map(file, n / fm.row_sample_every() + 1, n);
  fm.file_ = file.finish();
  return fm;
}

void FmIndex::require(bool holds) const {
  GC_CHECK_AS(FormatError, holds, file_.path(), ": must be the index of a text; the file was forged, save it again");
}

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
  require(row != primary_);
  *symbol = before_.access(skip_end(row), &rank);
  return starts_[*symbol] + rank;
}

void FmIndex::locate(Rows rows, std::size_t length, std::vector<std::int64_t>& positions) const {
  positions.clear();
  for (std::uint64_t row = rows.begin; row < rows.end; ++row) {
    std::uint64_t at = row, steps = 0, rank = 0;
    std::uint32_t symbol = 0;
    for (bool here = false; rank = marked_.rank1(at, &here), !here; ++steps) {
      require(steps < static_cast<std::uint64_t>(sample_every_));
      at = back(at, &symbol);
    }
    const std::uint64_t backwards = positions_[rank] * static_cast<std::uint64_t>(sample_every_) + steps;
    require(backwards + length <= size_);
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
  require(row <= size_);
  std::uint32_t symbol = 0;
  for (; position > wanted; --position) row = back(row, &symbol);
  for (std::uint32_t& token : out) {
    row = back(row, &symbol);
    token = symbols_[symbol];
  }
  return out;
}

}  // namespace gramcore::ngram
