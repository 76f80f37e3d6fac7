// Moments of 4 bits whose second, in a matrix, is divided by the smaller of its row's and its column's largest value
// (Li et al. 2023, arXiv:2309.01507): the twin of optim/rank1.h.  A value's divisor depends on its whole row and column
// after the step, so a step is four launches: clear `fresh`; measure_kernel, which forms the second moments and keeps
// their maxima there; step_kernel, which reads by `scales` and writes by `fresh`; keep `fresh` as scales.
//
// measure_kernel: a block owns kThreads columns of kTileRows rows of one matrix, a thread one column; the maximum of a
// row goes through shuffles and one atomic per warp, that of a column through a register and one atomic per block.
// Maxima do not depend on their order: values are >= 0, so their bits are compared as integers; a NaN is no maximum.
// Bytes moved per element beside the step's own: read p, g and half a byte of codes.
#pragma once

#include "optim/cuda/step.cuh"

namespace gramcore::optim {
namespace step_cuda {

// min(row, column) of consecutive elements of a matrix in memory order.
struct Bounds {
  const float* rows;
  const float* columns;
  std::int64_t cols, row, column;

  static __device__ __forceinline__ Bounds from(const StepCudaTensor& t, const float* scales, std::int64_t at) {
    return {scales, scales + t.numel / t.cols, t.cols, at / t.cols, at % t.cols};
  }
  __device__ __forceinline__ float next() {
    const float bound = vmin(rows[row], columns[column]);
    if (++column == cols) {
      column = 0;
      ++row;
    }
    return bound;
  }
};

struct Rank1 {
  static constexpr bool kRounds = false, kMeasures = true;

  static __device__ __forceinline__ int code_at(const StepCudaTensor& t, std::int64_t at) {
    return (static_cast<const std::uint8_t*>(t.moment[1])[at / 2] >> (4 * (at & 1))) & 15;
  }
  static __device__ __forceinline__ int encode(float x) {  // the nearest of x * 16 - 1
    const float place = x * 16.0f - 0.5f;
    return place >= 15.0f ? 15 : place > 0.0f ? static_cast<int>(place) : 0;
  }

  static __device__ __forceinline__ Group load_moment(const StepCudaTensor& t, int slot, const Place& place) {
    if (slot == 0 || t.cols == 0) return Codes<4>::load_moment(t, slot, place);
    Group x{};
    Bounds bounds = Bounds::from(t, t.scales[1], place.at);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i < place.count) x.v[i] = decode4(false, code_at(t, place.at + i)) * bounds.next();
    }
    return x;
  }

  // A group begins at an even element, so its bytes are its own.
  static __device__ __forceinline__ void store_moment(const StepCudaTensor& t, int slot, const Place& place,
                                                      const Group& x) {
    if (slot == 0 || t.cols == 0) return Codes<4>::store_moment(t, slot, place, x);
    auto* codes = static_cast<std::uint8_t*>(t.moment[1]);
    Bounds bounds = Bounds::from(t, t.fresh, place.at);
    int previous = 0;
#pragma unroll
    for (int i = 0; i < kGroup; ++i) {
      if (i >= place.count) continue;
      const float bound = bounds.next();
      const int code = bound >= 1.2e-38f ? encode(x.v[i] / bound) : 0;
      if (i % 2 == 0) previous = code;
      if (i % 2 == 1 || i + 1 == place.count) {
        codes[(place.at + i) / 2] = static_cast<std::uint8_t>(i % 2 == 0 ? code : previous | code << 4);
      }
    }
  }
};

__device__ __forceinline__ void raise(float* largest, float x) {
  if (x > 0.0f) atomicMax(reinterpret_cast<unsigned*>(largest), __float_as_uint(x));
}

template <class Rule, class Param, class Grad>
__global__ void __launch_bounds__(StepPolicy::kThreads) measure_kernel(const __grid_constant__ Launch launch) {
  const std::uint32_t index = tensor_of_chunk(launch, blockIdx.x);
  const StepCudaTensor& t = launch.tensor[index];
  const std::int64_t tile = blockIdx.x - launch.first_chunk[index], rows = t.numel / t.cols;
  const std::int64_t across = (t.cols + StepPolicy::kThreads - 1) / StepPolicy::kThreads;
  const std::int64_t column = tile % across * StepPolicy::kThreads + threadIdx.x;
  const std::int64_t first = tile / across * StepPolicy::kTileRows;
  const std::int64_t last = first + StepPolicy::kTileRows < rows ? first + StepPolicy::kTileRows : rows;
  const bool inside = column < t.cols;
  const float column_bound = inside ? t.scales[1][rows + column] : 0.0f;
  float largest = 0.0f;
  for (std::int64_t row = first; row < last; ++row) {  // shuffles need whole warps
    float moments[2] = {};
    if (inside) {
      const std::int64_t at = row * t.cols + column;
      float p = to_f32(static_cast<const Param*>(t.param)[at]);
      moments[1] = decode4(false, Rank1::code_at(t, at)) * vmin(t.scales[1][row], column_bound);
      update<Rule>(launch.coefs, p, to_f32(static_cast<const Grad*>(t.grad)[at]), moments);
    }
    largest = vmax(moments[1], largest);
    float of_row = vmax(moments[1], 0.0f);
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
      of_row = vmax(__shfl_xor_sync(0xffffffffu, of_row, mask), of_row);
    }
    if (threadIdx.x % 32 == 0) raise(t.fresh + row, of_row);
  }
  if (inside) raise(t.fresh + rows + column, largest);
}

// One block per tensor: fresh = 0, or with `keep` scales = fresh.
__global__ void __launch_bounds__(StepPolicy::kThreads)
    scales_kernel(const __grid_constant__ Launch launch, const bool keep) {
  const StepCudaTensor& t = launch.tensor[blockIdx.x];
  if (t.cols == 0 || t.numel == 0) return;
  const std::int64_t count = t.numel / t.cols + t.cols;
  for (std::int64_t i = threadIdx.x; i < count; i += StepPolicy::kThreads) {
    if (keep) {
      t.scales[1][i] = t.fresh[i];
    } else {
      t.fresh[i] = 0.0f;
    }
  }
}

}  // namespace step_cuda
}  // namespace gramcore::optim
