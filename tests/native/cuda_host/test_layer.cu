// The host execution layer against the language it stands in for: indices, barriers, warps, atomics, shared memory.
// Nothing here needs a device; nvcc compiles the same source.
#include <cstdint>
#include <vector>

#include "native/cuda_host/launch_test.h"

using gramcore::test::Buffer;
using gramcore::test::expect_failure;
using gramcore::test::expect_success;

// ---- indices ----

__global__ void indices_kernel(unsigned* out) {
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  const unsigned thread = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  atomicAdd(&out[block * threads + thread], 1u + thread + 1000u * block);
}

GC_TEST(cuda_host_every_thread_of_a_3d_grid_runs_once) {
  Buffer<unsigned> out(2 * 3 * 4 * 5 * 3 * 2);
  GC_CUDA_LAUNCH(indices_kernel, dim3(2, 3, 4), dim3(5, 3, 2), 0, nullptr, out.get());
  expect_success();
  const auto host = out.read();
  for (unsigned i = 0; i < host.size(); ++i) EXPECT_EQ(host[i], 1u + i % 30 + 1000u * (i / 30));
}

// ---- block barriers ----

__global__ void reverse_kernel(int* out) {
  __shared__ int tile[96];
  const int i = static_cast<int>(threadIdx.x);
  for (int round = 0; round < 5; ++round) {
    tile[i] = i + 100 * round + static_cast<int>(blockIdx.x);
    __syncthreads();
    const int other = tile[95 - i];
    __syncthreads();
    out[(blockIdx.x * 5 + round) * 96 + i] = other;
  }
}

GC_TEST(cuda_host_barrier_orders_shared_memory) {
  Buffer<int> out(7 * 5 * 96);
  GC_CUDA_LAUNCH(reverse_kernel, 7, 96, 0, nullptr, out.get());
  expect_success();
  const auto host = out.read();
  for (int i = 0; i < 7 * 5 * 96; ++i) EXPECT_EQ(host[i], 95 - i % 96 + 100 * (i / 96 % 5) + i / 480);
}

__global__ void predicate_kernel(int* out, int lonely) {
  const int i = static_cast<int>(threadIdx.x);
  const int any_lonely = __syncthreads_or(i == lonely);
  const int any = __syncthreads_or(i < 0);
  const int all = __syncthreads_and(i >= 0);
  const int all_but_lonely = __syncthreads_and(i != lonely);
  const int count = __syncthreads_count(i % 3 == 0);
  if (i == 0) {
    out[0] = any_lonely != 0;
    out[1] = any != 0;
    out[2] = all != 0;
    out[3] = all_but_lonely != 0;
    out[4] = count;
  }
}

GC_TEST(cuda_host_barrier_predicates) {
  for (const int lonely : {0, 1, 49}) {
    Buffer<int> out(5);
    GC_CUDA_LAUNCH(predicate_kernel, 1, 50, 0, nullptr, out.get(), lonely);
    expect_success();
    const auto host = out.read();
    const int expected[] = {1, 0, 1, 0, 17};
    for (int i = 0; i < 5; ++i) EXPECT_EQ(host[i], expected[i]);
  }
}

// ---- dynamic shared memory ----

__global__ void prefix_kernel(const int* in, int* out) {
  GC_DYNAMIC_SHARED(int, tile);
  const int i = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  tile[i] = in[i];
  __syncthreads();
  for (int step = 1; step < n; step *= 2) {
    const int left = i >= step ? tile[i - step] : 0;
    __syncthreads();
    tile[i] += left;
    __syncthreads();
  }
  out[i] = tile[i];
}

GC_TEST(cuda_host_dynamic_shared_memory) {
  for (const int n : {1, 31, 32, 33, 257, 1024}) {
    Buffer<int> in(n), out(n);
    std::vector<int> host(n);
    for (int i = 0; i < n; ++i) host[i] = i * i % 17 - 5;
    cudaMemcpyAsync(in.get(), host.data(), n * sizeof(int), cudaMemcpyHostToDevice, nullptr);
    GC_CUDA_LAUNCH(prefix_kernel, 1, n, n * sizeof(int), nullptr, in.get(), out.get());
    expect_success();
    const auto sums = out.read();
    for (int i = 0, sum = 0; i < n; ++i) EXPECT_EQ(sums[i], sum += host[i]);
  }
}

