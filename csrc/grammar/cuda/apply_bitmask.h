// The CUDA twin of grammar/apply_bitmask.h.
#pragma once

#include "grammar/apply_bitmask.h"

// Pointers are device pointers, stream is a cudaStream_t of the current device.  Status as in core/cuda/status.h.
extern "C" int gc_cuda_apply_bitmask(const gramcore::grammar::ApplyBitmaskArgs* args, void* stream);
