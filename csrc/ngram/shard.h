// One shard of an index: tokenized.N, table.N and offset.N, memory-mapped.  The files are treated as hostile: sizes
// are checked when opened, every pointer when it is followed.
#pragma once

#include <cstdint>
#include <string>

#include "core/file.h"
#include "core/span.h"
#include "ngram/accel.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {

template <class T>
struct ShardView;

// Number of the only shard of a directory whose files have none in their names (version 6 of the layout).
inline constexpr int kWholeDirectory = -1;

class Shard {
 public:
  // token_bytes 0: found from the file sizes.  `use_accel`: map accel.N when it is there.  Throws FormatError naming
  // the file, IoError when one is missing.
  Shard(const std::string& directory, int number, int token_bytes, bool use_accel = true);

  int token_bytes() const { return token_bytes_; }
  std::int64_t num_tokens() const { return num_tokens_; }  // separators included
  std::int64_t num_documents() const { return num_documents_; }
  std::uint64_t table_bytes() const { return table_.size(); }
  const std::string& name() const { return tokenized_.path(); }

  // Ranks of the suffixes that begin with `ids`; all ranks when `ids` is empty.  Ids the token type cannot hold give
  // an empty range.
  RankRange find(Span<const std::uint32_t> ids) const;
  // The same inside `range`, whose suffixes all begin with the first `skip` ids.
  RankRange narrow(RankRange range, Span<const std::uint32_t> ids, std::size_t skip) const;
  template <class T>
  ShardView<T> view() const;  // shard_view.h; valid while this shard is not moved

  // Position in the text (in tokens) of the suffix of that rank.
  std::int64_t position(std::int64_t rank) const;
  std::uint32_t token(std::int64_t position) const;
  // Start (just past the separator) and end of a document.
  RankRange document(std::int64_t index) const;
  std::int64_t document_of(std::int64_t position) const;

  // Reads everything: separators where offsets say, ranks a permutation in ascending order,
  // acceleration what the table says.  Throws FormatError.
  void verify() const;
  void load();  // all files into memory; before any view is taken
  bool accelerated() const { return accel_.present(); }
  [[noreturn]] void bad_pointer(std::int64_t rank) const;

 private:
  template <class T>
  void verify_documents() const;
  template <class T>
  void verify_ranks() const;
  std::uint64_t pointer(std::int64_t rank) const;
  std::uint64_t offset(std::int64_t document) const;

  MappedFile tokenized_, table_, offset_;
  Accel accel_;
  int token_bytes_ = 0, width_ = 0;
  std::int64_t num_tokens_ = 0, num_documents_ = 0;
};

}  // namespace gramcore::ngram
