// Suffix sorting of a text larger than memory, block by block, exact whatever the repetitions.
//
// Blocks are sorted from the last to the first (Ferragina, Gagie & Manzini 2012; Kärkkäinen, Kempa & Puglisi 2015):
//   1. Compare every suffix of the block with the suffix behind the block: one pass of the Z algorithm and, where the
//      match reaches the block's end, a bit known from the block before.  With these bits the block's own text,
//      with its last symbol split in three, sorts as the whole text would: induced sorting in memory.
//   2. Walk the text behind the block backwards, counting for each of its suffixes between which two of the block's
//      it falls (block_rank.h): the gaps.
// At the end one pass over all blocks merges them by their gaps.  Nothing is compared token by token across blocks, so
// the time does not depend on the text: about (tokens of the text) x (blocks) / 2 steps of 2.
//
// Files beside the table: <table>.part.B, .gap.B and .gt.B; a block whose .gt.B is there is done and is not sorted
// again.
#pragma once

#include <cstdint>
#include <string>

#include "core/file.h"

namespace gramcore::ngram {

class ChunkedSort {
 public:
  // Throws FormatError when the text is no multiple of the token width, InvalidArgument for a bad block size.
  ChunkedSort(const std::string& tokenized_path, const std::string& table_path, int token_bytes,
              std::int64_t block_tokens);

  // Bytes of memory that sorting a text of that length needs, beside the mapped text and the ranks of token ids.
  static std::int64_t memory_bytes(std::int64_t num_tokens, std::int64_t block_tokens);

  std::int64_t num_blocks() const { return num_blocks_; }
  // Blocks that earlier calls, or an earlier process, have sorted.
  std::int64_t num_done() const;
  // Sorts the last block not yet done.
  void sort_next();
  // Writes the table and removes the files of the blocks.  All blocks must be done.
  void merge();

 private:
  template <class T>
  friend class ChunkedSorter;
  std::string file(const char* kind, std::int64_t block) const;
  std::int64_t begin(std::int64_t block) const { return block * block_tokens_; }

  MappedFile text_;
  std::string table_path_;
  int token_bytes_;
  std::int64_t num_tokens_, block_tokens_, num_blocks_;
};

}  // namespace gramcore::ngram
