// A method that takes one integer and answers yes or no, called without pybind11's dispatcher, which takes longer than
// what it calls where that is a look-up.
#pragma once

#include <pybind11/detail/exception_translation.h>
#include <pybind11/pybind11.h>

#include <cstdint>

namespace gramcore {

template <class T, bool (T::*kMethod)(std::int64_t)>
PyObject* call_integer_method(PyObject* self, PyObject* argument) {
  namespace py = pybind11;
  try {
    auto* instance = reinterpret_cast<py::detail::instance*>(self);  // the descriptor has checked the class
    auto* object = static_cast<T*>(instance->get_value_and_holder().value_ptr());
    if (object == nullptr)
      throw py::value_error("object must be initialised first, got one whose __init__ did not run");
    const long long value = PyLong_AsLongLong(argument);
    if (value == -1 && PyErr_Occurred() != nullptr) {
      if (PyErr_ExceptionMatches(PyExc_OverflowError) == 0) return nullptr;
      PyErr_Clear();
      PyErr_Format(PyExc_ValueError, "argument must have at most 64 bits, got %R", argument);
      return nullptr;
    }
    return PyBool_FromLong((object->*kMethod)(value) ? 1 : 0);
  } catch (py::error_already_set& error) {
    error.restore();
  } catch (...) {
    py::detail::try_translate_exceptions();
  }
  return nullptr;
}

// Adds such a method to a bound class; doc begins with its signature, which the stub is made from.
template <class T, bool (T::*kMethod)(std::int64_t), class Class>
void def_integer_method(Class& bound, const char* name, const char* doc) {
  static PyMethodDef def{name, &call_integer_method<T, kMethod>, METH_O, doc};
  PyObject* made = PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(bound.ptr()), &def);
  if (made == nullptr) throw pybind11::error_already_set();
  bound.attr(name) = pybind11::reinterpret_steal<pybind11::object>(made);
}

}  // namespace gramcore
