#include "ngram/shard.h"

#include <unistd.h>

#include <algorithm>
#include <vector>

#include "ngram/alphabet.h"
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

template <class T>
void Shard::verify_documents() const {
  const auto view = this->view<T>();
  std::int64_t separators = 0;
  for (std::int64_t p = 0; p < num_tokens_; ++p) {
    separators += view.token_at(static_cast<std::uint64_t>(p) * sizeof(T)) == separator<T>();
  }
  GC_CHECK_AS(FormatError, separators == num_documents_, offset_.path(), ": must have one entry per separator (",
              separators, " in ", tokenized_.path(), "), got ", num_documents_);
  for (std::int64_t d = 0; d < num_documents_; ++d) {
    const auto before = static_cast<std::uint64_t>(document(d).begin - 1) * sizeof(T);
    GC_CHECK_AS(FormatError, view.token_at(before) == separator<T>(), offset_.path(), ": entry ", d,
                " must point at a separator");
  }
}

// A table is right if and only if, ranks taken in order, the suffix one token longer than that of each rank has the
// next rank of those that begin with its first token, of which the suffix of the last token alone has the first: so
// every suffix is reached, from the shortest on, and those with one first token are in the order of what follows.
template <class T>
void Shard::verify_ranks() const {
  const auto view = this->view<T>();
  const Span<const T> tokens(reinterpret_cast<const T*>(tokenized_.bytes().data()),
                             static_cast<std::size_t>(num_tokens_));
  const Alphabet<T> alphabet(tokens);
  std::vector<std::int64_t> cursors(alphabet.size() + 1, 0);
  for (const T t : tokens) ++cursors[alphabet.rank(t) + 1];
  for (std::size_t c = 1; c < cursors.size(); ++c) cursors[c] += cursors[c - 1];
  const auto next_of = [&](std::uint64_t pointer) { return cursors[alphabet.rank(view.token_at(pointer))]++; };
  const auto expect = [&](std::int64_t rank, std::uint64_t pointer) {
    GC_CHECK_AS(FormatError, rank < num_tokens_ && view.pointer(rank) == pointer, table_.path(), ": entry ", rank,
                " must be ", pointer, "; build the table again");
  };
  const std::uint64_t last = tokenized_.size() - sizeof(T);
  expect(next_of(last), last);
  // What is read is asked for ahead, a block of ranks at a time.
  constexpr std::int64_t kBlock = 512;
  std::uint64_t longer[kBlock];
  std::int64_t ranks[kBlock];
  for (std::int64_t begin = 0; begin < num_tokens_; begin += kBlock) {
    const std::int64_t end = std::min(begin + kBlock, num_tokens_);
    std::size_t n = 0;
    for (std::int64_t r = begin; r < end; ++r) {
      const std::uint64_t pointer = view.pointer(r);
      if (pointer == 0) continue;
      longer[n] = pointer - sizeof(T);
      __builtin_prefetch(view.text + longer[n++]);
    }
    for (std::size_t i = 0; i < n; ++i) {
      ranks[i] = next_of(longer[i]);
      if (ranks[i] < num_tokens_) view.prefetch_table(ranks[i]);
    }
    for (std::size_t i = 0; i < n; ++i) expect(ranks[i], longer[i]);
  }
}

void Shard::verify() const {
  with_token_type(token_bytes_, [&](auto t) {
    using T = decltype(t);
    verify_documents<T>();
    verify_ranks<T>();
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
