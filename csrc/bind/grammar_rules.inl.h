// gramcore._core.grammar: rule grammars and the probability trie of the aligners.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>

#include "bind/tensor_arg.h"
#include "grammar/bnf.h"
#include "grammar/catalogue.h"
#include "grammar/copy.h"
#include "grammar/mass_trie.h"
#include "grammar/regex.h"

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

// A grammar under construction; ids are its expressions.
struct Builder {
  Grammar g;

  const std::vector<ExprId>& checked(const std::vector<ExprId>& ids) const {
    for (const ExprId e : ids) {
      GC_CHECK_AS(OutOfRange, e < g.pool.size(), "expression must be < ", g.pool.size(), ", got ", e);
    }
    return ids;
  }
  ExprId checked(ExprId e) const { return checked(std::vector<ExprId>{e})[0]; }
  std::uint32_t rule(std::uint32_t r) const {
    GC_CHECK_AS(OutOfRange, r < g.rules.size(), "rule must be < ", g.rules.size(), ", got ", r);
    return r;
  }
};

inline void bind_builder(py::module_& m) {
  py::class_<Catalogue, std::shared_ptr<Catalogue>>(m, "Catalogue")
      .def(py::init([](const std::vector<py::bytes>& texts) {
             const std::vector<std::string_view> views(texts.begin(), texts.end());
             const py::gil_scoped_release unlocked;
             return std::make_shared<Catalogue>(views);
           }),
           py::arg("texts"))
      .def("__len__", &Catalogue::size)
      .def_property_readonly("num_bytes", &Catalogue::bytes);
  py::class_<Builder>(m, "Builder")
      .def(py::init<>())
      .def("literal", [](Builder& b, const py::bytes& text) { return b.g.pool.literal(std::string_view(text)); })
      .def(
          "regex",
          [](Builder& b, const std::string& text, bool dot_all, bool ignore_case) {
            RegexOptions options;
            options.dot_all = dot_all;
            options.ignore_case = ignore_case;
            options.look_around = false;
            return parse_regex(text, options, &b.g.pool);
          },
          py::arg("text"), py::arg("dot_all") = false, py::arg("ignore_case") = false)
      .def("anything", [](Builder& b) { return b.g.pool.anything(); })
      .def("cat",
           [](Builder& b, const std::vector<ExprId>& parts) {
             ExprId all = ExprPool::kEpsilon;
             b.checked(parts);
             for (std::size_t i = parts.size(); i-- > 0;) all = b.g.pool.cat(parts[i], all);
             return all;
           })
      .def("alt", [](Builder& b, const std::vector<ExprId>& kids) { return b.g.pool.alt(b.checked(kids)); })
      .def("conj", [](Builder& b, const std::vector<ExprId>& kids) { return b.g.pool.conj(b.checked(kids)); })
      .def("complement", [](Builder& b, ExprId e) { return b.g.pool.complement(b.checked(e)); })
      .def(
          "repeat",
          [](Builder& b, ExprId e, std::uint32_t min, std::optional<std::uint32_t> max) {
            GC_CHECK(!max || min <= *max, "repetition must have minimum <= maximum, got ", min, " and ",
                     max.value_or(0));
            return b.g.pool.repeat(b.checked(e), min, max.value_or(kUnbounded));
          },
          py::arg("e"), py::arg("min"), py::arg("max"))
      .def("choice",
           [](Builder& b, const std::vector<py::bytes>& texts) {
             return b.g.pool.choice(std::vector<std::string_view>(texts.begin(), texts.end()));
           })
      .def("one_of", [](Builder& b, std::shared_ptr<Catalogue> c) { return b.g.pool.one_of(std::move(c)); })
      .def("rule", [](Builder& b, std::string name) { return b.g.add_rule(std::move(name)); })
      .def("define",
           [](Builder& b, std::uint32_t rule, ExprId body) { b.g.rules[b.rule(rule)].body = b.checked(body); })
      .def("call", [](Builder& b, std::uint32_t rule) { return b.g.pool.call(b.rule(rule)); })
      .def(
          "token",
          [](Builder& b, std::string name, std::vector<std::pair<std::uint32_t, std::uint32_t>> ranges, bool negated) {
            b.g.token_sets.push_back({std::move(name), std::move(ranges), negated});
            return b.g.pool.token(static_cast<std::uint32_t>(b.g.token_sets.size() - 1));
          },
          py::arg("name"), py::arg("ranges"), py::arg("negated"))
      .def("include", [](Builder& b, const Grammar& part) { return include(&b.g, part); })
      .def("finish", [](Builder& b, ExprId start) {
        b.g.start = b.checked(start);
        return std::make_shared<Grammar>(b.g);
      });
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
