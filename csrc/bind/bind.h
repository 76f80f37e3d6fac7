// Registration of families with the extension module.  Each family writes `csrc/bind/<family>.inl.h` with one
// function `inline void bind_<family>(py::module_&)`; three translation units include them, so that pybind11
// is instantiated three times and not twenty.
#pragma once

#include <pybind11/pybind11.h>

namespace gramcore {

void bind_text(pybind11::module_& m);      // ngram, token, grammar   (bind_text.cc)
void bind_decoding(pybind11::module_& m);  // spec, decode, kvcache   (bind_decoding.cc)

}  // namespace gramcore
