// Which CUDA devices this process can use.  Works in builds without CUDA and on machines without a driver.
#pragma once

#include <string>

namespace gramcore::cuda {

bool compiled();               // the CUDA kernels are part of this build
int device_count();            // 0 when there is no driver or no device
std::string status_message();  // one sentence: what was found, or why nothing can be used

}  // namespace gramcore::cuda
