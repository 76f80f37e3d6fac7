// One step of an elementwise rule over a list of tensors: rule x parameter and gradient type x storage of the moments.
// The rules are those of the CPU (rule_bodies.inl.h); so are the maps of quantised moments and the rounding bits.
//
// Mapping: a block owns one chunk of kChunk elements of one tensor, found by binary search in the table of first
// chunks; a thread takes groups of eight consecutive elements, 8 kThreads apart, so that a warp holds one block of
// 8-bit codes, a half-warp one of 4-bit codes.  The largest magnitude of a block is found by shuffles.
// Layout: contiguous; four elements are one vector access when the pointer is aligned for it, else four scalar ones.
// Arithmetic in float.  bf16 values are rounded stochastically with bits of (seed, step, tensor, element), or to
// nearest even.  Deterministic: no result depends on the launch shape.
// Bytes moved per element: read p, g and moments; write p and moments.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/half.h"
#include "optim/cuda/step.h"
#include "optim/cuda/step_policy.h"
#include "optim/kernels/blocks.h"
#include "optim/maps.h"
#include "optim/rounding.h"

namespace gramcore::optim {
namespace step_cuda {

__device__ __forceinline__ float fast_div(float a, float b) {
  return a / b;
}
__device__ __forceinline__ float fast_sqrt(float x) {
  return sqrtf(x);
}
__device__ __forceinline__ float vabs(float x) {
  return fabsf(x);
}
__device__ __forceinline__ float vmax(float a, float b) {  // b where either is NaN
  return a > b ? a : b;
}
__device__ __forceinline__ float vmin(float a, float b) {
  return a < b ? a : b;
}
__device__ __forceinline__ float vsign(float x) {  // -1, 0, 1; NaN stays NaN
  return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : x;
}

#define GC_RULE static __device__ __forceinline__
#include "optim/rule_bodies.inl.h"
#undef GC_RULE

struct Launch {
  float coefs[12];
  std::uint32_t step, stochastic;
  std::uint64_t seed;
  Map8 map8[2];                // signed, and >= 0
  std::uint32_t first_tensor;  // position of tensor[0] in the caller's list, for the random bits
  std::uint32_t num_tensors;
  std::uint32_t first_chunk[StepPolicy::kMaxTensors];  // of each tensor, in blocks of this launch; ascending
  StepCudaTensor tensor[StepPolicy::kMaxTensors];
};
static_assert(sizeof(Launch) <= 32764, "kernel parameters are limited to 32,764 bytes");

constexpr int kGroup = 8;  // elements of a thread at a time

struct Group {
  float v[kGroup];
};

// A codec of moments loads and stores a group; kRounds: it takes random bits; kMeasures: see rank1.cuh.
// What a codec needs to know of the group it stores.
struct Place {
  std::int64_t at;  // first element
  int count;        // elements inside the tensor, 0 to 8
  const std::uint32_t* noise;
  bool stochastic;
  const Map8* map8;
};

template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T v[4];
};

template <class T>
__device__ __forceinline__ bool whole_quad(const T* p, int count) {
  return count >= 4 && reinterpret_cast<std::uintptr_t>(p) % sizeof(Quad<T>) == 0;
}

__device__ __forceinline__ float rounded(float x, std::uint32_t, bool, float) {
  return x;
}
__device__ __forceinline__ bf16 rounded(float x, std::uint32_t noise, bool stochastic, bf16) {
  return stochastic ? to_bf16_stochastic(x, noise) : to_bf16(x);
}

// Values as they are: float or bf16.  `field` names the random bits (see rounding_bits): 0 parameter, 1 and 2 moments.
template <class T>
struct Float {
  static constexpr bool kRounds = sizeof(T) == 2, kMeasures = false;

  static __device__ __forceinline__ Group load(const void* base, const Place& place) {
    Group x{};
#pragma unroll
    for (int h = 0; h < kGroup; h += 4) {
      const int count = place.count - h;
      const T* p = static_cast<const T*>(base) + place.at + h;
      if (whole_quad(p, count)) {
        const Quad<T> q = *reinterpret_cast<const Quad<T>*>(p);
#pragma unroll
        for (int i = 0; i < 4; ++i) x.v[h + i] = to_f32(q.v[i]);
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (i < count) x.v[h + i] = to_f32(p[i]);
        }
      }
    }
    return x;
  }

