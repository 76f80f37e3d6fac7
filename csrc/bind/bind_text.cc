// The families that work on text and token sequences.
#include "bind/bind.h"

namespace gramcore {

void bind_text(pybind11::module_& m) {
  static_cast<void>(m);
}

}  // namespace gramcore
