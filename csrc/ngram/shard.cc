#include "ngram/shard.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "ngram/shard_view.h"

namespace gramcore::ngram {
namespace {

std::string file_path(const std::string& directory, const char* stem, int number) {
  return number == kWholeDirectory ? cat(directory, "/", stem) : cat(directory, "/", stem, ".", number);
}

}  // namespace

Shard::Shard(const std::string& directory, int number, int token_bytes, bool use_accel)
    : tokenized_(file_path(directory, "tokenized", number)),
      table_(file_path(directory, "table", number), Access::random),
      offset_(file_path(directory, "offset", number)) {
  const std::uint64_t text = tokenized_.size(), table = table_.size();
  GC_CHECK_AS(FormatError, text > 0, tokenized_.path(), ": must not be empty; build the index again");
  width_ = pointer_bytes(text);
  GC_CHECK_AS(FormatError, table > 0 && table % static_cast<unsigned>(width_) == 0, table_.path(),
              ": size must be a multiple of ", width_, " (the pointer width for ", text, " bytes of tokens), got ",
              table, "; the file is truncated or belongs to another shard");
  const std::uint64_t n = table / static_cast<unsigned>(width_);
  const std::uint64_t implied = text % n == 0 ? text / n : 0;
  GC_CHECK_AS(FormatError, implied == 1 || implied == 2 || implied == 4, table_.path(),
              ": must have one pointer per token, got ", n, " pointers for ", text, " bytes of tokens (",
              tokenized_.path(), "); the files are truncated or belong to different shards");
  GC_CHECK_AS(FormatError, token_bytes == 0 || static_cast<std::uint64_t>(token_bytes) == implied, tokenized_.path(),
              ": tokens must be ", token_bytes, " bytes wide, got ", implied, " by the size of ", table_.path(),
              "; open it with the right token_dtype, or the table is truncated");
  token_bytes_ = static_cast<int>(implied);
  num_tokens_ = static_cast<std::int64_t>(n);
  GC_CHECK_AS(FormatError, offset_.size() > 0 && offset_.size() % 8 == 0, offset_.path(),
              ": must hold 8 bytes per document, got ", offset_.size());
  num_documents_ = static_cast<std::int64_t>(offset_.size() / 8);
  GC_CHECK_AS(FormatError, num_documents_ <= num_tokens_ && offset(0) == 0, offset_.path(),
              ": must begin with offset 0 and have at most one document per token, got ", num_documents_,
              " documents, first at ", offset(0), "; it belongs to another shard");
  static_cast<void>(offset(num_documents_ - 1));
  const std::string accel = file_path(directory, "accel", number);
  if (use_accel && ::access(accel.c_str(), F_OK) == 0) accel_ = Accel(accel, *this);
}

void Shard::bad_pointer(std::int64_t rank) const {
  throw FormatError(cat(table_.path(), ": entry ", rank, " does not point at a token; the file is damaged"));
}

std::uint64_t Shard::pointer(std::int64_t rank) const {
  const std::uint64_t at = static_cast<std::uint64_t>(rank) * static_cast<unsigned>(width_);
  std::uint64_t value = 0;
  if (at + 8 <= table_.size()) {
    std::memcpy(&value, table_.bytes().data() + at, 8);
    if (width_ < 8) value &= (std::uint64_t{1} << (8 * width_)) - 1;
  } else {
    std::memcpy(&value, table_.bytes().data() + at, static_cast<std::size_t>(width_));
  }
  if (value >= tokenized_.size() || value % static_cast<unsigned>(token_bytes_) != 0) [[unlikely]]
    bad_pointer(rank);
  return value;
}

std::uint64_t Shard::offset(std::int64_t document) const {
  const auto value = load_raw<std::uint64_t>(offset_.bytes().data() + 8 * document);
  GC_CHECK_AS(FormatError, value < tokenized_.size() && value % static_cast<unsigned>(token_bytes_) == 0,
              offset_.path(), ": entry ", document, " must point into ", tokenized_.path(), ", got ", value);
  return value;
}

std::int64_t Shard::position(std::int64_t rank) const {
  GC_CHECK_AS(OutOfRange, rank >= 0 && rank < num_tokens_, "rank must be in [0, ", num_tokens_, "), got ", rank);
  return static_cast<std::int64_t>(pointer(rank)) / token_bytes_;
}

std::uint32_t Shard::token(std::int64_t position) const {
  const unsigned char* at = tokenized_.bytes().data() + position * token_bytes_;
  return with_token_type(token_bytes_, [&](auto t) { return std::uint32_t{load_raw<decltype(t)>(at)}; });
}

RankRange Shard::find(Span<const std::uint32_t> ids) const {
  return with_token_type(token_bytes_, [&](auto t) {
    using T = decltype(t);
    const TypedQuery<T> query(ids);
    return query.possible() ? view<T>().find(query.span()) : RankRange{};
  });
}

RankRange Shard::narrow(RankRange range, Span<const std::uint32_t> ids, std::size_t skip) const {
  return with_token_type(token_bytes_, [&](auto t) {
    using T = decltype(t);
    const TypedQuery<T> query(ids);
    if (!query.possible()) return RankRange{};
    return skip == 0 ? view<T>().find(query.span()) : view<T>().narrow(range, query.span(), skip);
  });
}

std::int64_t Shard::document_of(std::int64_t position) const {
  std::int64_t low = 0, high = num_documents_;  // the last document whose separator is at or before the position
  while (high - low > 1) {
    const std::int64_t middle = low + (high - low) / 2;
    (static_cast<std::int64_t>(offset(middle)) / token_bytes_ <= position ? low : high) = middle;
  }
  return low;
}

RankRange Shard::document(std::int64_t index) const {
  GC_CHECK_AS(OutOfRange, index >= 0 && index < num_documents_, "document must be in [0, ", num_documents_, "), got ",
              index);
  const std::int64_t begin = static_cast<std::int64_t>(offset(index)) / token_bytes_ + 1;
  const std::int64_t end =
      index + 1 < num_documents_ ? static_cast<std::int64_t>(offset(index + 1)) / token_bytes_ : num_tokens_;
  GC_CHECK_AS(FormatError, begin <= end, offset_.path(), ": entry ", index + 1, " must be greater than entry ", index,
              "; the file is damaged");
  return {begin, end};
}

template <class T, class Rank>
void Shard::verify_typed() const {
  const unsigned char* text = tokenized_.bytes().data();
  const auto at = [&](std::int64_t p) { return load_raw<T>(text + static_cast<std::size_t>(p) * sizeof(T)); };
  std::int64_t separators = 0;
  for (std::int64_t p = 0; p < num_tokens_; ++p) separators += at(p) == separator<T>();
  GC_CHECK_AS(FormatError, separators == num_documents_, offset_.path(), ": must have one entry per separator (",
              separators, " in ", tokenized_.path(), "), got ", num_documents_);
  for (std::int64_t d = 0; d < num_documents_; ++d) {
    const auto begin = document(d).begin;
    GC_CHECK_AS(FormatError, at(begin - 1) == separator<T>(), offset_.path(), ": entry ", d,
                " must point at a separator");
  }
  // Ranks are right if they are a permutation and neighbours agree: first tokens ascend and, where those are equal,
  // the suffixes one token on have ascending ranks.
  std::vector<Rank> rank_of(static_cast<std::size_t>(num_tokens_) + 1, 0);  // from 1; the empty suffix comes first
  for (std::int64_t r = 0; r < num_tokens_; ++r) {
    auto& slot = rank_of[static_cast<std::size_t>(position(r))];
    GC_CHECK_AS(FormatError, slot == 0, table_.path(), ": entry ", r, " must not repeat entry ", slot - 1);
    slot = static_cast<Rank>(r + 1);
  }
  for (std::int64_t r = 1; r < num_tokens_; ++r) {
    const std::int64_t a = position(r - 1), b = position(r);
    const T first = rank_order(at(a)), second = rank_order(at(b));
    const bool ascends = first < second || (first == second && rank_of[static_cast<std::size_t>(a) + 1] <
                                                                   rank_of[static_cast<std::size_t>(b) + 1]);
    GC_CHECK_AS(FormatError, ascends, table_.path(), ": entries ", r - 1, " and ", r,
                " must ascend; build the table again");
  }
}

void Shard::verify() const {
  with_token_type(token_bytes_, [&](auto t) {
    using T = decltype(t);
    return num_tokens_ < 0xFFFFFFFF ? verify_typed<T, std::uint32_t>() : verify_typed<T, std::uint64_t>();
  });
  if (accel_.present()) accel_.verify(*this);
}

void Shard::load() {
  tokenized_.load();
  table_.load();
  offset_.load();
  accel_.load();
}

}  // namespace gramcore::ngram