GC_TEST(cuda_host_dynamic_shared_memory_above_48k_must_be_asked_for) {
  Buffer<int> in(1), out(1);
  const int bytes = 64 * 1024;
  GC_CUDA_LAUNCH(prefix_kernel, 1, 1, bytes, nullptr, in.get(), out.get());
  expect_failure(cudaErrorInvalidConfiguration);
  EXPECT(cudaFuncSetAttribute(prefix_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes) == cudaSuccess);
  GC_CUDA_LAUNCH(prefix_kernel, 1, 1, bytes, nullptr, in.get(), out.get());
  expect_success();
  EXPECT(cudaFuncSetAttribute(prefix_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, 0) == cudaSuccess);
}

// ---- warps ----

constexpr int kShuffles = 8;

__global__ void shuffle_kernel(long long* out) {
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  const long long x = 1000000000000LL + i;  // 64-bit: values travel whole
  long long* row = out + i * kShuffles;
  row[0] = __shfl_sync(0xffffffffu, x, 5);
  row[1] = __shfl_sync(0xffffffffu, x, lane + 3);
  row[2] = __shfl_up_sync(0xffffffffu, x, 2);
  row[3] = __shfl_down_sync(0xffffffffu, x, 7);
  row[4] = __shfl_xor_sync(0xffffffffu, x, 16);
  row[5] = __shfl_sync(0xffffffffu, x, 1, 8);
  row[6] = __shfl_down_sync(0xffffffffu, x, 3, 8);
  row[7] = __shfl_up_sync(0xffffffffu, x, 3, 8);
}

GC_TEST(cuda_host_shuffles) {
  Buffer<long long> out(64 * kShuffles);
  GC_CUDA_LAUNCH(shuffle_kernel, 1, 64, 0, nullptr, out.get());
  expect_success();
  const auto host = out.read();
  for (int i = 0; i < 64; ++i) {
    const int lane = i % 32, warp = i - lane, segment = lane / 8 * 8;
    const int source[kShuffles] = {5,
                                   (lane + 3) % 32,
                                   lane >= 2 ? lane - 2 : lane,
                                   lane + 7 < 32 ? lane + 7 : lane,
                                   lane ^ 16,
                                   segment + 1,
                                   lane + 3 < segment + 8 ? lane + 3 : lane,
                                   lane - 3 >= segment ? lane - 3 : lane};
    for (int s = 0; s < kShuffles; ++s) EXPECT_EQ(host[i * kShuffles + s], 1000000000000LL + warp + source[s]);
  }
}

__global__ void vote_kernel(unsigned* out) {
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  const unsigned odd = __ballot_sync(0xffffffffu, lane % 2);
  const int any = __any_sync(0xffffffffu, lane == 31), none = __any_sync(0xffffffffu, 0);
  const int all = __all_sync(0xffffffffu, 1), not_all = __all_sync(0xffffffffu, lane != 4);
  const unsigned same = __match_any_sync(0xffffffffu, lane / 8);
  out[i * 3] = odd;
  out[i * 3 + 1] = (any ? 1u : 0u) | (none ? 2u : 0u) | (all ? 4u : 0u) | (not_all ? 8u : 0u);
  out[i * 3 + 2] = same;
}

GC_TEST(cuda_host_votes) {
  Buffer<unsigned> out(64 * 3);
  GC_CUDA_LAUNCH(vote_kernel, 1, 64, 0, nullptr, out.get());
  expect_success();
  const auto host = out.read();
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(host[i * 3], 0xaaaaaaaau);
    EXPECT_EQ(host[i * 3 + 1], 5u);
    EXPECT_EQ(host[i * 3 + 2], 0xffu << (i % 32 / 8 * 8));
  }
}

// Two halves of each warp work apart, a different number of rounds, then together.
__global__ void divergent_warp_kernel(int* out) {
  const int i = static_cast<int>(threadIdx.x), lane = i % 32;
  int x = lane;
  if (lane < 16) {
    for (int round = 0; round < 3; ++round) x += __shfl_xor_sync(0x0000ffffu, x, 1);
  } else {
    for (int round = 0; round < 7; ++round) x = __shfl_xor_sync(0xffff0000u, x, 1) + 1;
  }
  out[i] = __shfl_xor_sync(0xffffffffu, x, 16);
}

GC_TEST(cuda_host_parts_of_a_warp_meet_separately) {
  Buffer<int> out(64);
  GC_CUDA_LAUNCH(divergent_warp_kernel, 1, 64, 0, nullptr, out.get());
  expect_success();
  const auto host = out.read();
  for (int i = 0; i < 64; ++i) {
    const int partner = i % 32 ^ 16;
    EXPECT_EQ(host[i], partner < 16 ? (partner / 2 * 4 + 1) * 4 : (partner ^ 1) + 7);
  }
}

