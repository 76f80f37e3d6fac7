// Kernels with one deliberate fault each, and their clean twins; the sanitizers must tell them apart.
//   gramcore_cuda_faults <name>      exit status 0 unless a sanitizer stops it
#include <cstdio>
#include <cstring>
#include <vector>

#include "core/cuda/launch.h"

namespace {

constexpr int kThreads = 64;

}  // namespace

// Each thread reads its neighbour's shared element, in another warp for some.
template <bool kBarrier>
__global__ void neighbour_kernel(int* out) {
  __shared__ int tile[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = i;
  if (kBarrier) __syncthreads();
  out[blockIdx.x * kThreads + i] = tile[(i + 1) % kThreads];
}

// The same within a warp: a shuffle does not order memory, __syncwarp() does.
template <bool kSyncwarp>
__global__ void warp_neighbour_kernel(int* out) {
  __shared__ int tile[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  tile[i] = i;
  if (kSyncwarp) {
    __syncwarp();
  } else {
    __shfl_xor_sync(0xffffffffu, i, 1);
  }
  out[blockIdx.x * kThreads + i] = tile[i / 32 * 32 + (i + 1) % 32];
}

// Rewrites shared memory for the next round; without the second barrier a slow reader may see the new value.
template <bool kBothBarriers>
__global__ void rounds_kernel(int* out) {
  __shared__ int tile[kThreads];
  const int i = static_cast<int>(threadIdx.x);
  int sum = 0;
  for (int round = 0; round < 3; ++round) {
    tile[i] = round * i;
    __syncthreads();
    sum += tile[(i + 33) % kThreads];
    if (kBothBarriers) __syncthreads();
  }
  out[blockIdx.x * kThreads + i] = sum;
}

// Blocks add to one global counter.
template <bool kAtomic>
__global__ void counter_kernel(int* out) {
  if (threadIdx.x != 0) return;
  if (kAtomic) {
    atomicAdd(out, 1);
  } else {
    *out += 1;
  }
}

__global__ void static_shared_kernel(int* out, int reach) {
  __shared__ int tile[kThreads];
  int* const p = tile;
  p[threadIdx.x + reach] = 1;
  __syncthreads();
  out[threadIdx.x] = p[threadIdx.x];
}

__global__ void dynamic_shared_kernel(int* out, int reach) {
  GC_DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x + reach] = 1;
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

__global__ void global_kernel(int* out, int reach) {
  out[threadIdx.x + reach] = 1;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  std::vector<int> host(kThreads * 4);  // of four blocks
  std::vector<int> one_block(kThreads);
  int* out = host.data();
  constexpr std::size_t kBytes = kThreads * sizeof(int);
  struct Case {
    const char* name;
    void (*run)(int* out, int* one_block);
  };
  const Case cases[] = {
      {"barrier", [](int* o, int*) { GC_CUDA_LAUNCH(neighbour_kernel<true>, 4, kThreads, 0, nullptr, o); }},
      {"missing-barrier", [](int* o, int*) { GC_CUDA_LAUNCH(neighbour_kernel<false>, 4, kThreads, 0, nullptr, o); }},
      {"syncwarp", [](int* o, int*) { GC_CUDA_LAUNCH(warp_neighbour_kernel<true>, 4, kThreads, 0, nullptr, o); }},
      {"missing-syncwarp",
       [](int* o, int*) { GC_CUDA_LAUNCH(warp_neighbour_kernel<false>, 4, kThreads, 0, nullptr, o); }},
      {"rounds", [](int* o, int*) { GC_CUDA_LAUNCH(rounds_kernel<true>, 4, kThreads, 0, nullptr, o); }},
      {"missing-second-barrier",
       [](int* o, int*) { GC_CUDA_LAUNCH(rounds_kernel<false>, 4, kThreads, 0, nullptr, o); }},
      {"atomic", [](int* o, int*) { GC_CUDA_LAUNCH(counter_kernel<true>, 64, 32, 0, nullptr, o); }},
      {"missing-atomic", [](int* o, int*) { GC_CUDA_LAUNCH(counter_kernel<false>, 64, 32, 0, nullptr, o); }},
      {"static-shared", [](int*, int* o) { GC_CUDA_LAUNCH(static_shared_kernel, 1, kThreads, 0, nullptr, o, 0); }},
      {"static-shared-overrun",
       [](int*, int* o) { GC_CUDA_LAUNCH(static_shared_kernel, 1, kThreads, 0, nullptr, o, 1); }},
      {"dynamic-shared",
       [](int*, int* o) { GC_CUDA_LAUNCH(dynamic_shared_kernel, 1, kThreads, kBytes, nullptr, o, 0); }},
      {"dynamic-shared-overrun",
       [](int*, int* o) { GC_CUDA_LAUNCH(dynamic_shared_kernel, 1, kThreads, kBytes, nullptr, o, 1); }},
      {"global", [](int*, int* o) { GC_CUDA_LAUNCH(global_kernel, 1, kThreads, 0, nullptr, o, 0); }},
      {"global-overrun", [](int*, int* o) { GC_CUDA_LAUNCH(global_kernel, 1, kThreads, 0, nullptr, o, 1); }},
  };
  for (const Case& c : cases) {
    if (std::strcmp(argv[1], c.name) != 0) continue;
    c.run(out, one_block.data());
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    return error == cudaSuccess ? 0 : 3;
  }
  return 2;
}
