// gramcore._core.grammar: vocabularies, grammars, matchers.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "bind/grammar_rules.inl.h"
#include "bind/integer_method.h"
#include "bind/tensor_arg.h"
#include "grammar/matcher.h"
#include "grammar/regex.h"
#include "grammar/schema.h"

namespace gramcore {
namespace grammar_bind {

namespace py = pybind11;
using namespace grammar;

inline std::int32_t* mask_row(TensorArg& out, std::int64_t row, std::size_t words) {
  GC_CHECK(out.view().dtype == DType::i32, "out must have dtype int32, got ", dtype_name(out.view().dtype));
  const TensorView& view = out.checked("out", DType::i32, -1, true);
  GC_CHECK(view.rank == 1 || view.rank == 2, "out must have rank 1 or 2, got ", view.rank);
  const std::int64_t rows = view.rank == 2 ? view.shape[0] : 1, width = view.shape[view.rank - 1];
  GC_CHECK(row >= 0 && row < rows, "row must be in [0, ", rows, "), got ", row);
  GC_CHECK(width >= static_cast<std::int64_t>(words), "out must have at least ", words,
           " words (one bit per token), got ", width);
  std::int32_t* at = static_cast<std::int32_t*>(view.data) + row * width;
  std::fill(at + words, at + width, 0);
  return at;
}

inline void bind_vocab(py::module_& m) {
  py::class_<Vocab, std::shared_ptr<Vocab>>(m, "Vocab")
      .def(py::init([](const std::vector<py::bytes>& tokens, std::vector<std::uint32_t> special,
                       std::vector<std::uint32_t> stop) {
             std::vector<std::uint8_t> bytes;
             std::vector<std::uint64_t> offsets{0};
             for (const auto& t : tokens) {
               const std::string_view s = t;
               bytes.insert(bytes.end(), s.begin(), s.end());
               offsets.push_back(bytes.size());
             }
             const py::gil_scoped_release unlocked;
             return std::make_shared<Vocab>(std::move(bytes), std::move(offsets), std::move(special), std::move(stop));
           }),
           py::arg("tokens"), py::arg("special"), py::arg("stop"))
      .def("__len__", &Vocab::size)
      .def_property_readonly("stop", [](const Vocab& v) { return v.stop(); })
      .def_property_readonly("fingerprint", &Vocab::fingerprint)
      .def(
          "extends",
          [](const Vocab& v, const py::bytes& prefix) { return v.extends(as_bytes(std::string_view(prefix))); },
          py::arg("prefix"))
      .def("is_special",
           [](const Vocab& v, std::size_t id) {
             GC_CHECK_AS(OutOfRange, id < v.size(), "token must be < ", v.size(), ", got ", id);
             return v.is_special(id);
           })
      .def(
          "token",
          [](const Vocab& v, std::size_t id) {
            GC_CHECK_AS(OutOfRange, id < v.size(), "token must be < ", v.size(), ", got ", id);
            return py::bytes(reinterpret_cast<const char*>(v.token(id).data()), v.token(id).size());
          },
          py::arg("id"));
}

inline void bind_grammar_class(py::module_& m) {
  py::class_<Grammar, std::shared_ptr<Grammar>>(m, "Grammar")
      .def_static(
          "from_regex",
          [](const std::string& text, bool search, bool boolean_operators, bool dot_all) {
            auto g = std::make_shared<Grammar>();
            RegexOptions options;
            options.search = search;
            options.boolean_operators = boolean_operators;
            options.dot_all = dot_all;
            g->start = parse_regex(text, options, &g->pool);
            return g;
          },
          py::arg("text"), py::arg("search"), py::arg("boolean_operators"), py::arg("dot_all"))
      .def_static(
          "from_json_schema",
          [](const std::string& text, bool strict, bool spaces, bool any_order, std::uint32_t max_string,
             std::uint32_t max_digits, const std::string& resources) {
            std::vector<ReportEntry> report;
            auto g = std::make_shared<Grammar>();
            {
              const py::gil_scoped_release unlocked;
              const Json root = parse_json(text);
              const Json more = parse_json(resources, static_cast<std::uint32_t>(text.size()));
              SchemaCompiler compiler(root, {strict, any_order, spaces, max_string, max_digits}, &more);
              *g = compiler.run();
              report = compiler.report();
            }
            std::vector<std::tuple<std::string, std::string, std::string, std::string>> entries;
            for (const auto& e : report) entries.emplace_back(e.pointer, e.keyword, e.status, e.detail);
            return std::make_pair(g, entries);
          },
          py::arg("text"), py::arg("strict"), py::arg("spaces"), py::arg("any_order"), py::arg("max_string"),
          py::arg("max_digits"), py::arg("resources") = "{}")
      .def("is_empty",
           [](const Grammar& g) {
             const py::gil_scoped_release unlocked;
             return matches_nothing(g);
           })
      .def("to_bytes", [](const Grammar& g) { return py::bytes(to_bytes(g)); })
      .def_static(
          "from_bytes",
          [](const py::bytes& data) { return std::make_shared<Grammar>(from_bytes(std::string_view(data))); },
          py::arg("data"))
      .def("structure",
           [](const Grammar& g) {
             const auto h = structure_of(g);
             return std::make_pair(h[0], h[1]);
           })
      .def_property_readonly("num_rules", [](const Grammar& g) { return g.rules.size(); });
}

inline void bind_matcher(py::module_& m) {
  py::class_<Compiled, std::shared_ptr<Compiled>>(m, "Compiled")
      .def(py::init([](std::shared_ptr<Vocab> vocab, const Grammar& grammar, std::uint32_t max_states,
                       std::uint64_t max_bytes, double max_seconds) {
             Limits limits;
             limits.max_states = max_states;
             limits.max_bytes = max_bytes;
             limits.max_seconds = max_seconds;
             const py::gil_scoped_release unlocked;
             return std::make_shared<Compiled>(std::move(vocab), grammar, limits);
           }),
           py::arg("vocab"), py::arg("grammar"), py::arg("max_states"), py::arg("max_bytes"), py::arg("max_seconds"))
      .def_property_readonly("num_states", &Compiled::num_states)
      .def_property_readonly("num_bytes", &Compiled::bytes);
  py::class_<Matcher> matcher(m, "Matcher");
  def_integer_method<Matcher, &Matcher::accept>(
      matcher, "accept",
      "accept(self: gramcore._core.grammar.Matcher, token: typing.SupportsInt | typing.SupportsIndex) -> bool\n");
  matcher.def(py::init<std::shared_ptr<Compiled>, std::int64_t>(), py::arg("compiled"), py::arg("max_tokens") = -1)
      .def(
          "accept_bytes",
          [](Matcher& x, const py::bytes& bytes) { return x.accept_bytes(as_bytes(std::string_view(bytes))); },
          py::arg("data"))
      .def(
          "fill_bitmask",
          [](Matcher& x, TensorArg& out, std::int64_t row) {
            std::int32_t* at = mask_row(out, row, x.compiled()->vocab().words());
            const py::gil_scoped_release unlocked;
            return x.fill_bitmask(at);
          },
          py::arg("out"), py::arg("row") = 0)
      .def(
          "fill_tree",
          [](Matcher& x, TensorArg& tokens, TensorArg& parents, TensorArg& out) {
            const auto ids = tokens.span<const std::int32_t>("tokens", 1);
            const auto before = parents.span<const std::int32_t>("parents", 1);
            const std::size_t words = x.compiled()->vocab().words();
            std::int32_t* rows = mask_row(out, 0, words);
            const TensorView& view = out.view();
            GC_CHECK(view.rank == 2 && view.shape[0] > static_cast<std::int64_t>(ids.size()),
                     "out must have one row per node and one for the root (", ids.size() + 1, "), got ",
                     view.rank == 2 ? view.shape[0] : 1);
            const auto stride = static_cast<std::size_t>(view.shape[1]);
            for (std::size_t r = 1; r <= ids.size(); ++r)
              std::fill(rows + r * stride + words, rows + (r + 1) * stride, 0);
            const py::gil_scoped_release unlocked;
            x.fill_tree(ids, before, rows, stride);
          },
          py::arg("tokens"), py::arg("parents"), py::arg("out"))
      .def(
          "fill_bitmask_slowly",
          [](Matcher& x, TensorArg& out) {
            x.compiled()->fill_slowly(x.state(), mask_row(out, 0, x.compiled()->vocab().words()));
          },
          py::arg("out"))
      .def("allowed_tokens",
           [](Matcher& x) {
             std::vector<std::int32_t> bits(x.compiled()->vocab().words()), ids;
             x.fill_bitmask(bits.data());
             for (std::size_t t = 0; t < x.compiled()->vocab().size(); ++t) {
               if (bitmask_test(bits.data(), t)) ids.push_back(static_cast<std::int32_t>(t));
             }
             return py::array_t<std::int32_t>(static_cast<py::ssize_t>(ids.size()), ids.data());
           })
      .def("rollback", &Matcher::rollback, py::arg("n"))
      .def("reset", &Matcher::reset)
      .def("fork", [](const Matcher& x) { return std::make_unique<Matcher>(x); })
      .def("is_terminated", &Matcher::is_terminated)
      .def("can_terminate", &Matcher::can_terminate)
      .def(
          "jump_forward_bytes",
          [](Matcher& x, std::size_t limit) {
            const auto forced = x.compiled()->forced_bytes(x.state(), limit);
            return py::bytes(reinterpret_cast<const char*>(forced.data()), forced.size());
          },
          py::arg("limit") = 256)
      .def_property_readonly("num_steps", &Matcher::num_steps);
}

// Matchers that step and are masked together; the Python objects are kept alive.
struct Batch {
  std::vector<py::object> objects;
  std::vector<Matcher*> matchers;

