#include "core/device.h"

#include "core/check.h"

#if defined(GRAMCORE_WITH_CUDA)
#include <cuda_runtime.h>
#endif

namespace gramcore::cuda {

#if defined(GRAMCORE_WITH_CUDA)

bool compiled() {
  return true;
}

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
  cudaGetLastError();  // leaves no error behind for the next launch
  return 0;
}

std::string status_message() {
  int count = 0, driver = 0, runtime = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess && count > 0) return cat(count, count == 1 ? " CUDA device" : " CUDA devices");
  cudaGetLastError();
  if (error == cudaSuccess || error == cudaErrorNoDevice) return "no CUDA device: the driver reports none";
  if (cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0) return "no CUDA device: driver not installed";
  if (error == cudaErrorInsufficientDriver && cudaRuntimeGetVersion(&runtime) == cudaSuccess) {
    return cat("no CUDA device: the driver supports CUDA ", driver / 1000, ".", driver % 1000 / 10,
               ", this build needs ", runtime / 1000, ".", runtime % 1000 / 10, "; update the driver");
  }
  return cat("no CUDA device: ", cudaGetErrorString(error));
}

#else

bool compiled() {
  return false;
}

int device_count() {
  return 0;
}

std::string status_message() {
  return "no CUDA device: built without CUDA";
}

#endif

}  // namespace gramcore::cuda
