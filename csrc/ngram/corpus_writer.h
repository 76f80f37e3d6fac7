// Writes tokenized.N and offset.N of a shard, document by document.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/file.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {

class CorpusWriter {
 public:
  // `reversed`: store each document's tokens backwards (version 5 of the layout).
  CorpusWriter(const std::string& directory, int shard, int token_bytes, bool reversed);

  // In: any unsigned or signed integer type.  Throws InvalidArgument when an id is negative or not below the separator.
  template <class In>
  void add(Span<const In> document) {
    with_token_type(token_bytes_, [&](auto t) {
      using T = decltype(t);
      for (std::size_t i = 0; i < document.size(); ++i) {
        const In id = document[i];
        GC_CHECK(id >= In{0} && static_cast<std::uint64_t>(id) < separator<T>(), "token ids must be in [0, ",
                 std::uint32_t{separator<T>()}, ") for ", 8 * token_bytes_, "-bit tokens, got ",
                 static_cast<std::int64_t>(id), " (document ", num_documents_, ", position ", i,
                 "); choose a wider token_dtype");
      }
      const std::uint64_t at = tokens_.bytes_written();
      offsets_.write(&at, sizeof(at));
      const T mark = separator<T>();
      tokens_.write(&mark, sizeof(mark));
      for (std::size_t i = 0; i < document.size(); ++i) {
        const T token = static_cast<T>(document[reversed_ ? document.size() - 1 - i : i]);
        tokens_.write(&token, sizeof(token));
      }
    });
    ++num_documents_;
  }
  std::int64_t num_documents() const { return num_documents_; }
  std::int64_t num_tokens() const { return static_cast<std::int64_t>(tokens_.bytes_written()) / token_bytes_; }
  void commit() {
    offsets_.commit();
    tokens_.commit();
  }

 private:
  AtomicFile tokens_, offsets_;
  int token_bytes_;
  bool reversed_;
  std::int64_t num_documents_ = 0;
};

inline CorpusWriter::CorpusWriter(const std::string& directory, int shard, int token_bytes, bool reversed)
    : tokens_(cat(directory, "/tokenized.", shard)),
      offsets_(cat(directory, "/offset.", shard)),
      token_bytes_(token_bytes),
      reversed_(reversed) {}

}  // namespace gramcore::ngram
