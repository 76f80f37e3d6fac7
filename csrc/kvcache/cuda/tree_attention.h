// The CUDA twin of kvcache/tree_attention.h.
#pragma once

#include "kvcache/tree_attention.h"

namespace gramcore::kvcache {

static_assert(sizeof(AttentionProblem) == 264, "part of the C ABI; tests/cuda/test_tree_attention.py mirrors it");

// Everything in `problem` that points does so into device memory, lengths and starts too: their values are checked by
// the kernel, which traps (the stream then reports an error) where check_attention would throw.
struct TreeAttentionArgs {
  AttentionProblem problem;
  float* workspace;  // gc_cuda_tree_attention_workspace floats, or null when that is 0
  std::int64_t workspace_floats;
};

}  // namespace gramcore::kvcache

// Floats of device memory the launch needs; depends on sizes only.
extern "C" std::int64_t gc_cuda_tree_attention_workspace(const gramcore::kvcache::AttentionProblem* problem);

// stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_tree_attention(const gramcore::kvcache::TreeAttentionArgs* args, void* stream);

// A ragged batch (see sequence_of): problem.nodes is the number of all rows, counts (batch) those of every sequence, on
// the host.  A launch per sequence that has rows, in stream order; they share the workspace.
extern "C" std::int64_t gc_cuda_tree_attention_ragged_workspace(const gramcore::kvcache::AttentionProblem* problem,
                                                                const std::int64_t* counts);
extern "C" int gc_cuda_tree_attention_ragged(const gramcore::kvcache::TreeAttentionArgs* args,
                                             const std::int64_t* counts, void* stream);
