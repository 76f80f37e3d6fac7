// Module entry, and the families that work on tensors.
#include "bind/bind.h"
#include "bind/core.inl.h"
#include "bind/errors.inl.h"
#include "bind/optim.inl.h"
#include "bind/quant.inl.h"
#include "bind/tensor_arg.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "Native cores of gramcore. Private: use the Python modules of the package.";
  m.attr("__version__") = GRAMCORE_VERSION;
  gramcore::bind_errors();
  gramcore::bind_core(m);
  gramcore::bind_optim(m);
  gramcore::bind_quant(m);
  gramcore::bind_text(m);
  gramcore::bind_decoding(m);
}
