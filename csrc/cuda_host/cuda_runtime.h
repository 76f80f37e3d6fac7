// Host execution layer: stands in for NVIDIA's <cuda_runtime.h> when a .cu file is compiled with a plain
// C++17 compiler (-x c++ -I csrc/cuda_host).  The threads of a block run as fibers on one CPU thread, blocks
// run on several CPU threads.  Used by tests only; docs/cuda.md says what it covers and what it does not.
#pragma once

#include "api.h"
#include "atomics.h"
#include "intrinsics.h"
#include "launch.h"
#include "qualifiers.h"
#include "thread.h"
#include "vector_types.h"
#include "warp.h"
