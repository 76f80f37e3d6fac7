// Sets logits outside a token bitmask to -inf, in place.  The CUDA twin is grammar/cuda/apply_bitmask.h.
#pragma once

#include <cstdint>

namespace gramcore::grammar {

struct ApplyBitmaskArgs {
  void* logits;                 // row r starts logits_stride * r elements in; written in place
  const std::int32_t* bitmask;  // row r starts bitmask_stride * r words in; bit t % 32 of word t / 32 allows token t
  const std::int32_t*
      row_index;                // rows to mask, each in [0, rows of logits and bitmask), in any order; null: 0, 1, ...
  std::int64_t num_rows;        // entries of row_index, or rows of logits
  std::int64_t vocab_size;      // V
  std::int64_t logits_stride;   // >= V
  std::int64_t bitmask_stride;  // >= ceil(V / 32)
  std::int32_t dtype;           // gramcore::DType: f32, f16 or bf16
};

// On the CPU, over the thread pool.  Rows must be in range and distinct.  Throws TypeMismatch for another dtype.
void apply_bitmask(const ApplyBitmaskArgs& args);

}  // namespace gramcore::grammar