  static __device__ __forceinline__ void store(void* base, const Place& place, const Group& x, int field) {
#pragma unroll
    for (int h = 0; h < kGroup; h += 4) {
      const int count = place.count - h;
      T* p = static_cast<T*>(base) + place.at + h;
      Quad<T> q;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        q.v[i] = rounded(x.v[h + i], rounding_bits(place.noise[h + i], field), place.stochastic, T{});
      }
      if (whole_quad(p, count)) {
        *reinterpret_cast<Quad<T>*>(p) = q;
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (i < count) p[i] = q.v[i];
        }
      }
    }
  }

  static __device__ __forceinline__ Group load_moment(const StepCudaTensor& t, int slot, const Place& place) {
    return load(t.moment[slot], place);
  }
  static __device__ __forceinline__ void store_moment(const StepCudaTensor& t, int slot, const Place& place,
                                                      const Group& x) {
    store(t.moment[slot], place, x, slot + 1);
  }
};

__device__ __forceinline__ float decode8(const Map8& map, bool is_signed, int code) {
  const int mag = is_signed ? (code < 127 ? 127 - code : code - 127) : code + 1;
  const int lowest = is_signed ? 1 : 2;
  if (mag < lowest) return 0.0f;
  int decade = 0;
  while (decade < 7 && mag >= lowest << (decade + 1)) ++decade;
  const float value = map.slope[decade] * static_cast<float>(mag) + map.offset[decade];
  return is_signed && code < 127 ? -value : value;
}

__device__ __forceinline__ int encode8(const Map8& map, bool is_signed, float x) {
  const float a = fabsf(x);
  const int lowest = is_signed ? 1 : 2;
  int mag = lowest - 1;  // zero
  if (x >= map.one) {
    mag = lowest << 7;
  } else if (a >= map.zero) {
    int decade = 0;
    for (int i = 0; i < 6; ++i) decade += a >= map.up[i] ? 1 : 0;
    const int low = lowest << decade;
    const int near = static_cast<int>(rintf(a * map.inverse[decade] + map.shift[decade]));
    mag = near < low ? low : near > 2 * low - 1 ? 2 * low - 1 : near;
  }
  if (!is_signed) return mag - 1;
  return x < 0.0f ? 127 - mag : 127 + mag;
}

__device__ __forceinline__ float step4(int index) {  // kSteps4 without an array, which would live in local memory
  const float low = index < 2 ? (index < 1 ? 0.0f : 0.0055f) : (index < 3 ? 0.0325f : 0.0775f);
  const float high = index < 6 ? (index < 5 ? 0.2125f : 0.4375f) : (index < 7 ? 0.6625f : 0.8875f);
  return index < 4 ? low : index < 8 ? high : 1.0f;
}

__device__ __forceinline__ float decode4(bool is_signed, int code) {
  if (!is_signed) return static_cast<float>(code + 1) * 0.0625f;
  return code < 7 ? -step4(7 - code) : step4(code - 7);
}

__device__ __forceinline__ int encode4(bool is_signed, float x) {
  if (!is_signed) {
    const float code = rintf(x * 16.0f - 1.0f);
    return code > 15.0f ? 15 : code > 0.0f ? static_cast<int>(code) : 0;
  }
  // Boundaries are midpoints of the map; an integer sum of comparisons keeps few values alive.
  const float a = fabsf(x);
  int index = x >= 0.94375f ? 1 : 0;
  index += (a >= 0.00275f ? 1 : 0) + (a >= 0.019f ? 1 : 0) + (a >= 0.055f ? 1 : 0) + (a >= 0.145f ? 1 : 0);
  index += (a >= 0.325f ? 1 : 0) + (a >= 0.55f ? 1 : 0) + (a >= 0.775f ? 1 : 0);
  return x < 0.0f ? 7 - index : 7 + index;
}

// Codes of 8 or 4 bits with one scale per block; every thread of the warp takes part in load and store.
template <int kBits>
struct Codes {
  static constexpr bool kRounds = false, kMeasures = false;
  static constexpr std::int64_t kBlock = kBits == 8 ? kBlock8 : kBlock4;
  static constexpr int kThreadsPerBlock = static_cast<int>(kBlock / kGroup);
  static_assert(kThreadsPerBlock == 32 || kThreadsPerBlock == 16, "a block of codes belongs to a warp or half a warp");

  static __device__ __forceinline__ Group load_moment(const StepCudaTensor& t, int slot, const Place& place) {
    Group x{};
    const auto* codes = static_cast<const std::uint8_t*>(t.moment[slot]);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i >= place.count) continue;
      const std::int64_t at = place.at + i;
      const int code = kBits == 8 ? codes[at] : (codes[at / 2] >> (4 * (at & 1))) & 15;
      const float value = kBits == 8 ? decode8(place.map8[slot], slot == 0, code) : decode4(slot == 0, code);
      x.v[i] = value * t.scales[slot][at / kBlock];
    }
    return x;
  }

  static __device__ __forceinline__ void store_moment(const StepCudaTensor& t, int slot, const Place& place,
                                                      const Group& x) {
    float largest = 0.0f;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) largest = vmax(i < place.count ? fabsf(x.v[i]) : 0.0f, largest);
