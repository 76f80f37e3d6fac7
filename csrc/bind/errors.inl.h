// C++ error types -> Python exceptions.
#pragma once

#include <pybind11/pybind11.h>

#include "core/check.h"

namespace gramcore {

inline PyObject*& error_class(int index) {
  static PyObject* classes[3] = {};  // FormatError, LimitError, CudaError of gramcore.errors
  return classes[index];
}

inline void bind_errors() {
  namespace py = pybind11;
  const auto errors = py::module_::import("gramcore.errors");
  const char* names[] = {"FormatError", "LimitError", "CudaError"};
  for (int i = 0; i < 3; ++i) error_class(i) = py::object(errors.attr(names[i])).release().ptr();
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const TypeMismatch& e) {
      PyErr_SetString(PyExc_TypeError, e.what());
    } catch (const FormatError& e) {
      PyErr_SetString(error_class(0), e.what());
    } catch (const LimitError& e) {
      PyErr_SetString(error_class(1), e.what());
    } catch (const CudaError& e) {
      PyErr_SetString(error_class(2), e.what());
    } catch (const IoError& e) {
      PyErr_SetString(PyExc_OSError, e.what());
    }
    // InvalidArgument and OutOfRange are std::invalid_argument / std::out_of_range: pybind11 maps them.
  });
}

}  // namespace gramcore
