// Status of a launcher with a C ABI: 0 for success, else a cudaError_t; the text is kept per CPU thread.
//
//   if (args->vocab_size < 1) return invalid("vocab_size must be >= 1, got ", args->vocab_size);
//   GC_CUDA_LAUNCH(...);
//   return launch_status("apply_bitmask");
#pragma once

#include <string>

#include "core/check.h"

// Why the last launcher called on this CPU thread failed; empty when it did not.
extern "C" const char* gc_cuda_last_message();

namespace gramcore::cuda {

inline constexpr int kOk = 0;
inline constexpr int kInvalidArgument = 1;  // cudaErrorInvalidValue

// Stores the text and returns the code.
int set_status(int code, const std::string& text);

template <class... Parts>
int invalid(const Parts&... parts) {
  return set_status(kInvalidArgument, cat(parts...));
}

// Status of the launch just made; takes (and clears) the runtime's last error.  Builds with CUDA only.
int launch_status(const char* op);

// Turns a launcher's status into an exception: InvalidArgument for a bad argument, CudaError for everything else.
void check_status(int status);

}  // namespace gramcore::cuda