// A warp of 20 threads (the block's last) sums with a full mask; absent lanes are not waited for.
__global__ void partial_warp_kernel(unsigned* out) {
  const unsigned present = __ballot_sync(0xffffffffu, 1);
  if (threadIdx.x % 2 == 1) return;
  const unsigned left = __ballot_sync(0xffffffffu, 1);  // lanes that returned are not waited for either
  out[threadIdx.x] = threadIdx.x < 32 ? present : left;
}

GC_TEST(cuda_host_absent_and_returned_lanes_do_not_block_a_warp) {
  Buffer<unsigned> out(52);
  GC_CUDA_LAUNCH(partial_warp_kernel, 1, 52, 0, nullptr, out.get());
  expect_success();
  const auto host = out.read();
  EXPECT_EQ(host[0], 0xffffffffu);
  EXPECT_EQ(host[32], 0x00055555u);
}

__global__ void syncwarp_kernel(int* out) {
  __shared__ int tile[64];
  const int i = static_cast<int>(threadIdx.x), base = i / 32 * 32;
  for (int round = 0; round < 4; ++round) {
    tile[i] = i * (round + 1);
    __syncwarp();
    const int next = tile[base + (i + 1) % 32];
    __syncwarp();
    out[(blockIdx.x * 4 + round) * 64 + i] = next;
  }
}

GC_TEST(cuda_host_syncwarp_orders_shared_memory) {
  Buffer<int> out(3 * 4 * 64);
  GC_CUDA_LAUNCH(syncwarp_kernel, 3, 64, 0, nullptr, out.get());
  expect_success();
  const auto host = out.read();
  for (int k = 0; k < 3 * 4 * 64; ++k) {
    const int i = k % 64;
    EXPECT_EQ(host[k], (i / 32 * 32 + (i + 1) % 32) * (k / 64 % 4 + 1));
  }
}

// ---- atomics ----

struct Totals {
  int sum, low, high, exchanged;
  unsigned bits, all, flipped, ticket;
  unsigned long long big;
  float real;
  int cas;
};

__global__ void atomics_kernel(Totals* t) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  atomicAdd(&t->sum, i);
  atomicMin(&t->low, -i);
  atomicMax(&t->high, i);
  atomicExch(&t->exchanged, 7);
  atomicOr(&t->bits, 1u << (i % 32));
  atomicAnd(&t->all, ~(1u << (i % 8)));
  atomicXor(&t->flipped, static_cast<unsigned>(i));
  atomicInc(&t->ticket, 99u);
  atomicAdd(&t->big, 1ULL << 33);
  atomicAdd(&t->real, 0.5f);
  int seen = atomicAdd(&t->cas, 0);
  for (;;) {  // a lock-free increment
    const int old = atomicCAS(&t->cas, seen, seen + 1);
    if (old == seen) break;
    seen = old;
  }
}

GC_TEST(cuda_host_atomics) {
  Buffer<Totals> out(1);
  Totals start{};
  start.all = 0xffffffffu;
  cudaMemcpyAsync(out.get(), &start, sizeof start, cudaMemcpyHostToDevice, nullptr);
  GC_CUDA_LAUNCH(atomics_kernel, 10, 50, 0, nullptr, out.get());
  expect_success();
  const Totals t = out.first();
  unsigned flipped = 0;
  for (unsigned i = 0; i < 500; ++i) flipped ^= i;
  EXPECT_EQ(t.sum, 499 * 500 / 2);
  EXPECT_EQ(t.low, -499);
  EXPECT_EQ(t.high, 499);
  EXPECT_EQ(t.exchanged, 7);
  EXPECT_EQ(t.bits, 0xffffffffu);
  EXPECT_EQ(t.all, 0xffffff00u);
  EXPECT_EQ(t.flipped, flipped);
  EXPECT_EQ(t.ticket, 0u);  // 500 tickets, wrapping after 99
  EXPECT_EQ(t.big, 500ULL << 33);
  EXPECT_EQ(t.real, 250.0f);
  EXPECT_EQ(t.cas, 500);
}

// Every block writes a part; the last one to finish adds them up.
__global__ void last_block_kernel(int* parts, unsigned* tickets, int* total) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    parts[blockIdx.x] = static_cast<int>(blockIdx.x) + 1;
    __threadfence();
    last = atomicAdd(tickets, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    __threadfence();
    int sum = 0;
    for (unsigned b = 0; b < gridDim.x; ++b) sum += parts[b];
    *total = sum;
  }
}

GC_TEST(cuda_host_last_block_sees_all_others) {
  Buffer<int> parts(40), total(1);
  Buffer<unsigned> tickets(1);
  GC_CUDA_LAUNCH(last_block_kernel, 40, 8, 0, nullptr, parts.get(), tickets.get(), total.get());
  expect_success();
  EXPECT_EQ(total.first(), 40 * 41 / 2);
}
