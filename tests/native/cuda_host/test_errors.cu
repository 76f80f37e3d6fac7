// What a kernel or a launch may do wrong, and what the host execution layer says then.
#include <string>

#include "native/cuda_host/launch_test.h"

using gramcore::test::Buffer;
using gramcore::test::expect_failure;
using gramcore::test::expect_success;

__global__ void early_return_kernel() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
__global__ void split_barrier_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads_or(1);
  }
}
__global__ void barrier_against_warp_kernel() {
  if (threadIdx.x == 0) {
    __syncthreads();
  } else {
    __shfl_sync(0xffffffffu, 1, 0);
  }
}
__global__ void outside_mask_kernel() {
  __shfl_sync(0x0000ffffu, 1, 0);
}
__global__ void mixed_warp_kernel() {
  if (threadIdx.x < 16) {
    __shfl_sync(0xffffffffu, 1, 0);
  } else {
    __ballot_sync(0xffffffffu, 1);
  }
}
__global__ void trap_kernel() {
  if (blockIdx.x == 2 && threadIdx.x == 1) __trap();
}
__global__ void nothing_kernel() {}
__global__ void count_kernel(int* out) {
  const int threads = __syncthreads_count(1);
  if (threadIdx.x == 0) atomicAdd(out, threads);
}

#if !defined(__CUDACC__)  // a device would hang on some of these
static void expect_contains(const std::string& text, const std::string& part) {
  if (text.find(part) == std::string::npos) throw gramcore::test::Failure{"'" + text + "' lacks '" + part + "'"};
}

GC_TEST(cuda_host_divergence_is_an_error_not_a_hang) {
  GC_CUDA_LAUNCH(early_return_kernel, 1, 64, 0, nullptr);
  std::string text = expect_failure(cudaErrorLaunchFailure);
  expect_contains(text, "63 wait at __syncthreads()");
  expect_contains(text, "1 returned, first (3, 0, 0)");
  expect_contains(text, "test_errors.cu:");

  GC_CUDA_LAUNCH(split_barrier_kernel, 1, 64, 0, nullptr);
  text = expect_failure(cudaErrorLaunchFailure);
  expect_contains(text, "different barriers");

  GC_CUDA_LAUNCH(barrier_against_warp_kernel, 1, 32, 0, nullptr);
  text = expect_failure(cudaErrorLaunchFailure);
  expect_contains(text, "31 wait at a shuffle with mask 0xffffffff");

  GC_CUDA_LAUNCH(outside_mask_kernel, 1, 32, 0, nullptr);
  expect_contains(expect_failure(cudaErrorLaunchFailure), "lane 16 is not in mask 0x0000ffff");

  GC_CUDA_LAUNCH(mixed_warp_kernel, 1, 32, 0, nullptr);
  expect_contains(expect_failure(cudaErrorLaunchFailure), "different intrinsics");

  GC_CUDA_LAUNCH(trap_kernel, 4, 2, 0, nullptr);
  text = expect_failure(cudaErrorLaunchFailure);
  expect_contains(text, "__trap()");
  expect_contains(text, "block (2, 0, 0)");
}
#endif

GC_TEST(cuda_host_launches_work_after_a_failed_one) {
  for (int round = 0; round < 20; ++round) {
#if !defined(__CUDACC__)
    GC_CUDA_LAUNCH(early_return_kernel, 3, 64, 0, nullptr);
    expect_failure(cudaErrorLaunchFailure);
#endif
    Buffer<int> out(1);
    GC_CUDA_LAUNCH(count_kernel, 7, 96, 0, nullptr, out.get());
    expect_success();
    EXPECT_EQ(out.first(), 7 * 96);
  }
}

GC_TEST(cuda_host_refuses_what_a_device_refuses) {
  const dim3 bad_blocks[] = {dim3(0), dim3(1025), dim3(32, 33), dim3(1, 1, 65)};
  for (const dim3 block : bad_blocks) {
    GC_CUDA_LAUNCH(nothing_kernel, 1, block, 0, nullptr);
    expect_failure(cudaErrorInvalidConfiguration);
  }
  const dim3 bad_grids[] = {dim3(0), dim3(1, 65536), dim3(1, 1, 65536)};
  for (const dim3 grid : bad_grids) {
    GC_CUDA_LAUNCH(nothing_kernel, grid, 1, 0, nullptr);
    expect_failure(cudaErrorInvalidConfiguration);
  }
}
