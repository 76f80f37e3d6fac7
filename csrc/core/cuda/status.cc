#include "core/cuda/status.h"

#if defined(GRAMCORE_WITH_CUDA)
#include <cuda_runtime.h>
#endif

namespace gramcore::cuda {

namespace {
std::string& last_message() {
  static thread_local std::string text;
  return text;
}
}  // namespace

int set_status(int code, const std::string& text) {
  last_message() = text;
  return code;
}

void check_status(int status) {
  if (status == kOk) return;
  if (status == kInvalidArgument) throw InvalidArgument(last_message());
  throw CudaError(last_message());
}

#if defined(GRAMCORE_WITH_CUDA)
int launch_status(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return set_status(kOk, "");
  // kInvalidArgument is kept for arguments the launcher itself refused.
  const int code = error == cudaErrorInvalidValue ? static_cast<int>(cudaErrorLaunchFailure) : static_cast<int>(error);
  return set_status(code, cat(op, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")"));
}
#endif

}  // namespace gramcore::cuda

const char* gc_cuda_last_message() {
  return gramcore::cuda::last_message().c_str();
}
