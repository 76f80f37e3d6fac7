// Moments in and out of block-wise codes, see block_maps.h.
#pragma once

#include "optim/kernels/block_maps.h"

namespace gramcore::optim {
namespace GC_ISA_NS {
namespace {

// Whole blocks through code buffers padded to a vector, so that tails need no second path.
template <class Map>
GC_INLINE void decode_block(const std::uint8_t* codes, float scale, float* to, std::int64_t n) {
  const Map map = Map::scaled(scale);
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) store(to + i, map.decode(load_codes(codes + i)));
  if (i < n) {
    std::uint8_t rest[kLanes] = {};
    for (std::int64_t k = i; k < n; ++k) rest[k - i] = codes[k];
    store_part(to + i, map.decode(load_codes(rest)), static_cast<int>(n - i));
  }
}

GC_INLINE float largest_of(const float* from, std::int64_t n) {
  vf largest[4] = {};
  std::int64_t i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    for (int k = 0; k < 4; ++k) largest[k] = vmax(vabs(load(from + i + k * kLanes)), largest[k]);
  }
  for (; i + kLanes <= n; i += kLanes) largest[0] = vmax(vabs(load(from + i)), largest[0]);
  if (i < n) largest[0] = vmax(vabs(load_part(from + i, static_cast<int>(n - i))), largest[0]);
  return reduce_max(vmax(vmax(largest[0], largest[1]), vmax(largest[2], largest[3])));
}

template <class Map>
static void load8(const std::uint8_t* codes, const float* scales, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kBlock8) {
    decode_block<Map>(codes + i, scales[i / kBlock8], to + i, n - i < kBlock8 ? n - i : kBlock8);
  }
}

template <class Map>
static void store8(const float* from, std::uint8_t* codes, float* scales, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kBlock8) {
    const std::int64_t count = n - i < kBlock8 ? n - i : kBlock8;
    scales[i / kBlock8] = largest_of(from + i, count);
    encode_bytes<Map>(from + i, codes + i, count, inverse_of(scales[i / kBlock8]));
  }
}

template <class Map>
static void load4(const std::uint8_t* codes, const float* scales, float* to, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kBlock4) {
    const std::int64_t count = n - i < kBlock4 ? n - i : kBlock4;
    std::uint8_t wide[kBlock4 + 2];
    unpack4(codes + i / 2, wide, static_cast<unsigned>(count));
    decode_block<Map>(wide, scales[i / kBlock4], to + i, count);
  }
}

template <class Map>
static void store4(const float* from, std::uint8_t* codes, float* scales, std::int64_t n) {
  for (std::int64_t i = 0; i < n; i += kBlock4) {
    const std::int64_t count = n - i < kBlock4 ? n - i : kBlock4;
    scales[i / kBlock4] = largest_of(from + i, count);
    encode_nibbles<Map>(from + i, codes + i / 2, count, inverse_of(scales[i / kBlock4]));
  }
}

}  // namespace

extern const BlocksKernels kBlocks;
const BlocksKernels kBlocks = {{load8<SignedMap8>, load8<UnsignedMap8>},
                               {store8<SignedMap8>, store8<UnsignedMap8>},
                               {load4<SignedMap4>, load4<LinearMap4>},
                               {store4<SignedMap4>, store4<LinearMap4>}};

}  // namespace GC_ISA_NS
}  // namespace gramcore::optim
