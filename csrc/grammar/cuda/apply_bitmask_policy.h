// Launch shape of apply_bitmask.  Chosen by reasoning, not tuned on a device.
#pragma once

namespace gramcore::grammar {

struct ApplyBitmaskPolicy {
  static constexpr int kThreads = 256;
  static constexpr int kVectorsPerThread = 4;  // 16-byte vectors: four independent stores in flight per thread
};

}  // namespace gramcore::grammar
