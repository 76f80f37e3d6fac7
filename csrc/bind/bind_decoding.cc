// The families that take part in decoding.
#include "bind/bind.h"
#include "bind/model.inl.h"
#include "bind/spec.inl.h"

namespace gramcore {

void bind_decoding(pybind11::module_& m) {
  bind_spec(m);
  bind_model(m);
}

}  // namespace gramcore
