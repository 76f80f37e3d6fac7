// Launch shape of the multi-tensor step.  Chosen by reasoning, not tuned on a device.
#pragma once

#include <cstdint>

namespace gramcore::optim {

struct StepPolicy {
  static constexpr int kThreads = 256;
  static constexpr std::int64_t kChunk = 8192;  // elements of one block: four groups of eight per thread
  // The tensor table travels as a kernel parameter (at most 32,764 bytes on sm_70 and later with CUDA 12.1 or later).
  static constexpr int kMaxTensors = 416;
  static constexpr std::int64_t kTileRows = 64;  // rank-1 maxima: rows a block goes through, one atomic per column
};

}  // namespace gramcore::optim
