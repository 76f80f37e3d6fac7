// The families that take part in decoding.
#include "bind/bind.h"
#include "bind/spec.inl.h"

namespace gramcore {

void bind_decoding(pybind11::module_& m) {
  bind_spec(m);
}

}  // namespace gramcore