#pragma unroll
    for (int mask = kThreadsPerBlock / 2; mask > 0; mask /= 2) {
      largest = vmax(__shfl_xor_sync(0xffffffffu, largest, mask), largest);
    }
    __syncwarp();  // shuffles order no memory: every thread of the block has read the scale that one now writes
    if (place.count == 0) return;
    const float inverse = largest >= 1.2e-38f ? 1.0f / largest : 0.0f;
    if (place.at % kBlock == 0) t.scales[slot][place.at / kBlock] = largest;
    auto* codes = static_cast<std::uint8_t*>(t.moment[slot]);
    int previous = 0;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i >= place.count) continue;
      const float value = x.v[i] * inverse;
      const int code = kBits == 8 ? encode8(place.map8[slot], slot == 0, value) : encode4(slot == 0, value);
      if (kBits == 8) {
        codes[place.at + i] = static_cast<std::uint8_t>(code);
      } else if (i % 2 == 0) {
        previous = code;
        if (i + 1 == place.count) codes[(place.at + i) / 2] = static_cast<std::uint8_t>(code);
      } else {
        codes[(place.at + i) / 2] = static_cast<std::uint8_t>(previous | code << 4);
      }
    }
  }
};

// Last tensor whose first chunk is at or before `chunk`.
__device__ __forceinline__ std::uint32_t tensor_of_chunk(const Launch& launch, std::uint32_t chunk) {
  std::uint32_t low = 0, high = launch.num_tensors;
  while (high - low > 1) {
    const std::uint32_t middle = (low + high) / 2;
    if (launch.first_chunk[middle] <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

template <class Rule, class Param, class Grad, class State>
__global__ void __launch_bounds__(StepPolicy::kThreads, 2) step_kernel(const __grid_constant__ Launch launch) {
  static_assert(StepPolicy::kChunk % (kGroup * StepPolicy::kThreads) == 0, "a chunk is whole groups of every thread");
  static_assert(kRoundingRun % StepPolicy::kChunk == 0, "a chunk lies in one run of rounding words");
  const std::uint32_t index = tensor_of_chunk(launch, blockIdx.x);
  const StepCudaTensor& tensor = launch.tensor[index];
  const std::int64_t begin = std::int64_t{blockIdx.x - launch.first_chunk[index]} * StepPolicy::kChunk;
  const std::int64_t rest = tensor.numel - begin;
  const std::int64_t length = rest < StepPolicy::kChunk ? rest : StepPolicy::kChunk;
  const bool stochastic = launch.stochastic != 0;
  const bool draws = stochastic && (sizeof(Param) == 2 || State::kRounds);
  const RoundingKey key =
      rounding_key(launch.seed, launch.step, launch.first_tensor + index, static_cast<std::uint64_t>(begin));

  // Every thread of a block goes round equally often: shuffles need whole warps.
  for (std::int64_t first = 0; first < length; first += kGroup * StepPolicy::kThreads) {
    const std::int64_t offset = first + kGroup * std::int64_t{threadIdx.x};
    const std::int64_t left = length - offset;
    std::uint32_t noise[kGroup] = {};
    Place place{begin + offset,
                left >= kGroup ? kGroup
                : left > 0     ? static_cast<int>(left)
                               : 0,
                noise, stochastic, launch.map8};
    Group p = Float<Param>::load(tensor.param, place), s[2] = {};
    const Group g = Float<Grad>::load(tensor.grad, place);
#pragma unroll
    for (int k = 0; k < Rule::kSlots; ++k) s[k] = State::load_moment(tensor, k, place);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      float moments[2] = {s[0].v[i], s[1].v[i]};
      update<Rule>(launch.coefs, p.v[i], g.v[i], moments);
      s[0].v[i] = moments[0];
      s[1].v[i] = moments[1];
      if (draws) noise[i] = rounding_word(key, static_cast<std::uint64_t>(place.at + i));
    }
    Float<Param>::store(tensor.param, place, p, 0);
#pragma unroll
    for (int k = 0; k < Rule::kSlots; ++k) State::store_moment(tensor, k, place, s[k]);
  }
}

}  // namespace step_cuda
}  // namespace gramcore::optim
