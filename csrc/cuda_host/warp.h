// Warp intrinsics.  Lanes named in a mask meet, exchange one value each and part again.  As on the device, only
// __syncwarp() orders memory; a shuffle or a vote carries values and nothing else.
#pragma once

#include <cstdint>
#include <cstring>

#include "thread.h"

namespace gramcore::cuda_host {

inline constexpr int kWarpSize = 32;

enum class WarpOp : unsigned char { sync, ballot, shuffle, match, matrix };

struct alignas(16) WarpValue {
  std::uint64_t word[8];
};

// What the lanes of one meeting brought.  `arrived` leaves out lanes that have returned from the kernel.
struct WarpMeeting {
  int slot;
  std::uint32_t arrived;
};

int lane_id();
// Blocks until every live lane of `mask` arrives with the same op.
WarpMeeting warp_meet(WarpOp op, std::uint32_t mask, const WarpValue& value, Site site);
// The value a lane brought; all bits set for a lane that is not part of the meeting.
WarpValue warp_read(const WarpMeeting& meeting, int lane);
void warp_part(const WarpMeeting& meeting);

template <class T>
WarpValue to_warp_value(const T& x) {
  static_assert(sizeof(T) <= sizeof(WarpValue), "a lane brings at most 64 bytes");
  WarpValue v{};
  std::memcpy(static_cast<void*>(&v), &x, sizeof(T));
  return v;
}

template <class T>
T from_warp_value(const WarpValue& v) {
  T x;
  std::memcpy(static_cast<void*>(&x), &v, sizeof(T));
  return x;
}

// Value of `source` lane; the caller's own when the source lies outside its segment.
template <class T>
T shuffle(std::uint32_t mask, const T& x, int source, bool in_segment, Site site) {
  const WarpMeeting meeting = warp_meet(WarpOp::shuffle, mask, to_warp_value(x), site);
  const WarpValue v = warp_read(meeting, source & (kWarpSize - 1));
  warp_part(meeting);
  return in_segment ? from_warp_value<T>(v) : x;
}

// Gathers every lane's value and hands the array to `combine`; for collectives such as mma.
template <class T, class Combine>
auto warp_collective(const T& x, Combine combine, Site site) {
  const WarpMeeting meeting = warp_meet(WarpOp::matrix, 0xffffffffu, to_warp_value(x), site);
  T all[kWarpSize];
  for (int lane = 0; lane < kWarpSize; ++lane) all[lane] = from_warp_value<T>(warp_read(meeting, lane));
  warp_part(meeting);
  return combine(all, lane_id());
}

inline std::uint32_t ballot(std::uint32_t mask, bool predicate, Site site) {
  const WarpMeeting meeting = warp_meet(WarpOp::ballot, mask, to_warp_value(predicate), site);
  std::uint32_t votes = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((meeting.arrived >> lane & 1u) != 0 && from_warp_value<bool>(warp_read(meeting, lane))) votes |= 1u << lane;
  }
  warp_part(meeting);
  return votes;
}

}  // namespace gramcore::cuda_host

inline void __syncwarp(unsigned mask = 0xffffffffu, GC_HOST_SITE) {
  using namespace gramcore::cuda_host;
  warp_part(warp_meet(WarpOp::sync, mask, WarpValue{}, {file, line}));
}

inline unsigned __ballot_sync(unsigned mask, int predicate, GC_HOST_SITE) {
  return gramcore::cuda_host::ballot(mask, predicate != 0, {file, line});
}
inline int __any_sync(unsigned mask, int predicate, GC_HOST_SITE) {
  return gramcore::cuda_host::ballot(mask, predicate != 0, {file, line}) != 0;
}
inline int __all_sync(unsigned mask, int predicate, GC_HOST_SITE) {
  return gramcore::cuda_host::ballot(mask, predicate == 0, {file, line}) == 0;
}

// The smallest answer the language allows: the caller alone.  Code that relies on more relies on chance.
inline unsigned __activemask() {
  return 1u << gramcore::cuda_host::lane_id();
}

template <class T>
T __shfl_sync(unsigned mask, T x, int source, int width = 32, GC_HOST_SITE) {
  const int lane = gramcore::cuda_host::lane_id();
  return gramcore::cuda_host::shuffle(mask, x, (lane & ~(width - 1)) | (source & (width - 1)), true, {file, line});
}
template <class T>
T __shfl_up_sync(unsigned mask, T x, unsigned delta, int width = 32, GC_HOST_SITE) {
  const int lane = gramcore::cuda_host::lane_id();
  const int source = lane - static_cast<int>(delta);
  return gramcore::cuda_host::shuffle(mask, x, source, source >= (lane & ~(width - 1)), {file, line});
}
template <class T>
T __shfl_down_sync(unsigned mask, T x, unsigned delta, int width = 32, GC_HOST_SITE) {
  const int lane = gramcore::cuda_host::lane_id();
  const int source = lane + static_cast<int>(delta);
  return gramcore::cuda_host::shuffle(mask, x, source, source <= (lane | (width - 1)), {file, line});
}
template <class T>
T __shfl_xor_sync(unsigned mask, T x, int lane_mask, int width = 32, GC_HOST_SITE) {
  const int lane = gramcore::cuda_host::lane_id();
  const int source = lane ^ lane_mask;
  return gramcore::cuda_host::shuffle(mask, x, source, source <= (lane | (width - 1)), {file, line});
}

// Lanes of `mask` whose value has the same bits as the caller's.
template <class T>
unsigned __match_any_sync(unsigned mask, T x, GC_HOST_SITE) {
  using namespace gramcore::cuda_host;
  const WarpMeeting meeting = warp_meet(WarpOp::match, mask, to_warp_value(x), {file, line});
  unsigned same = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const T other = from_warp_value<T>(warp_read(meeting, lane));
    if ((meeting.arrived >> lane & 1u) != 0 && std::memcmp(&other, &x, sizeof(T)) == 0) same |= 1u << lane;
  }
  warp_part(meeting);
  return same;
}
