// gramcore._core.spec: draft trees, masks, verification rows, n-gram drafts.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bind/tensor_arg.h"
#include "core/rng.h"
#include "spec/copy_cursor.h"
#include "spec/ngram_draft.h"
#include "spec/sample.h"
#include "spec/tree.h"

namespace gramcore {
namespace spec_bind {

namespace py = pybind11;

inline py::array_t<std::int32_t> to_array(const std::vector<std::int32_t>& values) {
  return py::array_t<std::int32_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

inline spec::Warp warp_of(double temperature, std::int64_t top_k, double top_p, double min_p) {
  return spec::Warp{temperature, top_k, top_p, min_p};
}

inline void bind_tree(py::module_& m) {
  m.def(
      "check_tree",
      [](TensorArg& tokens, TensorArg& parents, std::int64_t vocab_size) {
        spec::check_tree(tokens.span<const std::int32_t>("tokens", 1), parents.span<const std::int32_t>("parents", 1),
                         vocab_size);
      },
      py::arg("tokens"), py::arg("parents"), py::arg("vocab_size"));
  m.def(
      "prune_tree",
      [](TensorArg& tokens, TensorArg& parents, TensorArg& keep, std::int64_t budget) {
        std::vector<std::int32_t> new_parents;
        const auto kept = spec::prune_tree(tokens.span<const std::int32_t>("tokens", 1),
                                           parents.span<const std::int32_t>("parents", 1),
                                           keep.span<const std::uint8_t>("keep", 1), budget, &new_parents);
        return py::make_tuple(to_array(kept), to_array(new_parents));
      },
      py::arg("tokens"), py::arg("parents"), py::arg("keep"), py::arg("budget"),
      "(kept node indices, their parents): merges duplicate siblings, drops what keep refuses and what exceeds "
      "budget.");
  m.def(
      "tree_depths",
      [](TensorArg& parents) {
        return to_array(spec::build_layout(parents.span<const std::int32_t>("parents", 1)).depth);
      },
      py::arg("parents"), "Depth of the root (0) and of every node, (n + 1,).");
  m.def(
      "tree_ancestors",
      [](TensorArg& parents) {
        const spec::TreeLayout layout = spec::build_layout(parents.span<const std::int32_t>("parents", 1));
        py::array_t<std::uint64_t> bits({layout.rows, layout.words});
        std::copy(layout.seen.begin(), layout.seen.end(), bits.mutable_data());
        return bits;
      },
      py::arg("parents"), "Bit c of row r: r sees c (row 0 = root), (n + 1, ceil((n + 1) / 64)) uint64.");
  m.def(
      "fill_tree_mask",
      [](TensorArg& parents, std::int64_t first, std::int64_t base, TensorArg& mask) {
        const TensorView& view = mask.view();
        check_cpu(view, "mask");
        GC_CHECK(mask.writable(), "mask must be writable");
        const spec::TreeLayout layout = spec::build_layout(parents.span<const std::int32_t>("parents", 1));
        const py::gil_scoped_release unlocked;
        spec::fill_mask(layout, first, base, view);
      },
      py::arg("parents"), py::arg("first"), py::arg("base"), py::arg("mask"));
  m.def(
      "find_child",
      [](TensorArg& tokens, TensorArg& parents, std::int64_t row, std::int32_t token) {
        return spec::find_child(tokens.span<const std::int32_t>("tokens", 1),
                                parents.span<const std::int32_t>("parents", 1), row, token);
      },
      py::arg("tokens"), py::arg("parents"), py::arg("row"), py::arg("token"), "Node index of that child, or -1.");
  m.def(
      "check_path",
      [](TensorArg& parents, TensorArg& path) {
        spec::check_path(parents.span<const std::int32_t>("parents", 1), path.span<const std::int32_t>("path", 1));
      },
      py::arg("parents"), py::arg("path"));
}

inline void bind_sampling(py::module_& m) {
  m.def(
      "argmax_row", [](TensorArg& logits) { return spec::argmax_row(logits.view()); }, py::arg("logits"),
      "Index of the largest logit, the lowest among equals.");
  m.def(
      "sample_row",
      [](TensorArg& logits, double temperature, std::int64_t top_k, double top_p, double min_p, double u) {
        return spec::sample_row(logits.view(), warp_of(temperature, top_k, top_p, min_p), u);
      },
      py::arg("logits"), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"), py::arg("min_p"), py::arg("u"),
      "The token at quantile u of the warped softmax.");
  m.def(
      "probs_row",
      [](TensorArg& logits, double temperature, std::int64_t top_k, double top_p, double min_p) {
        check_cpu(logits.view(), "logits");
        GC_CHECK(logits.view().rank == 1, "logits must be one row, got shape ", shape_string(logits.view()));
        py::array_t<double> probs(logits.view().shape[0]);
        spec::probs_row(logits.view(), warp_of(temperature, top_k, top_p, min_p),
                        {probs.mutable_data(), static_cast<std::size_t>(probs.size())});
        return probs;
      },
      py::arg("logits"), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"), py::arg("min_p"),
      "The warped softmax in float64.");
  m.def(
      "prob_row",
      [](TensorArg& logits, double temperature, std::int64_t top_k, double top_p, double min_p, std::int32_t token) {
        return spec::prob_row(logits.view(), warp_of(temperature, top_k, top_p, min_p), token);
      },
      py::arg("logits"), py::arg("temperature"), py::arg("top_k"), py::arg("top_p"), py::arg("min_p"), py::arg("token"),
      "The probability of one token under the warped softmax.");
  m.def(
      "sample_weights",
      [](TensorArg& weights, double u) { return spec::sample_weights(weights.span<const double>("weights", 1), u); },
      py::arg("weights"), py::arg("u"), "The index at quantile u of non-negative weights.");
  m.def(
      "uniform",
      [](std::uint64_t seed, std::uint64_t position, std::uint64_t stream) {
        const Philox4 block = philox4x32(seed, position, stream);
        return uniform_f64(block.v[0], block.v[1]);
      },
      py::arg("seed"), py::arg("position"), py::arg("stream"), "A number in [0, 1) named by its three arguments.");
}

inline void bind_drafts(py::module_& m) {
  py::class_<spec::NgramTable>(m, "NgramTable")
      .def(py::init([](int min_order, int max_order, bool most_recent) {
             return std::make_unique<spec::NgramTable>(
                 min_order, max_order,
                 most_recent ? spec::NgramTable::Pick::most_recent : spec::NgramTable::Pick::most_frequent);
           }),
           py::arg("min_order"), py::arg("max_order"), py::arg("most_recent"))
      .def(
          "extend", [](spec::NgramTable& t, TensorArg& ids) { t.extend(ids.span<const std::int32_t>("ids", 1)); },
          py::arg("ids"))
      .def("rollback", &spec::NgramTable::rollback, py::arg("n"))
      .def(
          "propose", [](const spec::NgramTable& t, std::int64_t n) { return to_array(t.propose(n)); },
          py::arg("max_tokens"))
      .def(
          "propose_tree",
          [](const spec::NgramTable& t, std::int64_t n, TensorArg& chain, double share) {
            std::vector<std::int32_t> tokens, parents;
            t.propose_tree(n, chain.span<const std::int32_t>("chain", 1), share, &tokens, &parents);
            return py::make_tuple(to_array(tokens), to_array(parents));
          },
          py::arg("max_nodes"), py::arg("chain"), py::arg("share"))
      .def_property_readonly("match_order", &spec::NgramTable::match_order)
      .def_property_readonly("num_tokens", &spec::NgramTable::num_tokens);
  py::class_<spec::CopyCursor>(m, "CopyCursor")
      .def(py::init<>())
      .def(
          "extend", [](spec::CopyCursor& c, TensorArg& ids) { c.extend(ids.span<const std::int32_t>("ids", 1)); },
          py::arg("ids"))
      .def("rollback", &spec::CopyCursor::rollback, py::arg("n"))
      .def("source",
           [](const spec::CopyCursor& c) {
             const auto s = c.source();
             return py::make_tuple(s.place, s.agreement);
           })
      .def(
          "propose", [](const spec::CopyCursor& c, std::int64_t n) { return to_array(c.propose(n)); },
          py::arg("max_tokens"))
      .def_property_readonly("num_tokens", &spec::CopyCursor::num_tokens);
}

}  // namespace spec_bind

inline void bind_spec(pybind11::module_& m) {
  pybind11::module_ sub = m.def_submodule("spec", "Draft trees, masks, verification rows, n-gram drafts.");
  spec_bind::bind_tree(sub);
  spec_bind::bind_sampling(sub);
  spec_bind::bind_drafts(sub);
}

}  // namespace gramcore
