// Launch shape of tree_attention.  Chosen by reasoning, not tuned on a device.
#pragma once

namespace gramcore::kvcache {

struct TreeAttentionPolicy {
  static constexpr int kWarps = 8;           // rows of a block: one per warp
  static constexpr int kTileKeys = 32;       // one key per lane
  static constexpr int kSplitKeys = 1024;    // part of the definition of the result, see tree_attention.cuh
  static constexpr int kMaxHeadDim = 256;    // eight dimensions per lane
  static constexpr int kEnoughBlocks = 132;  // from here on splits of a row are walked by one block
  static constexpr int kMinBlocks = 2;       // per multiprocessor: room for the registers of 256 dimensions
};

}  // namespace gramcore::kvcache
