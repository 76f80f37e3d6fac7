// Runs the threads of one block at a time as fibers on the calling CPU thread.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "launch.h"
#include "thread.h"
#include "warp.h"

namespace gramcore::cuda_host {

class BlockRunner;

enum class LaneState : unsigned char { ready, at_barrier, at_warp, returned, failed };

struct Lane : Thread {
  BlockRunner* runner = nullptr;
  std::unique_ptr<Fiber> fiber;
  int index = 0;  // linear thread index in the block
  LaneState state = LaneState::ready;
  // Where and for what the lane waits, valid in at_barrier and at_warp.
  Site site{};
  const char* intrinsic = "";
  std::uint32_t mask = 0;
};

// Lanes of one warp that exchange values.  Free when mask == 0; it stays occupied until the last lane has read.
struct WarpSlot {
  std::uint32_t mask = 0, arrived = 0, parted = 0;
  WarpOp op{};
  bool complete = false;
  WarpValue value[kWarpSize];
};

// Addresses that stand for the orderings of __syncwarp(mask) in the race detector.  A lane can run one meeting ahead
// of another that has not yet left, hence two addresses used in turn.
struct WarpEdge {
  std::uint32_t mask = 0;
  unsigned generation = 0;
  std::uint64_t address[2];
};

struct Warp {
  std::uint32_t live = 0;  // lanes that exist and have not returned
  WarpSlot slot[kWarpSize];
  WarpEdge edge[kWarpSize];
};

class BlockRunner {
 public:
  using Body = void (*)(const void* closure);

  // False when the block failed; error() then says why and the runner must not be used again.
  bool run(const LaunchConfig& config, uint3 block_idx, void* dynamic_shared, Body body, const void* closure);
  const std::string& error() const { return error_; }

  // The intrinsics, called on a lane's own stack.
  int barrier(Lane& self, BarrierOp op, bool predicate, Site site);
  WarpMeeting meet(Lane& self, WarpOp op, std::uint32_t mask, const WarpValue& value, Site site);
  WarpValue read(Lane& self, const WarpMeeting& meeting, int lane);
  void part(Lane& self, const WarpMeeting& meeting);
  [[noreturn]] void fail(Lane& self, Site site, std::string&& text);
  void wait(Lane& self, LaneState state);

 private:
  static void lane_main();
  void prepare(const LaunchConfig& config, uint3 block_idx, void* dynamic_shared);
  bool schedule();
  void lane_returned(Lane& self);
  void complete_if_all_arrived(Warp& warp, int first_lane, WarpSlot& slot);
  WarpEdge& edge_of(Warp& warp, std::uint32_t mask);
  std::string describe(const Lane& lane) const;
  std::string deadlock_text() const;

  std::deque<Lane> lanes_;  // grows, never moves: fibers hold pointers
  std::vector<std::unique_ptr<Warp>> warps_;
  int num_threads_ = 0;
  Body body_ = nullptr;
  const void* closure_ = nullptr;
  bool descending_ = false;

  int arrived_ = 0, true_count_ = 0;
  BarrierOp barrier_op_{};
  Site barrier_site_{};
  unsigned barrier_generation_ = 0;
  int barrier_result_[2] = {};
  std::uint64_t barrier_edge_[2] = {}, start_edge_ = 0, end_edge_ = 0;  // addresses for the race detector

  std::string error_;
};

}  // namespace gramcore::cuda_host
