// gramcore._core.ngram: suffix automata, index building and queries.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>

#include "bind/ngram_fm.inl.h"
#include "bind/ngram_index.inl.h"
#include "bind/token_ids.inl.h"
#include "ngram/chunked_sort.h"
#include "ngram/corpus_writer.h"
#include "ngram/suffix_array.h"
#include "ngram/suffix_automaton.h"

namespace gramcore::ngram {

// The automaton with the lock that lets long calls run without the GIL.
struct LockedAutomaton {
  SuffixAutomaton automaton;
  std::mutex mutex;

  template <class F>
  auto with(F&& fn) {
    const std::lock_guard<std::mutex> lock(mutex);
    return fn(automaton);
  }
  template <class F>
  auto without_gil(F&& fn) {
    const py::gil_scoped_release release;
    return with(fn);
  }
};

struct LockedMatcher {
  std::shared_ptr<LockedAutomaton> owner;
  SuffixMatcher matcher;
  std::int64_t seen;  // tokens the automaton held when the matcher was made: its states move when it changes
};

inline py::array_t<std::int32_t> draft(const SuffixAutomaton& a, SuffixAutomaton::Id state, std::int64_t match_len,
                                       std::int64_t max_tokens, const std::string& by, bool own_text) {
  GC_CHECK(max_tokens >= 0, "max_tokens must be in [0, inf), got ", max_tokens);
  GC_CHECK(by == "recent" || by == "first" || by == "frequent", "by must be one of recent, first, frequent, got '", by,
           "'");
  std::vector<std::int32_t> out;
  if (match_len == 0) return to_array(out);
  if (by == "frequent") {
    a.most_frequent(state, max_tokens, out);
  } else {
    a.copy_from(by == "recent" ? a.recent_end(state) : a.first_end(state), max_tokens, own_text, out);
  }
  return to_array(out);
}

inline void bind_automaton(py::module_& m) {
  using Auto = LockedAutomaton;
  py::class_<Auto, std::shared_ptr<Auto>>(m, "SuffixAutomaton")
      .def(py::init<>())
      .def("extend",
           [](Auto& self, py::handle ids) {
             if (PyLong_Check(ids.ptr()) && !PyBool_Check(ids.ptr())) {
               const std::int64_t id = py::cast<std::int64_t>(ids);
               GC_CHECK_AS(OutOfRange, id >= 0 && id <= kMaxId, "ids must be in [0, ", kMaxId, "], got ", id);
               self.with([&](SuffixAutomaton& a) { a.extend(static_cast<std::int32_t>(id)); });
               return;
             }
             const TokenIds tokens(ids, "ids", 0, kMaxId);
             self.without_gil([&](SuffixAutomaton& a) { a.extend(tokens.span()); });
           })
      .def("end_sequence",
           [](Auto& self) { self.with([](SuffixAutomaton& a) { a.extend(SuffixAutomaton::kBoundary); }); })
      .def("rollback", [](Auto& self, std::int64_t n) { self.without_gil([&](SuffixAutomaton& a) { a.rollback(n); }); })
      .def("clear", [](Auto& self) { self.with([](SuffixAutomaton& a) { a.clear(); }); })
      .def("num_tokens", [](Auto& self) { return self.with([](SuffixAutomaton& a) { return a.num_tokens(); }); })
      .def("num_states", [](Auto& self) { return self.with([](SuffixAutomaton& a) { return a.num_states(); }); })
      .def("num_transitions",
           [](Auto& self) { return self.with([](SuffixAutomaton& a) { return a.num_transitions(); }); })
      .def("num_bytes", [](Auto& self) { return self.with([](SuffixAutomaton& a) { return a.bytes(); }); })
      .def("match_len", [](Auto& self) { return self.with([](SuffixAutomaton& a) { return a.match_len(); }); })
      .def("tokens",
           [](Auto& self) {
             return self.with([](SuffixAutomaton& a) {
               return py::array_t<std::int32_t>(static_cast<py::ssize_t>(a.tokens().size()), a.tokens().data());
             });
           })
      .def("propose",
           [](Auto& self, std::int64_t max_tokens, const std::string& by) {
             return self.with(
                 [&](SuffixAutomaton& a) { return draft(a, a.match_state(), a.match_len(), max_tokens, by, true); });
           })
      .def("count",
           [](Auto& self, py::handle ids) {
             const TokenIds tokens(ids, "ids", 0, kMaxId);
             return self.without_gil([&](SuffixAutomaton& a) {
               const auto state = a.locate(tokens.span());
               return state == SuffixAutomaton::kNone ? 0 : a.count(state);
             });
           })
      .def("positions",
           [](Auto& self, py::handle ids) {
             const TokenIds tokens(ids, "ids", 0, kMaxId);
             std::vector<std::int64_t> ends;
             self.without_gil([&](SuffixAutomaton& a) {
               const auto state = a.locate(tokens.span());
               if (state != SuffixAutomaton::kNone) a.occurrences(state, ends);
             });
             for (auto& e : ends) e -= static_cast<std::int64_t>(tokens.span().size());
             return to_array(ends);
           })
      .def("save",
           [](Auto& self, const std::string& path) { self.without_gil([&](SuffixAutomaton& a) { a.save(path); }); })
      .def_static("load",
                  [](const std::string& path) {
                    auto loaded = std::make_shared<Auto>();
                    const py::gil_scoped_release release;
                    loaded->automaton = SuffixAutomaton::load(path);
                    return loaded;
                  })
      .def("check_integrity", [](Auto& self) { self.without_gil([](SuffixAutomaton& a) { a.check_integrity(); }); });

  const auto current = [](LockedMatcher& m, auto&& fn) {
    return m.owner->with([&](SuffixAutomaton& a) {
      GC_CHECK(a.num_tokens() == m.seen, "matcher must be used on an unchanged automaton, got ", a.num_tokens(),
               " tokens instead of ", m.seen, "; call reset()");
      return fn(a);
    });
  };
  py::class_<LockedMatcher>(m, "SuffixMatcher")
      .def(py::init([](std::shared_ptr<Auto> owner) {
        return LockedMatcher{owner, SuffixMatcher(owner->automaton), owner->automaton.num_tokens()};
      }))
      .def("advance",
           [current](LockedMatcher& self, py::handle ids) {
             const TokenIds tokens(ids, "ids", 0, kMaxId);
             current(self, [&](SuffixAutomaton&) {
               for (const auto t : tokens.span()) self.matcher.advance(t);
             });
           })
      .def("reset",
           [](LockedMatcher& self) {
             self.matcher.reset();
             self.owner->with([&](SuffixAutomaton& a) { self.seen = a.num_tokens(); });
           })
      .def("match_len", [](LockedMatcher& self) { return self.matcher.match_len(); })
      .def("propose",
           [current](LockedMatcher& self, std::int64_t max_tokens, const std::string& by) {
             return current(self, [&](SuffixAutomaton& a) {
               return draft(a, self.matcher.state(), self.matcher.match_len(), max_tokens, by, false);
             });
           })
      .def("propose_tree", [current](LockedMatcher& self, std::int64_t max_nodes, std::int64_t width) {
        return current(self, [&](SuffixAutomaton& a) {
          std::vector<std::int32_t> tokens, parents;
          if (self.matcher.match_len() > 0) a.frequent_tree(self.matcher.state(), max_nodes, width, tokens, parents);
          return py::make_tuple(to_array(tokens), to_array(parents));
        });
      });
}

inline void bind_index_build(py::module_& m) {
  py::class_<CorpusWriter>(m, "CorpusWriter")
      .def(py::init<const std::string&, int, int, bool>())
      .def("add",
           [](CorpusWriter& self, TensorArg& document) {
             const TensorView& v = document.view();
             const auto write = [&](auto t) {
               using T = decltype(t);
               const Span<const T> span = document.span<const T>("document", 1);
               const py::gil_scoped_release release;
               self.add(span);
             };
             switch (v.dtype) {
               case DType::u8: return write(std::uint8_t{});
               case DType::u16: return write(std::uint16_t{});
               case DType::u32: return write(std::uint32_t{});
               case DType::u64: return write(std::uint64_t{});
               case DType::i32: return write(std::int32_t{});
               case DType::i64: return write(std::int64_t{});
               default: throw TypeMismatch(cat("document must be an integer array, got ", dtype_name(v.dtype)));
             }
           })
      .def("num_documents", &CorpusWriter::num_documents)
      .def("num_tokens", &CorpusWriter::num_tokens)
      .def("commit", &CorpusWriter::commit, py::call_guard<py::gil_scoped_release>());
  py::class_<ChunkedSort>(m, "ChunkedSort", "Sorts a text in blocks; see csrc/ngram/chunked_sort.h.")
      .def(py::init<const std::string&, const std::string&, int, std::int64_t>(), py::arg("tokenized"),
           py::arg("table"), py::arg("token_bytes"), py::arg("block_tokens"))
      .def_static("memory_bytes", &ChunkedSort::memory_bytes, py::arg("num_tokens"), py::arg("block_tokens"))
      .def("num_blocks", &ChunkedSort::num_blocks)
      .def("num_done", &ChunkedSort::num_done)
      .def("sort_next", &ChunkedSort::sort_next, py::call_guard<py::gil_scoped_release>())
      .def("merge", &ChunkedSort::merge, py::call_guard<py::gil_scoped_release>());
  m.def(
      "build_table",
      [](const std::string& tokenized, const std::string& table, int token_bytes, const py::object& progress) {
        double told = 0;
        const auto tell = [&](double part) {
          constexpr double kStep = 1.0 / 256;
          if (part < told + kStep) return;
          told = part;
          const py::gil_scoped_acquire held;
          if (PyErr_CheckSignals() != 0) throw py::error_already_set();  // Ctrl-C
          if (!progress.is_none()) progress(part);
        };
        const py::gil_scoped_release release;
        build_table(tokenized, table, token_bytes, tell);
      },
      py::arg("tokenized_path"), py::arg("table_path"), py::arg("token_bytes"), py::arg("progress") = py::none());
  m.def("suffix_array", [](TensorArg& tokens) {
    const auto sort = [&](auto t) {
      using T = decltype(t);
      const Span<const T> span = tokens.span<const T>("tokens", 1);
      std::vector<std::int64_t> sa;
      {
        const py::gil_scoped_release release;
        sa = suffix_array<T, std::int64_t>(span);
      }
      return to_array(sa);
    };
    switch (tokens.view().dtype) {
      case DType::u8: return sort(std::uint8_t{});
      case DType::u16: return sort(std::uint16_t{});
      case DType::u32: return sort(std::uint32_t{});
      default: throw TypeMismatch(cat("tokens must be uint8, uint16 or uint32, got ", dtype_name(tokens.view().dtype)));
    }
  });
}

inline void bind_ngram(py::module_& parent) {
  py::module_ m = parent.def_submodule("ngram");
  bind_automaton(m);
  bind_index_build(m);
  bind_index(m);
  bind_fm_index(m);
}

}  // namespace gramcore::ngram
