// The families that take part in decoding.
#include "bind/bind.h"

namespace gramcore {

void bind_decoding(pybind11::module_& m) {
  static_cast<void>(m);
}

}  // namespace gramcore
