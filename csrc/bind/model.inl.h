// gramcore._core.model: the native decoder.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bind/tensor_arg.h"
#include "bind/token_ids.inl.h"
#include "model/decoder.h"

namespace gramcore {

namespace model_binding {

namespace py = pybind11;

inline model::Config make_config(const py::typing::Dict<py::str, py::int_>& sizes, std::vector<float> inverse_frequency,
                                 double rms_eps, double rope_scale) {
  model::Config c;
  const auto get = [&](const char* name) { return sizes[name].cast<std::int64_t>(); };
  c.layers = get("layers");
  c.hidden = get("hidden");
  c.feed_forward = get("feed_forward");
  c.heads = get("heads");
  c.kv_heads = get("kv_heads");
  c.head_dim = get("head_dim");
  c.vocab = get("vocab");
  c.rms_eps = static_cast<float>(rms_eps);
  c.rope_scale = static_cast<float>(rope_scale);
  c.inverse_frequency = std::move(inverse_frequency);
  return c;
}

inline quant::PackSpec make_spec(const py::typing::Dict<py::str, py::int_>& spec) {
  quant::PackSpec s;
  s.n = spec["n"].cast<std::int64_t>();
  s.k = spec["k"].cast<std::int64_t>();
  s.bits = spec["bits"].cast<int>();
  s.group = spec["group"].cast<std::int64_t>();
  s.zero = spec["zero"].cast<int>();
  s.has_min = spec["has_min"].cast<bool>();
  s.scale = spec["scale_f32"].cast<bool>() ? quant::ScaleType::f32 : quant::ScaleType::f16;
  return s;
}

// The floats of an array, or none of None.
class Floats {
 public:
  Floats(const py::object& given, const char* name) {
    if (!given.is_none()) span_ = arg_.emplace(given).span<const float>(name);
  }
  Span<const float> span() const { return span_; }

