// gramcore._core.quant: packing of low-bit weights.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind/tensor_arg.h"
#include "quant/packed.h"

namespace gramcore {

inline void bind_quant(pybind11::module_& parent) {
  namespace py = pybind11;
  using quant::PackSpec;
  using quant::ScaleType;
  py::module_ m = parent.def_submodule("quant", "Packed low-bit weights.");
  py::class_<PackSpec>(m, "PackSpec", "Shape and format of a packed weight (N, K).")
      .def(py::init([](std::int64_t n, std::int64_t k, int bits, std::int64_t group, int zero, bool has_min,
                       bool scale_f32) {
             PackSpec s;
             s.n = n;
             s.k = k;
             s.bits = bits;
             s.group = group;
             s.zero = zero;
             s.has_min = has_min;
             s.scale = scale_f32 ? ScaleType::f32 : ScaleType::f16;
             s.validate();
             return s;
           }),
           py::arg("n"), py::arg("k"), py::arg("bits"), py::arg("group"), py::arg("zero"), py::arg("has_min"),
           py::arg("scale_f32"))
      .def_property_readonly("groups", &PackSpec::groups)
      .def_property_readonly("packed_bytes", &PackSpec::packed_bytes);
  m.def(
      "pack",
      [](const PackSpec& spec, TensorArg& codes, TensorArg& scales, std::optional<TensorArg> mins, TensorArg& packed) {
        const auto c = codes.span<const std::uint8_t>("codes", 2);
        const quant::GroupValues values{scales.span<const float>("scales", 2),
                                        mins ? mins->span<const float>("mins", 2) : Span<const float>()};
        const auto out = packed.span<std::uint8_t>("packed", 1);
        const py::gil_scoped_release unlocked;
        quant::pack(spec, c, values, out);
      },
      py::arg("spec"), py::arg("codes"), py::arg("scales"), py::arg("mins"), py::arg("packed"));
  m.def(
      "unpack",
      [](const PackSpec& spec, TensorArg& packed, TensorArg& codes, TensorArg& scales, std::optional<TensorArg> mins) {
        const auto p = packed.span<const std::uint8_t>("packed", 1);
        const auto c = codes.span<std::uint8_t>("codes", 2);
        const auto s = scales.span<float>("scales", 2);
        const auto low = mins ? mins->span<float>("mins", 2) : Span<float>();
        const py::gil_scoped_release unlocked;
        quant::unpack(spec, p, c, s, low);
      },
      py::arg("spec"), py::arg("packed"), py::arg("codes"), py::arg("scales"), py::arg("mins"));
}

}  // namespace gramcore
