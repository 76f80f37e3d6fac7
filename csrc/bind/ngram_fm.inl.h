// gramcore._core.ngram.FmIndex.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>
#include <vector>

#include "bind/ngram_index.inl.h"
#include "ngram/fm_index.h"

namespace gramcore::ngram {

inline FmIndex::Rows checked_rows(const FmIndex& fm, std::pair<std::uint64_t, std::uint64_t> rows) {
  GC_CHECK_AS(OutOfRange, rows.first <= rows.second && rows.second <= fm.size() + 1, "rows must be in [0, ",
              fm.size() + 1, "], got ", rows.first, " to ", rows.second);
  return {rows.first, rows.second};
}

inline void bind_fm_index(py::module_& m) {
  using RowPair = std::pair<std::uint64_t, std::uint64_t>;
  py::class_<FmIndex>(m, "FmIndex")
      .def_static("build",
                  [](TensorArg& tokens, int sample_every) {
                    const auto build = [&](auto t) {
                      const auto span = tokens.span<const decltype(t)>("tokens", 1);
                      const py::gil_scoped_release release;
                      return FmIndex::build(span, sample_every);
                    };
                    switch (tokens.view().dtype) {
                      case DType::u8: return build(std::uint8_t{});
                      case DType::u16: return build(std::uint16_t{});
                      case DType::u32: return build(std::uint32_t{});
                      default:
                        throw TypeMismatch(
                            cat("tokens must be uint8, uint16 or uint32, got ", dtype_name(tokens.view().dtype)));
                    }
                  })
      .def_static("load", &FmIndex::load, py::call_guard<py::gil_scoped_release>())
      .def("save", &FmIndex::save, py::call_guard<py::gil_scoped_release>())
      .def("size", &FmIndex::size)
      .def("bytes", &FmIndex::bytes)
      .def("find",
           [](const FmIndex& self, py::handle ids) {
             const QueryIds query(ids, "ids", 0, kMaxQueryId);
             const FmIndex::Rows rows = self.find(query.span());
             return RowPair(rows.begin, rows.end);
           })
      .def("extend",
           [](const FmIndex& self, RowPair rows, std::uint32_t token) {
             const FmIndex::Rows next = self.extend(checked_rows(self, rows), token);
             return RowPair(next.begin, next.end);
           })
      .def("successors",
           [](const FmIndex& self, RowPair rows) {
             std::vector<std::uint32_t> ids;
             std::vector<std::int64_t> counts;
             const FmIndex::Rows checked = checked_rows(self, rows);
             {
               const py::gil_scoped_release release;
               self.successors(checked, ids, counts);
             }
             return std::pair(own(std::move(ids)), own(std::move(counts)));
           })
      .def("locate",
           [](const FmIndex& self, py::handle ids) {
             const QueryIds query(ids, "ids", 0, kMaxQueryId);
             std::vector<std::int64_t> positions;
             {
               const py::gil_scoped_release release;
               if (!query.span().empty()) self.locate(self.find(query.span()), query.span().size(), positions);
             }
             return own(std::move(positions));
           })
      .def("extract",
           [](const FmIndex& self, std::uint64_t begin, std::uint64_t end) { return own(self.extract(begin, end)); });
}

}  // namespace gramcore::ngram