  explicit Batch(std::vector<py::object> all) : objects(std::move(all)) {
    for (const auto& o : objects) matchers.push_back(o.cast<Matcher*>());
    for (const Matcher* m : matchers) {
      GC_CHECK(m->compiled()->vocab().size() == matchers[0]->compiled()->vocab().size(),
               "matchers must share one vocabulary size, got ", m->compiled()->vocab().size(), " and ",
               matchers[0]->compiled()->vocab().size());
    }
  }
};

inline void bind_batch(py::module_& m) {
  py::class_<Batch>(m, "Batch")
      .def(py::init<std::vector<py::object>>(), py::arg("matchers"))
      .def(
          "fill_bitmasks",
          [](Batch& b, TensorArg& out, TensorArg& rows) {
            const auto where = rows.span<const std::int64_t>("rows", 1);
            GC_CHECK(where.size() == b.matchers.size(), "rows must have one entry per matcher (", b.matchers.size(),
                     "), got ", where.size());
            std::vector<std::int32_t*> at;
            for (std::size_t i = 0; i < where.size(); ++i) {
              at.push_back(mask_row(out, where[i], b.matchers[i]->compiled()->vocab().words()));
            }
            std::vector<std::int32_t*> sorted = at;
            std::sort(sorted.begin(), sorted.end());
            GC_CHECK(std::adjacent_find(sorted.begin(), sorted.end()) == sorted.end(),
                     "rows must differ, got one for two matchers");
            const py::gil_scoped_release unlocked;
            fill_batch(Span<Matcher* const>(b.matchers.data(), b.matchers.size()),
                       Span<std::int32_t* const>(at.data(), at.size()));
          },
          py::arg("out"), py::arg("rows"))
      .def(
          "accept",
          [](Batch& b, TensorArg& tokens) {
            const auto ids = tokens.span<const std::int64_t>("tokens", 1);
            GC_CHECK(ids.size() == b.matchers.size(), "tokens must have one entry per matcher (", b.matchers.size(),
                     "), got ", ids.size());
            py::array_t<bool> out(static_cast<py::ssize_t>(ids.size()));
            bool* ok = out.mutable_data();
            {
              const py::gil_scoped_release unlocked;
              for (std::size_t i = 0; i < ids.size(); ++i) ok[i] = b.matchers[i]->accept(ids[i]);
            }
            return out;
          },
          py::arg("tokens"));
}

}  // namespace grammar_bind

inline void bind_grammar(pybind11::module_& m) {
  pybind11::module_ sub = m.def_submodule("grammar", "Vocabularies, grammars and matchers.");
  pybind11::register_local_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const grammar::GrammarTooComplex& e) {
      const auto error = pybind11::module_::import("gramcore.grammar.errors").attr("GrammarTooComplex");
      PyErr_SetString(error.ptr(), e.what());
    }
  });
  grammar_bind::bind_vocab(sub);
  grammar_bind::bind_grammar_class(sub);
  grammar_bind::bind_matcher(sub);
  grammar_bind::bind_batch(sub);
  grammar_bind::bind_bnf(sub);
  grammar_bind::bind_builder(sub);
  grammar_bind::bind_mass_trie(sub);
}

}  // namespace gramcore
