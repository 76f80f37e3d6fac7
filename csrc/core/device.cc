#include "core/device.h"

namespace gramcore::cuda {

bool compiled() {
  return false;
}
int device_count() {
  return 0;
}
std::string status_message() {
  return "built without CUDA";
}

}  // namespace gramcore::cuda