 private:
  std::optional<TensorArg> arg_;
  Span<const float> span_;
};

inline void set_packed(model::Decoder& d, const std::string& name, std::int64_t layer,
                       const py::typing::Dict<py::str, py::int_>& spec, TensorArg& packed, const py::object& values,
                       const py::object& column_scale, int activation_bits) {
  const Floats table(values, "values"), scale(column_scale, "column_scale");
  const model::PackedWeights weights{make_spec(spec), packed.span<const std::uint8_t>("packed"), table.span(),
                                     scale.span(), activation_bits};
  const py::gil_scoped_release unlocked;
  d.set_packed(name, layer, weights);
}

// One code per byte (n, k), fp32 scales and minima (n, groups); values of a table's codes.
inline void set_codes(model::Decoder& d, const std::string& name, std::int64_t layer,
                      const py::typing::Dict<py::str, py::int_>& spec, TensorArg& codes, TensorArg& scales,
                      const py::object& mins, const py::object& values) {
  const quant::PackSpec s = make_spec(spec);
  s.validate();
  const auto code_span = codes.span<const std::uint8_t>("codes");
  const Floats minima(mins, "mins"), table(values, "values");
  const quant::GroupValues group_values{scales.span<const float>("scales"), minima.span()};
  const py::gil_scoped_release unlocked;
  std::vector<std::uint8_t> packed(static_cast<std::size_t>(s.packed_bytes()));
  quant::pack(s, code_span, group_values, packed);
  d.set_packed(name, layer, {s, packed, table.span(), {}, 8});
}

// ids: per sequence; parents: None, or per sequence the parents of a tree's nodes or None for a chain.  Logits of all
// rows, of each sequence's last one or None, as `rows` says ("all", "last", "none"), and, if asked for, final hidden
// states of all or the last.  extra: embedding rows (E, hidden) of the ids from the vocabulary's size on, or None.
inline py::object forward(model::Decoder& d, const std::vector<model::Cache*>& caches, const py::sequence& ids,
                          const std::optional<py::sequence>& parents, const std::string& rows, bool want_hidden,
                          const py::object& extra) {
  constexpr std::int64_t kLow = std::numeric_limits<std::int32_t>::min(), kHigh = -(kLow + 1);
  GC_CHECK(caches.size() == ids.size(), "caches must be one per sequence, got ", caches.size(), " for ", ids.size());
  GC_CHECK(!parents || parents->size() == ids.size(), "trees must be one per sequence, got ",
           parents ? parents->size() : 0, " for ", ids.size());
  std::vector<ngram::TokenIds> tokens, nodes;
  tokens.reserve(caches.size());
  nodes.reserve(caches.size());
  std::vector<model::SequenceRows> sequences;
  std::size_t total = 0, filled = 0;
  for (std::size_t s = 0; s < caches.size(); ++s) {
    GC_CHECK(caches[s], "caches must be caches, got None for sequence ", s);
    const auto row = tokens.emplace_back(py::object(ids[s]), "ids", kLow, kHigh).span();
    const std::int32_t* tree = nullptr;
    if (const py::object given = parents ? py::object((*parents)[s]) : py::none(); !given.is_none()) {
      const auto span = nodes.emplace_back(given, "parents", kLow, kHigh).span();
      GC_CHECK(span.size() == row.size(), "parents must have one entry per token, got ", span.size(), " for ",
               row.size());
      tree = span.data();
    }
    sequences.push_back({caches[s], row.data(), static_cast<std::int64_t>(row.size()), tree});
    total += row.size();
    filled += row.size() > 0 ? 1 : 0;
  }
  model::ForwardRequest r;
  std::optional<TensorArg> extra_rows;
  if (!extra.is_none()) r.extra = extra_rows.emplace(extra).span<const float>("extra", 2);
  r.sequences = {sequences.data(), sequences.size()};
  r.all_rows = rows == "all" || (rows == "none" && want_hidden);
  const auto count = static_cast<py::ssize_t>(r.all_rows ? total : filled);
  py::object logits = py::none(), hidden = py::none();
  if (rows != "none") {
    py::array_t<float> array({count, static_cast<py::ssize_t>(d.config().vocab)});
    r.logits = array.mutable_data();
    logits = std::move(array);
  }
  if (want_hidden) {
    py::array_t<float> array({count, static_cast<py::ssize_t>(d.config().hidden)});
    r.hidden = array.mutable_data();
    hidden = std::move(array);
  }
  {
    const py::gil_scoped_release unlocked;
    d.forward(r);
  }
  return py::make_tuple(logits, hidden);
}

inline DType cache_dtype(const std::string& name) {
  for (DType t : {DType::f32, DType::bf16, DType::f16, DType::i8}) {
    if (name == dtype_name(t)) return t;
  }
  throw InvalidArgument("kv_dtype must be float32, bfloat16, float16 or int8, got '" + name + "'");
}

}  // namespace model_binding

inline void bind_model(pybind11::module_& parent) {
  namespace py = pybind11;
  using namespace model_binding;
  py::module_ m = parent.def_submodule("model", "Native decoder of Llama-family models.");
  py::class_<model::Cache>(m, "Cache")
      .def(py::init([](std::int64_t layers, std::int64_t kv_heads, std::int64_t capacity, std::int64_t head_dim,
                       const std::string& dtype) {
             return std::make_unique<model::Cache>(layers, kv_heads, capacity, head_dim, cache_dtype(dtype));
           }),
           py::arg("layers"), py::arg("kv_heads"), py::arg("capacity"), py::arg("head_dim"), py::arg("dtype"))
      .def_property_readonly("capacity", &model::Cache::capacity)
      .def_property_readonly("length", &model::Cache::length)
      .def_property_readonly("pending", &model::Cache::pending)
      .def(
          "commit_path",
          [](model::Cache& c, TensorArg& path) { c.commit_path(path.span<const std::int64_t>("path", 1)); },
          py::arg("path"))
      .def("truncate", &model::Cache::truncate, py::arg("length"));
  py::class_<model::Decoder>(m, "Decoder")
      .def(py::init([](const py::typing::Dict<py::str, py::int_>& sizes, std::vector<float> inverse_frequency,
                       double rms_eps, double rope_scale) {
             return std::make_unique<model::Decoder>(
                 make_config(sizes, std::move(inverse_frequency), rms_eps, rope_scale));
           }),
           py::arg("sizes"), py::arg("inverse_frequency"), py::arg("rms_eps"), py::arg("rope_scale"))
      .def(
          "set_dense",
          [](model::Decoder& d, const std::string& name, std::int64_t layer, TensorArg& weights) {
            const py::gil_scoped_release unlocked;
            d.set_dense(name, layer, weights.view());
          },
          py::arg("name"), py::arg("layer"), py::arg("weights"))
      .def("set_packed", &set_packed, py::arg("name"), py::arg("layer"), py::arg("spec"), py::arg("packed"),
           py::arg("values") = py::none(), py::arg("column_scale") = py::none(), py::arg("activation_bits") = 8)
      .def("set_codes", &set_codes, py::arg("name"), py::arg("layer"), py::arg("spec"), py::arg("codes"),
           py::arg("scales"), py::arg("mins"), py::arg("values") = py::none())
      .def(
          "set_vector",
          [](model::Decoder& d, const std::string& name, std::int64_t layer, TensorArg& values) {
            d.set_vector(name, layer, values.span<const float>("values", 1));
          },
          py::arg("name"), py::arg("layer"), py::arg("values"))
      .def("finish", &model::Decoder::finish)
      .def_property_readonly("weight_bytes", &model::Decoder::weight_bytes)
      .def("forward", &forward, py::arg("caches"), py::arg("ids"), py::arg("parents"), py::arg("rows"),
           py::arg("want_hidden"), py::arg("extra") = py::none());
}

}  // namespace gramcore
