// gramcore._core.ngram: suffix automata, index building and queries.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>

#include "bind/tensor_arg.h"
#include "ngram/corpus_writer.h"
#include "ngram/shard.h"
#include "ngram/suffix_array.h"
#include "ngram/suffix_automaton.h"

namespace gramcore::ngram {

namespace py = pybind11;

template <class T>
py::array_t<T> to_array(const std::vector<T>& values) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data());
}

// Token ids from an int or a list/tuple/range of ints or a one-dimensional integer array, as T, each in [low, high].
template <class T>
class Ids {
 public:
  Ids(py::handle object, const char* name, std::int64_t low, std::int64_t high) {
    if (PyList_Check(object.ptr()) || PyTuple_Check(object.ptr())) {
      const py::ssize_t n = PySequence_Fast_GET_SIZE(object.ptr());
      PyObject** items = PySequence_Fast_ITEMS(object.ptr());
      values_.reserve(static_cast<std::size_t>(n));
      for (py::ssize_t i = 0; i < n; ++i) push(integer(items[i], name), name, low, high);
      span_ = values_;
      return;
    }
    const TensorArg arg(object);
    const TensorView& view = arg.view();
    GC_CHECK_AS(TypeMismatch, view.rank == 1, name, " must be one-dimensional, got shape ", shape_string(view));
    check_cpu(view, name);
    values_.reserve(static_cast<std::size_t>(view.shape[0]));
    switch (view.dtype) {
      case DType::u8: fill<std::uint8_t>(view, name, low, high); break;
      case DType::u16: fill<std::uint16_t>(view, name, low, high); break;
      case DType::u32: fill<std::uint32_t>(view, name, low, high); break;
      case DType::u64: fill<std::uint64_t>(view, name, low, high); break;
      case DType::i8: fill<std::int8_t>(view, name, low, high); break;
      case DType::i16: fill<std::int16_t>(view, name, low, high); break;
      case DType::i32: fill<std::int32_t>(view, name, low, high); break;
      case DType::i64: fill<std::int64_t>(view, name, low, high); break;
      default: throw TypeMismatch(cat(name, " must be integers, got ", dtype_name(view.dtype)));
    }
    span_ = values_;
  }
  Span<const T> span() const { return span_; }

 private:
  static std::int64_t integer(PyObject* item, const char* name) {
    if (PyFloat_Check(item) || PyBool_Check(item)) {
      throw TypeMismatch(cat(name, " must be integers, got ", Py_TYPE(item)->tp_name));
    }
    const long long value = PyLong_AsLongLong(item);  // also takes NumPy integers, through __index__
    if (value == -1 && PyErr_Occurred()) throw py::error_already_set();
    return value;
  }
  void push(std::int64_t value, const char* name, std::int64_t low, std::int64_t high) {
    GC_CHECK_AS(OutOfRange, value >= low && value <= high, name, " must be in [", low, ", ", high, "], got ", value,
                " (position ", values_.size(), ")");
    values_.push_back(static_cast<T>(value));
  }
  template <class In>
  void fill(const TensorView& view, const char* name, std::int64_t low, std::int64_t high) {
    const In* from = view.as<In>();
    for (std::int64_t i = 0; i < view.shape[0]; ++i) {
      const In value = from[i * view.stride[0]];
      GC_CHECK_AS(OutOfRange, sizeof(In) < 8 || static_cast<std::uint64_t>(value) >> 63 == 0 || std::is_signed_v<In>,
                  name, " must be < 2^63, got ", value);
      push(static_cast<std::int64_t>(value), name, low, high);
    }
  }
  std::vector<T> values_;
  Span<const T> span_;
};

inline constexpr std::int64_t kMaxId = 0x7fffffff;
inline constexpr std::int64_t kMaxQueryId = 0xffffffff;

using TokenIds = Ids<std::int32_t>;
using QueryIds = Ids<std::uint32_t>;

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

inline py::array_t<std::int32_t> draft(const SuffixAutomaton& a, SuffixAutomaton::Id state, std::int64_t max_tokens,
                                       const std::string& by) {
  GC_CHECK(max_tokens >= 0, "max_tokens must be >= 0, got ", max_tokens);
  std::vector<std::int32_t> out;
  if (by == "frequent") {
    a.most_frequent(state, max_tokens, out);
  } else {
    GC_CHECK(by == "recent" || by == "first", "by must be one of recent, first, frequent, got '", by, "'");
    a.copy_from(by == "recent" ? a.recent_end(state) : a.first_end(state), max_tokens, out);
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
             return self.with([&](SuffixAutomaton& a) {
               if (a.match_len() == 0) return py::array_t<std::int32_t>(0);
               return draft(a, a.match_state(), max_tokens, by);
             });
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
      .def("propose", [current](LockedMatcher& self, std::int64_t max_tokens, const std::string& by) {
        return current(self, [&](SuffixAutomaton& a) {
          if (self.matcher.match_len() == 0) return py::array_t<std::int32_t>(0);
          return draft(a, self.matcher.state(), max_tokens, by);
        });
      });
}

inline void bind_ngram_index(py::module_& m) {
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
  m.def("build_table", &build_table, py::call_guard<py::gil_scoped_release>());
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
  py::class_<Shard>(m, "Shard")
      .def(py::init<const std::string&, int, int>())
      .def_property_readonly("token_bytes", &Shard::token_bytes)
      .def_property_readonly("num_tokens", &Shard::num_tokens)
      .def_property_readonly("num_documents", &Shard::num_documents)
      .def("find",
           [](const Shard& self, py::handle ids) {
             const QueryIds query(ids, "ids", 0, kMaxQueryId);
             const py::gil_scoped_release release;
             const RankRange r = self.find(query.span());
             return std::pair(r.begin, r.end);
           })
      .def("position", &Shard::position)
      .def("verify", &Shard::verify, py::call_guard<py::gil_scoped_release>())
      .def("load", &Shard::load, py::call_guard<py::gil_scoped_release>());
}

inline void bind_ngram(py::module_& parent) {
  py::module_ m = parent.def_submodule("ngram");
  bind_automaton(m);
  bind_ngram_index(m);
}

}  // namespace gramcore::ngram
