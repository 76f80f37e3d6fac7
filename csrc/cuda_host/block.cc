#include "block.h"

#include <cstdio>
#include <cstring>
#include <utility>

#include "sanitizer.h"

namespace gramcore::cuda_host {

__thread const Thread* current_thread = nullptr;

namespace {

Lane& current_lane() {
  return *const_cast<Lane*>(static_cast<const Lane*>(current_thread));
}

bool same_site(Site a, Site b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

const char* name_of(BarrierOp op) {
  constexpr const char* names[] = {"__syncthreads()", "__syncthreads_or()", "__syncthreads_and()",
                                   "__syncthreads_count()"};
  return names[static_cast<int>(op)];
}
const char* name_of(WarpOp op) {
  constexpr const char* names[] = {"__syncwarp()", "a warp vote", "a shuffle", "__match_any_sync()",
                                   "a warp matrix operation"};
  return names[static_cast<int>(op)];
}

std::string text_of(uint3 v) {
  char buffer[48];
  std::snprintf(buffer, sizeof buffer, "(%u, %u, %u)", v.x, v.y, v.z);
  return buffer;
}
std::string hex(std::uint32_t mask) {
  char buffer[16];
  std::snprintf(buffer, sizeof buffer, "0x%08x", mask);
  return buffer;
}
std::string text_of(Site site) {
  return std::string(site.file) + ":" + std::to_string(site.line);
}

}  // namespace

// The body of every fiber: once per block, for as long as the runner lives.
void BlockRunner::lane_main() {
  Lane& self = current_lane();
  BlockRunner& runner = *self.runner;
  self.fiber->begin();
  for (;;) {
    sanitizer::acquire(&runner.start_edge_);
    runner.body_(runner.closure_);
    sanitizer::release(&runner.end_edge_);
    runner.lane_returned(self);
    self.fiber->leave();
  }
}

void BlockRunner::prepare(const LaunchConfig& config, uint3 block_idx, void* dynamic_shared) {
  const dim3 block = config.block;
  num_threads_ = static_cast<int>(block.x * block.y * block.z);
  while (static_cast<int>(lanes_.size()) < num_threads_) {
    Lane& lane = lanes_.emplace_back();
    lane.runner = this;
    lane.index = static_cast<int>(lanes_.size()) - 1;
    lane.fiber = std::make_unique<Fiber>(lane_main);
    if (lane.index % kWarpSize == 0) warps_.push_back(std::make_unique<Warp>());
  }
  for (int i = 0; i < num_threads_; ++i) {
    Lane& lane = lanes_[static_cast<std::size_t>(i)];
    const unsigned index = static_cast<unsigned>(i);
    lane.thread_idx = {index % block.x, index / block.x % block.y, index / (block.x * block.y)};
    lane.block_idx = block_idx;
    lane.block_dim = block;
    lane.grid_dim = config.grid;
    lane.dynamic_shared = dynamic_shared;
    lane.dynamic_shared_bytes = config.dynamic_shared_bytes;
    lane.state = LaneState::ready;
  }
  for (int first = 0; first < num_threads_; first += kWarpSize) {
    const int lanes = num_threads_ - first;
    warps_[static_cast<std::size_t>(first / kWarpSize)]->live = lanes >= kWarpSize ? 0xffffffffu : (1u << lanes) - 1u;
  }
  if (sanitizer::kRaceDetector) {  // masks of earlier kernels must not fill the tables
    for (const std::unique_ptr<Warp>& warp : warps_) {
      for (WarpEdge& edge : warp->edge) edge.mask = 0;
    }
  }
  arrived_ = 0;
  // Neighbouring blocks run their threads in opposite orders: a result that depends on the order differs between them.
  descending_ = (block_idx.x + block_idx.y + block_idx.z) % 2 != 0;
}

bool BlockRunner::run(const LaunchConfig& config, uint3 block_idx, void* dynamic_shared, Body body,
                      const void* closure) {
  prepare(config, block_idx, dynamic_shared);
  body_ = body;
  closure_ = closure;
  sanitizer::release(&start_edge_);
  const bool ok = schedule();
  sanitizer::acquire(&end_edge_);
  current_thread = nullptr;
  if (!ok) error_ += " [block " + text_of(block_idx) + "]";
  return ok;
}

// Runs every ready lane in turn until all have returned or none can go on.
bool BlockRunner::schedule() {
  int returned = 0;
  bool progress = true;
  while (returned < num_threads_) {
    if (!progress) {
      error_ = deadlock_text();
      return false;
    }
    progress = false;
    for (int i = 0; i < num_threads_; ++i) {
      Lane& lane = lanes_[static_cast<std::size_t>(descending_ ? num_threads_ - 1 - i : i)];
      if (lane.state != LaneState::ready) continue;
      progress = true;
      current_thread = &lane;
      lane.fiber->enter();
      if (lane.state == LaneState::failed) return false;
      if (lane.state == LaneState::returned) ++returned;
    }
  }
  return true;
}

void BlockRunner::lane_returned(Lane& self) {
  self.state = LaneState::returned;
  Warp& warp = *warps_[static_cast<std::size_t>(self.index / kWarpSize)];
  warp.live &= ~(1u << (self.index % kWarpSize));
  const int first_lane = self.index - self.index % kWarpSize;
  for (WarpSlot& slot : warp.slot) {
    if (slot.mask != 0 && !slot.complete) complete_if_all_arrived(warp, first_lane, slot);
  }
}

int BlockRunner::barrier(Lane& self, BarrierOp op, bool predicate, Site site) {
  if (arrived_ == 0) {
    barrier_op_ = op;
    barrier_site_ = site;
    true_count_ = 0;
  } else if (op != barrier_op_ || !same_site(site, barrier_site_)) {
    std::string text = "threads of one block meet at different barriers: ";
    text += std::string(name_of(op)) + " here, " + name_of(barrier_op_) + " at " + text_of(barrier_site_);
    fail(self, site, std::move(text));
  }
  const unsigned turn = barrier_generation_ & 1u;
  sanitizer::release(&barrier_edge_[turn]);
  true_count_ += predicate ? 1 : 0;
  if (++arrived_ < num_threads_) {
    self.site = site;
    self.intrinsic = name_of(op);
    wait(self, LaneState::at_barrier);
  } else {
    barrier_result_[turn] = op == BarrierOp::any   ? true_count_ > 0
                            : op == BarrierOp::all ? true_count_ == num_threads_
                                                   : true_count_;
    arrived_ = 0;
    ++barrier_generation_;
    for (int i = 0; i < num_threads_; ++i) {
      Lane& lane = lanes_[static_cast<std::size_t>(i)];
      if (lane.state == LaneState::at_barrier) lane.state = LaneState::ready;
    }
  }
  sanitizer::acquire(&barrier_edge_[turn]);
  return barrier_result_[turn];
}

WarpEdge& BlockRunner::edge_of(Warp& warp, std::uint32_t mask) {
  for (WarpEdge& edge : warp.edge) {
    if (edge.mask == mask) return edge;
    if (edge.mask == 0) {
      edge.mask = mask;
      return edge;
    }
  }
  return warp.edge[mask % kWarpSize];  // more than 32 masks in one kernel: orderings may be overstated, never missed
}

void BlockRunner::complete_if_all_arrived(Warp& warp, int first_lane, WarpSlot& slot) {
  if ((slot.mask & warp.live & ~slot.arrived) != 0) return;
  slot.complete = true;
  if (slot.op == WarpOp::sync) ++edge_of(warp, slot.mask).generation;
  for (int i = 0; i < kWarpSize; ++i) {
    if ((slot.arrived >> i & 1u) == 0) continue;
    Lane& lane = lanes_[static_cast<std::size_t>(first_lane + i)];
    if (lane.state == LaneState::at_warp) lane.state = LaneState::ready;
  }
}

WarpMeeting BlockRunner::meet(Lane& self, WarpOp op, std::uint32_t mask, const WarpValue& value, Site site) {
  const int lane = self.index % kWarpSize;
  Warp& warp = *warps_[static_cast<std::size_t>(self.index / kWarpSize)];
  if ((mask >> lane & 1u) == 0) {
    std::string text = name_of(op);
    text += " needs the caller in its mask: lane " + std::to_string(lane) + " is not in mask " + hex(mask);
    fail(self, site, std::move(text));
  }
  WarpSlot* slot = nullptr;
  for (WarpSlot& candidate : warp.slot) {
    if (candidate.mask == mask && !candidate.complete) slot = &candidate;
  }
  for (WarpSlot& candidate : warp.slot) {
    if (slot != nullptr) break;
    if (candidate.mask != 0) continue;
    slot = &candidate;
    slot->mask = mask;
    slot->op = op;
    slot->arrived = slot->parted = 0;
    slot->complete = false;
  }
  if (slot->op != op) {
    std::string text = "lanes of one warp meet at different intrinsics: ";
    text += std::string(name_of(op)) + " here, " + name_of(slot->op) + " elsewhere";
    fail(self, site, std::move(text));
  }
  std::uint64_t* edge = nullptr;
  if (op == WarpOp::sync) {
    WarpEdge& pair = edge_of(warp, mask);
    edge = &pair.address[pair.generation & 1u];
    sanitizer::release(edge);
  }
  slot->value[lane] = value;
  slot->arrived |= 1u << lane;
  complete_if_all_arrived(warp, self.index - lane, *slot);
  if (!slot->complete) {
    self.site = site;
    self.intrinsic = name_of(op);
    self.mask = mask;
    wait(self, LaneState::at_warp);
  }
  if (edge != nullptr) sanitizer::acquire(edge);
  return {static_cast<int>(slot - warp.slot), slot->arrived};
}

WarpValue BlockRunner::read(Lane& self, const WarpMeeting& meeting, int lane) {
  const Warp& warp = *warps_[static_cast<std::size_t>(self.index / kWarpSize)];
  if ((meeting.arrived >> lane & 1u) != 0) return warp.slot[meeting.slot].value[lane];
  WarpValue undefined;
  for (std::uint64_t& word : undefined.word) word = ~std::uint64_t{0};
  return undefined;
}

void BlockRunner::part(Lane& self, const WarpMeeting& meeting) {
  WarpSlot& slot = warps_[static_cast<std::size_t>(self.index / kWarpSize)]->slot[meeting.slot];
  slot.parted |= 1u << (self.index % kWarpSize);
  if (slot.parted == slot.arrived) slot.mask = 0;
}

void BlockRunner::wait(Lane& self, LaneState state) {
  self.state = state;
  sanitizer::release(&end_edge_);  // should the block fail here, the launch still comes after what this lane did
  self.fiber->leave();
}

// The lane's stack is never unwound: nothing on it may own memory, so callers move their text in.
void BlockRunner::fail(Lane& self, Site site, std::string&& text) {
  error_ = std::move(text);
  error_ += " (" + text_of(site) + ", thread " + text_of(self.thread_idx) + ")";
  wait(self, LaneState::failed);
  __builtin_unreachable();
}

std::string BlockRunner::describe(const Lane& lane) const {
  if (lane.state == LaneState::returned) return "returned";
  std::string text = std::string("wait at ") + lane.intrinsic;
  if (lane.state == LaneState::at_warp) text += " with mask " + hex(lane.mask);
  return text + " (" + text_of(lane.site) + ")";
}

// "threads of a block wait for each other: 31 wait at __syncthreads() (a.cu:12), first (0, 0, 0); 1 returned, first …"
std::string BlockRunner::deadlock_text() const {
  struct Group {
    std::string what, first;
    int count;
  };
  std::vector<Group> groups;
  for (int i = 0; i < num_threads_; ++i) {
    const Lane& lane = lanes_[static_cast<std::size_t>(i)];
    const std::string what = describe(lane);
    bool found = false;
    for (Group& group : groups) {
      if (group.what != what) continue;
      ++group.count;
      found = true;
    }
    if (!found) groups.push_back({what, text_of(lane.thread_idx), 1});
  }
  std::string text = "threads of a block wait for others that never arrive:";
  for (std::size_t g = 0; g < groups.size() && g < 4; ++g) {
    text +=
        (g == 0 ? " " : "; ") + std::to_string(groups[g].count) + " " + groups[g].what + ", first " + groups[g].first;
  }
  return text;
}

int block_barrier(BarrierOp op, bool predicate, Site site) {
  Lane& lane = current_lane();
  return lane.runner->barrier(lane, op, predicate, site);
}

void yield() {
  Lane& lane = current_lane();
  lane.runner->wait(lane, LaneState::ready);
}

void kernel_error(const char* text, Site site) {
  Lane& lane = current_lane();
  lane.runner->fail(lane, site, text);
}

int lane_id() {
  return current_lane().index % kWarpSize;
}

WarpMeeting warp_meet(WarpOp op, std::uint32_t mask, const WarpValue& value, Site site) {
  Lane& lane = current_lane();
  return lane.runner->meet(lane, op, mask, value, site);
}
WarpValue warp_read(const WarpMeeting& meeting, int lane) {
  Lane& self = current_lane();
  return self.runner->read(self, meeting, lane);
}
void warp_part(const WarpMeeting& meeting) {
  Lane& lane = current_lane();
  lane.runner->part(lane, meeting);
}

void thread_fence() {
  static std::uint64_t edge;  // fences order with each other, as in "write, fence, raise a flag"
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  sanitizer::release(&edge);
  sanitizer::acquire(&edge);
}

}  // namespace gramcore::cuda_host
