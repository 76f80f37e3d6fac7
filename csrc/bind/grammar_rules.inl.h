// gramcore._core.grammar: rule grammars and the probability trie of the aligners.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "bind/tensor_arg.h"
#include "grammar/bnf.h"
#include "grammar/mass_trie.h"

namespace gramcore {
namespace grammar_bind {

namespace py = pybind11;
using namespace grammar;

inline void bind_bnf(py::module_& m) {
  m.def(
      "parse_bnf",
      [](const std::string& text, bool ebnf) {
        const py::gil_scoped_release unlocked;
        return std::make_shared<Grammar>(parse_bnf(text, ebnf ? BnfSyntax::kEbnf : BnfSyntax::kGbnf));
      },
      py::arg("text"), py::arg("ebnf"));
  m.def(
      "choice_grammar",
      [](const std::vector<py::bytes>& choices) {
        auto g = std::make_shared<Grammar>();
        std::vector<std::string_view> texts(choices.begin(), choices.end());
        const py::gil_scoped_release unlocked;
        g->start = g->pool.choice(std::move(texts));
        return g;
      },
      py::arg("choices"));
}

inline void bind_mass_trie(py::module_& m) {
  py::class_<MassTrie>(m, "MassTrie")
      .def(py::init<std::int64_t>(), py::arg("vocab_size"))
      .def_property_readonly("vocab_size", &MassTrie::vocab_size)
      .def_property_readonly("num_nodes", &MassTrie::num_nodes)
      .def("child", &MassTrie::child, py::arg("node"), py::arg("token"))
      .def("log_weight", &MassTrie::log_weight, py::arg("node"))
      .def("enter", &MassTrie::enter, py::arg("node"), py::arg("token"), py::arg("log_prob"))
      .def("exclude", &MassTrie::exclude, py::arg("node"))
      .def(
          "edit",
          [](MassTrie& x, MassTrie::NodeId node, TensorArg& logits, const std::optional<py::object>& bitmask) {
            const Span<float> row = logits.span<float>("logits", 1);
            const std::int32_t* bits = nullptr;
            if (bitmask) {
              const TensorArg mask(*bitmask);
              const Span<const std::int32_t> words = mask.span<const std::int32_t>("bitmask", 1);
              GC_CHECK(words.size() >= (row.size() + 31) / 32, "bitmask must have at least ", (row.size() + 31) / 32,
                       " words, got ", words.size());
              bits = words.data();
            }
            const py::gil_scoped_release unlocked;
            return x.edit(node, row, bits);
          },
          py::arg("node"), py::arg("logits"), py::arg("bitmask"))
      .def(
          "backtrack",
          [](MassTrie& x, MassTrie::NodeId bad, std::int64_t first, TensorArg& uniforms) {
            return x.backtrack(bad, first, uniforms.span<const double>("uniforms", 1));
          },
          py::arg("bad"), py::arg("first"), py::arg("uniforms"))
      .def("to_bytes", [](const MassTrie& x) { return py::bytes(x.to_bytes()); })
      .def_static(
          "from_bytes", [](const py::bytes& data) { return MassTrie::from_bytes(std::string_view(data)); },
          py::arg("data"))
      .def("check_integrity", &MassTrie::check_integrity);
}

}  // namespace grammar_bind
}  // namespace gramcore
