// gramcore._core.quant: packing of low-bit weights.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "bind/tensor_arg.h"
#include "quant/linear.h"
#include "quant/packed.h"

namespace gramcore {

namespace quant_binding {

// y = x W^T + bias for dense x (..., K) and y (..., N).
inline void linear(const quant::PackSpec& spec, TensorArg& packed, TensorArg& x, std::optional<TensorArg> bias,
                   TensorArg& y, bool int8_activations) {
  quant::PackedLinear w{spec, packed.span<const std::uint8_t>("packed", 1), nullptr};
  if (bias) {
    const auto values = bias->span<const float>("bias", 1);
    GC_CHECK(values.size() == static_cast<std::size_t>(spec.n), "bias must have ", spec.n, " elements, got ",
             values.size());
    w.bias = values.data();
  }
  const TensorView &from = x.checked("x", x.view().dtype, -1, false), &to = y.checked("y", from.dtype, -1, true);
  const std::int64_t rows = from.numel() / spec.k;
  GC_CHECK(from.rank >= 1 && from.shape[from.rank - 1] == spec.k, "x must have ", spec.k, " columns, got ",
           from.rank ? from.shape[from.rank - 1] : 0);
  GC_CHECK(to.numel() == rows * spec.n, "y must have ", rows * spec.n, " elements, got ", to.numel());
  const pybind11::gil_scoped_release unlocked;
  quant::linear(w, {from.data, from.dtype, rows, spec.k, spec.k}, {to.data, to.dtype, rows, spec.n, spec.n},
                int8_activations ? quant::Activations::int8 : quant::Activations::f32);
}

}  // namespace quant_binding

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
  m.def("linear", &quant_binding::linear, py::arg("spec"), py::arg("packed"), py::arg("x"), py::arg("bias"),
        py::arg("y"), py::arg("int8_activations"));
}

}  // namespace gramcore
