// AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, Alg. 2), per element, as torch orders it:
//   p -= lr * weight_decay * p;  m += (1 - b1)(g - m);  v = b2 v + (1 - b2) g g
//   p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps)
//
// Mapping: a block owns one chunk of kChunk elements of one tensor, found by binary search in the table of first
// chunks; a thread takes groups of four elements, kThreads apart.  Layout: contiguous; a group is one vector access
// when its pointer is aligned for it, else four scalar ones (tails, odd offsets).
// Arithmetic in float.  bf16 values are rounded stochastically with bits of (seed, step, tensor, element), or
// to nearest even.  Deterministic: no result depends on the launch shape.
// Bytes moved per element: read p, g, m, v; write p, m, v.
#pragma once

#include <cstdint>

#include "core/cuda/launch.h"
#include "core/half.h"
#include "optim/cuda/adamw.h"
#include "optim/cuda/adamw_policy.h"
#include "optim/rounding.h"

namespace gramcore::optim {

struct AdamwScalars {
  float decay;  // 1 - lr * weight_decay
  float one_minus_beta1, beta2, one_minus_beta2;
  float step_size;    // lr / (1 - beta1^t)
  float denom_scale;  // 1 / sqrt(1 - beta2^t)
  float eps;
  float grad_sign;  // -1 to maximize
  std::uint32_t step;
  std::uint32_t stochastic;
  std::uint64_t seed;
};

struct AdamwLaunch {
  AdamwScalars scalars;
  std::uint32_t first_tensor;  // position of tensor[0] in the caller's list, for the random bits
  std::uint32_t num_tensors;
  std::uint32_t first_chunk[AdamwPolicy::kMaxTensors];  // of each tensor, in blocks of this launch; ascending
  AdamwTensor tensor[AdamwPolicy::kMaxTensors];
};
static_assert(sizeof(AdamwLaunch) <= 32764, "kernel parameters are limited to 32,764 bytes");

template <class T>
struct alignas(4 * sizeof(T)) Quad {
  T v[4];
};

// `count` < 4 only at the end of a tensor.
template <class T>
__device__ __forceinline__ Quad<float> load_quad(const T* p, int count) {
  Quad<float> x{};
  if (count == 4 && reinterpret_cast<std::uintptr_t>(p) % sizeof(Quad<T>) == 0) {
    const Quad<T> q = *reinterpret_cast<const Quad<T>*>(p);
#pragma unroll
    for (int i = 0; i < 4; ++i) x.v[i] = to_f32(q.v[i]);
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) x.v[i] = to_f32(p[i]);
    }
  }
  return x;
}

__device__ __forceinline__ float rounded(float x, std::uint32_t, bool, float) {
  return x;
}
__device__ __forceinline__ bf16 rounded(float x, std::uint32_t noise, bool stochastic, bf16) {
  return stochastic ? to_bf16_stochastic(x, noise) : to_bf16(x);
}

// Stores with the random bits of `field` (see rounding_bits).
template <class T>
__device__ __forceinline__ void store_quad(T* p, const Quad<float>& x, int count, const std::uint32_t* noise, int field,
                                           bool stochastic) {
  Quad<T> q;
#pragma unroll
  for (int i = 0; i < 4; ++i) q.v[i] = rounded(x.v[i], rounding_bits(noise[i], field), stochastic, T{});
  if (count == 4 && reinterpret_cast<std::uintptr_t>(p) % sizeof(Quad<T>) == 0) {
    *reinterpret_cast<Quad<T>*>(p) = q;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i < count) p[i] = q.v[i];
    }
  }
}

__device__ __forceinline__ void adamw_element(const AdamwScalars& s, float g, float& p, float& m, float& v) {
  g *= s.grad_sign;
  p *= s.decay;
  m += s.one_minus_beta1 * (g - m);
  v = s.beta2 * v + s.one_minus_beta2 * g * g;
  p -= s.step_size * (m / (sqrtf(v) * s.denom_scale + s.eps));
}

// Last tensor whose first chunk is at or before `chunk`.
__device__ __forceinline__ std::uint32_t tensor_of_chunk(const AdamwLaunch& launch, std::uint32_t chunk) {
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

template <class Param, class Grad, class State>
__global__ void __launch_bounds__(AdamwPolicy::kThreads) adamw_kernel(const __grid_constant__ AdamwLaunch launch) {
  static_assert(AdamwPolicy::kChunk % (4 * AdamwPolicy::kThreads) == 0, "a chunk is whole groups for every thread");
  const AdamwScalars& s = launch.scalars;
  const bool stochastic = s.stochastic != 0;
  const std::uint32_t index = tensor_of_chunk(launch, blockIdx.x);
  const AdamwTensor& tensor = launch.tensor[index];
  Param* const params = static_cast<Param*>(tensor.param);
  const Grad* const grads = static_cast<const Grad*>(tensor.grad);
  State* const exp_avgs = static_cast<State*>(tensor.exp_avg);
  State* const exp_avg_sqs = static_cast<State*>(tensor.exp_avg_sq);
  const std::int64_t begin = std::int64_t{blockIdx.x - launch.first_chunk[index]} * AdamwPolicy::kChunk;
  const std::int64_t rest = tensor.numel - begin;
  const std::int64_t end = begin + (rest < AdamwPolicy::kChunk ? rest : AdamwPolicy::kChunk);

  static_assert(kRoundingRun % AdamwPolicy::kChunk == 0, "a chunk lies in one run of rounding words");
  const RoundingKey key = rounding_key(s.seed, s.step, launch.first_tensor + index, static_cast<std::uint64_t>(begin));

  for (std::int64_t at = begin + 4 * std::int64_t{threadIdx.x}; at < end; at += 4 * AdamwPolicy::kThreads) {
    const int count = end - at < 4 ? static_cast<int>(end - at) : 4;
    const Quad<float> g = load_quad(grads + at, count);
    Quad<float> p = load_quad(params + at, count);
    Quad<float> m = load_quad(exp_avgs + at, count);
    Quad<float> v = load_quad(exp_avg_sqs + at, count);
#pragma unroll
    for (int i = 0; i < 4; ++i) adamw_element(s, g.v[i], p.v[i], m.v[i], v.v[i]);

    std::uint32_t noise[4] = {};
    if (stochastic && (sizeof(Param) == 2 || sizeof(State) == 2)) {
#pragma unroll
      for (int i = 0; i < 4; ++i) noise[i] = rounding_word(key, static_cast<std::uint64_t>(at + i));
    }
    store_quad(params + at, p, count, noise, 0, stochastic);
    store_quad(exp_avgs + at, m, count, noise, 1, stochastic);
    store_quad(exp_avg_sqs + at, v, count, noise, 2, stochastic);
  }
}

}  // namespace gramcore::optim
