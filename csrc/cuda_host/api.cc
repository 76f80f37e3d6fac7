#include "api.h"

#include <cstdlib>
#include <cstring>
#include <string>

namespace gramcore::cuda_host {

namespace {
struct LastError {
  cudaError_t code = cudaSuccess;
  std::string detail;  // of the last error that had one; outlives cudaGetLastError()
  cudaError_t detail_code = cudaSuccess;
};
LastError& last_error() {
  static thread_local LastError e;
  return e;
}
}  // namespace

cudaError_t set_last_error(cudaError_t error, const char* detail) {
  LastError& last = last_error();
  last.code = error;
  last.detail = detail == nullptr ? "" : detail;
  last.detail_code = error;
  return error;
}

}  // namespace gramcore::cuda_host

using gramcore::cuda_host::last_error;
using gramcore::cuda_host::set_last_error;

cudaError_t cudaGetLastError() {
  const cudaError_t code = last_error().code;
  last_error().code = cudaSuccess;
  return code;
}
cudaError_t cudaPeekAtLastError() {
  return last_error().code;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInsufficientDriver: return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice: return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  const auto& last = last_error();
  if (error != cudaSuccess && error == last.detail_code && !last.detail.empty()) return last.detail.c_str();
  return cudaGetErrorName(error);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = 1;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  return device == 0 ? cudaSuccess : set_last_error(cudaErrorInvalidDevice);
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  if (device != 0) return set_last_error(cudaErrorInvalidDevice);
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount: *value = 2; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 8; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
  }
  return set_last_error(cudaErrorInvalidValue);
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  return cudaDriverGetVersion(version);
}
cudaError_t cudaDeviceSynchronize() {
  return cudaPeekAtLastError();
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return cudaPeekAtLastError();
}

cudaError_t cudaMalloc(void** pointer, std::size_t bytes) {
  *pointer = nullptr;
  if (bytes != 0 && posix_memalign(pointer, 256, bytes) != 0) return set_last_error(cudaErrorMemoryAllocation);
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes != 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* pointer, int value, std::size_t bytes, cudaStream_t) {
  if (bytes != 0) std::memset(pointer, value, bytes);
  return cudaSuccess;
}
