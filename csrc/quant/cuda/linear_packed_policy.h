// Launch shape of linear_packed.  Chosen by reasoning, not tuned on a device.
#pragma once

namespace gramcore::quant {

struct LinearPackedPolicy {
  static constexpr int kSegments = 16;  // of the columns; part of the definition of the result
  static constexpr int kThreads = 16 * kSegments;
  static constexpr int kMinBlocks = 2;    // per multiprocessor: room for the registers of eight rows
  static constexpr int kVectorRows = 8;   // up to here one block per panel and all rows; above, tiles
  static constexpr int kTileRows = 32;    // of x
  static constexpr int kTilePanels = 4;   // of 16 weight rows
  static constexpr int kStageBlocks = 4;  // of 32 columns of x in shared memory
  static constexpr int kPrepareWarps = 8;
};

}  // namespace gramcore::quant
