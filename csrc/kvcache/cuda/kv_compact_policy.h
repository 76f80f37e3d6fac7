// Launch shape of kv_compact.  Chosen by reasoning, not tuned on a device.
#pragma once

namespace gramcore::kvcache {

struct KvCompactPolicy {
  static constexpr int kThreads = 128;
  static constexpr int kMaxCaches = 256;  // tensors of one launch: their table is passed as kernel parameters
};

}  // namespace gramcore::kvcache
