// gramcore._core.optim: the step engine over lists of tensors.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "bind/tensor_arg.h"
#include "optim/engine.h"
#include "optim/factored.h"
#include "optim/kernels/blocks.h"

namespace gramcore {
namespace optim_bind {

namespace py = pybind11;
using optim::Hyper;
using optim::StepTensor;
using optim::Storage;

using HyperMap = std::map<std::string, double>;

inline Hyper parse_hyper(const HyperMap& values) {
  Hyper h;
  for (const auto& [name, number] : values) {
    if (name == "lr") {
      h.lr = number;
    } else if (name == "beta1") {
      h.beta1 = number;
    } else if (name == "beta2") {
      h.beta2 = number;
    } else if (name == "eps") {
      h.eps = number;
    } else if (name == "weight_decay") {
      h.weight_decay = number;
    } else if (name == "extra0") {
      h.extra[0] = number;
    } else if (name == "extra1") {
      h.extra[1] = number;
    } else if (name == "grad_scale") {
      h.grad_scale = number;
    } else if (name == "update_scale") {
      h.update_scale = number;
    } else if (name == "maximize") {
      h.maximize = number != 0;
    } else if (name == "raw_eps") {
      h.raw_eps = number != 0;
    } else if (name == "decay_after") {
      h.decay_after = number != 0;
    } else if (name == "coupled_decay") {
      h.coupled_decay = number != 0;
    } else if (name == "correct_bias") {
      h.correct_bias = number != 0;
    } else {
      throw InvalidArgument(cat("hyper must hold known keys, got '", name, "'"));
    }
  }
  return h;
}

inline Storage float_storage(const TensorView& v, const char* name) {
  check_cpu(v, name);
  switch (v.dtype) {
    case DType::f32: return Storage::f32;
    case DType::bf16: return Storage::bf16;
    case DType::f16: return Storage::f16;
    default:
      throw TypeMismatch(cat(name, " must be float32, bfloat16 or float16, got ", dtype_name(v.dtype), " ",
                             shape_string(v), "; convert it or exclude the parameter"));
  }
}

// No gaps and no overlap: the elements fill one interval of memory, in any order of axes.
inline bool is_dense(const TensorView& v) {
  std::int64_t expected = 1;
  unsigned used = 0;
  for (int round = 0; round < v.rank; ++round) {
    int next = -1;
    for (int i = 0; i < v.rank; ++i) {
      if (!((used >> i) & 1u) && v.shape[i] != 1 && v.stride[i] == expected) next = i;
    }
    if (next < 0) break;
    used |= 1u << next;
    expected *= v.shape[next];
  }
  return expected == v.numel();
}

inline bool same_layout(const TensorView& a, const TensorView& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i) {
    if (a.shape[i] != b.shape[i] || (a.shape[i] > 1 && a.stride[i] != b.stride[i])) return false;
  }
  return true;
}

inline void check_layout(const TensorView& v, const TensorView& param, const char* name, std::size_t index) {
  GC_CHECK(same_layout(v, param), name, " must have the shape and strides of its parameter ", shape_string(param),
           ", got ", shape_string(v), " (tensor ", index, ")");
}

// Directions that stand for gradients: a sum of draws of one seed.
struct Noise {
  std::uint64_t seed;
  std::vector<optim::Draw> draws;
  float keep;
};

inline Noise make_noise(std::uint64_t seed, const std::vector<std::pair<std::uint32_t, double>>& draws, double keep) {
  GC_CHECK(keep > 0.0 && keep <= 1.0, "keep must be in (0, 1], got ", keep);
  Noise noise{seed, {}, static_cast<float>(keep)};
  for (const auto& [id, amount] : draws) noise.draws.push_back({id, static_cast<float>(amount)});
  return noise;
}

// Borrowed views of everything one call touches; keeps the Python buffers alive.
struct Lists {
  std::vector<TensorArg> params, grads, lows, factors;
  std::vector<std::vector<TensorArg>> slots, scales;
  std::vector<StepTensor> tensors;
};

inline void fill_params(Lists& lists, const py::object& params, const py::object& grads) {
  lists.params = tensor_list(params, "params");
  const std::size_t n = lists.params.size();
  const bool drawn = grads.is_none();
  if (!drawn) {
    lists.grads = tensor_list(grads, "grads");
    GC_CHECK(lists.grads.size() == n, "grads must hold one tensor per parameter, got ", lists.grads.size(), " for ", n);
  }
  lists.tensors.resize(n);
  for (std::size_t i = 0; i < n; ++i) {
    const TensorView& p = lists.params[i].view();
    GC_CHECK(p.numel() == 0 || is_dense(p), "params must be dense, got strides with gaps or overlap ", shape_string(p),
             " (tensor ", i, "); step a contiguous copy");
    StepTensor& t = lists.tensors[i];
    t.param = p.data;
    t.param_storage = float_storage(p, "params");
    t.numel = p.numel();
    t.grad_storage = Storage::drawn;
    if (drawn) continue;
    const TensorView& g = lists.grads[i].view();
    t.grad = g.data;
    t.grad_storage = float_storage(g, "grads");
    check_layout(g, p, "grads", i);
  }
}

// A moment: a float tensor laid out as the parameter, or codes (one or half a byte per element) with scales.  `storage`
// says which (int8, int4, or int4-rank1 with one scale per row and column of a matrix), and there may then be more
// codes and scales than needed; if it is empty, their number does.
inline optim::Slot parse_slot(const TensorView& s, const TensorArg* scales, const TensorView& p,
                              const std::string& storage, bool first, std::size_t index) {
  if (!scales) {
    check_layout(s, p, "slots", index);
    return {s.data, float_storage(s, "slots"), nullptr};
  }
  check_cpu(s, "slots");
  const std::int64_t n = p.numel(), bytes8 = n, bytes4 = (n + 1) / 2;
  const bool told = !storage.empty(), wide = told ? storage == "int8" : s.numel() == bytes8;
  GC_CHECK_AS(TypeMismatch,
              s.dtype == DType::u8 && is_dense(s) &&
                  (told ? s.numel() >= (wide ? bytes8 : bytes4) : s.numel() == bytes8 || s.numel() == bytes4),
              "quantised slots must be dense uint8 of ", bytes8, " or ", bytes4, " bytes, got ", dtype_name(s.dtype),
              " ", shape_string(s), " (tensor ", index, ")");
  const bool rank1 = storage == "int4-rank1" && !first && p.rank == 2 && n > 0;
  const std::int64_t block = wide ? optim::kBlock8 : optim::kBlock4;
  const std::int64_t wanted = rank1 ? p.shape[0] + p.shape[1] : (n + block - 1) / block;
  auto span = scales->span<float>("scales");
  const auto given = static_cast<std::int64_t>(span.size());
  GC_CHECK(told ? given >= wanted : given == wanted, "scales must hold ", wanted, " values, got ", given, " for ", n,
           " elements (tensor ", index, ")");
  if (rank1) return {s.data, Storage::rank1, span.data(), p.is_contiguous() ? p.shape[1] : p.shape[0]};
  return {s.data, wide ? Storage::q8 : Storage::q4, span.data()};
}

inline void fill_slots(Lists& lists, const std::vector<py::object>& slots, const std::vector<py::object>& scales,
                       int wanted, const std::string& storage) {
  const std::size_t n = lists.tensors.size();
  GC_CHECK(slots.size() == static_cast<std::size_t>(wanted), "slots must hold ", wanted, " lists for this rule, got ",
           slots.size());
  GC_CHECK(scales.empty() || scales.size() == slots.size(), "scales must hold one list per slot, got ", scales.size());
  for (std::size_t k = 0; k < slots.size(); ++k) {
    lists.slots.push_back(tensor_list(slots[k], "slots"));
    if (!scales.empty()) lists.scales.push_back(tensor_list(scales[k], "scales"));
    GC_CHECK(lists.slots[k].size() == n && (scales.empty() || lists.scales[k].size() == n),
             "slots and scales must hold one tensor per parameter, got ", lists.slots[k].size(), " for ", n);
    for (std::size_t i = 0; i < n; ++i) {
      const TensorArg* scale = scales.empty() ? nullptr : &lists.scales[k][i];
      const bool first = optim::slot_is_signed(static_cast<int>(k));
      lists.tensors[i].slot[k] = parse_slot(lists.slots[k][i].view(), scale, lists.params[i].view(), storage, first, i);
    }
  }
}

inline void fill_lows(Lists& lists, const py::object& lows) {
  if (lows.is_none()) return;
  lists.lows = tensor_list(lows, "remainders");
  GC_CHECK(lists.lows.size() == lists.tensors.size(), "remainders must hold one tensor per parameter, got ",
           lists.lows.size());
  for (std::size_t i = 0; i < lists.lows.size(); ++i) {
    const TensorView& low = lists.lows[i].view();
    check_layout(low, lists.params[i].view(), "remainders", i);
    GC_CHECK_AS(TypeMismatch, low.dtype == DType::bf16 && lists.tensors[i].param_storage == Storage::bf16,
                "remainders must be bfloat16 beside bfloat16 parameters, got ", dtype_name(low.dtype));
    lists.tensors[i].param_low = low.data;
  }
}

// Numbers that multiply the rows or columns of the gradient: one tensor of a matrix, or None.
inline const float* factor_of(Lists& lists, const py::object& values, std::int64_t wanted, const char* name) {
  if (values.is_none()) return nullptr;
  lists.factors.emplace_back(values);
  const auto span = lists.factors.back().span<const float>(name);
  GC_CHECK(static_cast<std::int64_t>(span.size()) == wanted, name, " must hold ", wanted, " numbers, got ",
           span.size());
  return span.data();
}

inline void fill_factors(Lists& lists, const py::object& row, const py::object& column) {
  if (row.is_none() && column.is_none()) return;
  GC_CHECK(lists.tensors.size() == 1, "row and column must come with one parameter, got ", lists.tensors.size());
  const TensorView& p = lists.params[0].view();
  GC_CHECK(p.rank == 2 && p.is_contiguous(), "row and column must come with a contiguous matrix, got ",
           shape_string(p));
  StepTensor& t = lists.tensors[0];
  t.cols = p.shape[1];
  t.row = factor_of(lists, row, p.shape[0], "row");
  t.column = factor_of(lists, column, p.shape[1], "column");
}

inline void step(const std::string& rule_name, const HyperMap& hyper_values, const py::object& params,
                 const py::object& grads, const std::vector<py::object>& slots, const std::vector<std::int64_t>& steps,
                 const std::vector<std::uint32_t>& ids, const std::vector<py::object>& scales,
                 const py::object& remainders, const std::vector<double>& lr_scales, bool stochastic,
                 std::uint64_t seed, bool zero_grad, const std::optional<Noise>& noise, const py::object& row,
                 const py::object& column, const std::string& storage) {
  GC_CHECK(grads.is_none() == (noise.has_value()), "noise must be given when grads is None, and only then");
  const optim::RuleId rule = optim::parse_rule(rule_name);
  const Hyper hyper = parse_hyper(hyper_values);
  Lists lists;
  fill_params(lists, params, grads);
  fill_slots(lists, slots, scales, optim::rule_slots(rule), storage);
  fill_lows(lists, remainders);
  fill_factors(lists, row, column);
  GC_CHECK(steps.size() == lists.tensors.size() && ids.size() == steps.size(),
           "steps and ids must hold one number per parameter, got ", steps.size(), " and ", ids.size());
  GC_CHECK(lr_scales.empty() || lr_scales.size() == steps.size(), "lr_scales must hold one number per parameter, got ",
           lr_scales.size());
  for (std::size_t i = 0; i < steps.size(); ++i) {
    GC_CHECK(steps[i] >= 1, "steps must be >= 1, got ", steps[i]);
    lists.tensors[i].id = ids[i];
    lists.tensors[i].step = static_cast<std::uint32_t>(steps[i]);
    Hyper own = hyper;
    if (!lr_scales.empty()) own.lr *= lr_scales[i];
    optim::rule_coefs(rule, own, steps[i], lists.tensors[i].c);
  }
  optim::StepOptions options{rule, stochastic, zero_grad, seed, {}, 0, 1.0f};
  if (noise) {
    options.draws = {noise->draws.data(), noise->draws.size()};
    options.draw_seed = noise->seed;
    options.keep = noise->keep;
  }
  const py::gil_scoped_release release;
  optim::run_step(lists.tensors, options);
}

// The matrices of a pass and the numbers that multiply their rows and columns.
inline optim::FactoredPass pass_over(const TensorArg& x, const py::object& row, const py::object& column, double scale,
                                     Lists& lists) {
  const TensorView& v = x.view();
  GC_CHECK(v.rank >= 2 && v.is_contiguous(), "x must be contiguous with two axes or more, got ", shape_string(v));
  optim::FactoredPass pass;
  pass.x = v.data;
  pass.x_storage = float_storage(v, "x");
  pass.rows = v.shape[v.rank - 2];
  pass.cols = v.shape[v.rank - 1];
  for (int i = 0; i + 2 < v.rank; ++i) pass.count *= v.shape[i];
  pass.scale = static_cast<float>(scale);
  lists.factors.reserve(2);
  pass.row = factor_of(lists, row, pass.count * pass.rows, "row");
  pass.column = factor_of(lists, column, pass.count * pass.cols, "column");
  return pass;
}

inline double scaled_squares(const TensorArg& x, const py::object& row, const py::object& column, double scale) {
  Lists lists;
  const optim::FactoredPass pass = pass_over(x, row, column, scale, lists);
  const py::gil_scoped_release release;
  return optim::scaled_squares(pass);
}

inline void factored_pass(const TensorArg& x, const TensorArg& row_means, const TensorArg& column_means,
                          const py::object& moment, const py::object& row, const py::object& column, double scale,
                          double weight, double eps, bool residual) {
  Lists lists;
  optim::FactoredPass pass = pass_over(x, row, column, scale, lists);
  pass.weight = static_cast<float>(weight);
  pass.eps = static_cast<float>(eps);
  pass.residual = residual;
  if (!moment.is_none()) {
    lists.params.emplace_back(moment);
    const auto span = lists.params.back().span<float>("moment");
    GC_CHECK(static_cast<std::int64_t>(span.size()) == x.view().numel(), "moment must hold ", x.view().numel(),
             " numbers, got ", span.size());
    pass.m = span.data();
  }
  const auto rows = row_means.span<float>("row_means"), columns = column_means.span<float>("column_means");
  GC_CHECK(static_cast<std::int64_t>(rows.size()) == pass.count * pass.rows &&
               static_cast<std::int64_t>(columns.size()) == pass.count * pass.cols,
           "row_means and column_means must hold ", pass.count * pass.rows, " and ", pass.count * pass.cols,
           " numbers, got ", rows.size(), " and ", columns.size());
  const py::gil_scoped_release release;
  optim::factored_pass(pass, rows, columns);
}

inline double sum_squares(const py::object& tensors) {
  Lists lists;
  fill_params(lists, tensors, tensors);
  const py::gil_scoped_release release;
  return optim::sum_squares(lists.tensors);
}

}  // namespace optim_bind
}  // namespace gramcore

#include "bind/optim_matrix.inl.h"
#include "bind/optim_product.inl.h"

namespace gramcore {

inline void bind_optim(pybind11::module_& parent) {
  namespace py = pybind11;
  py::module_ m = parent.def_submodule("optim", "Step engine of the optimizers.");
  py::class_<optim_bind::Noise>(m, "Noise",
                                "Directions of a zeroth-order step: the sum over draws (id, amount) of amount times "
                                "standard normal values that are a function of (seed, id, parameter, element).")
      .def(py::init(&optim_bind::make_noise), py::arg("seed"), py::arg("draws"), py::arg("keep") = 1.0);
  m.def("step", &optim_bind::step, py::arg("rule"), py::arg("hyper"), py::arg("params"), py::arg("grads"),
        py::arg("slots"), py::arg("steps"), py::arg("ids"), py::arg("scales") = std::vector<py::object>{},
        py::arg("remainders") = py::none(), py::arg("lr_scales") = std::vector<double>{}, py::arg("stochastic") = false,
        py::arg("seed") = 0, py::arg("zero_grad") = false, py::arg("noise") = py::none(), py::arg("row") = py::none(),
        py::arg("column") = py::none(), py::arg("storage") = "",
        "One step of `rule` over lists of CPU tensors, in place.");
  m.def("factored_pass", &optim_bind::factored_pass, py::arg("x"), py::arg("row_means"), py::arg("column_means"),
        py::arg("moment") = py::none(), py::arg("row") = py::none(), py::arg("column") = py::none(),
        py::arg("scale") = 1.0, py::arg("weight") = 0.0, py::arg("eps") = 0.0, py::arg("residual") = false,
        "With u = scale x row column: moment += weight (u - moment), then row and column means of u^2 + eps, or of "
        "(u - moment)^2 + eps with `residual`.");
  m.def("scaled_squares", &optim_bind::scaled_squares, py::arg("x"), py::arg("row") = py::none(),
        py::arg("column") = py::none(), py::arg("scale") = 1.0, "Sum of (scale x row column)^2.");
  optim_bind::bind_matrix_steps(m);
  optim_bind::bind_products(m);
  m.def("sum_squares", &optim_bind::sum_squares, py::arg("tensors"),
        "Sum of squares of a list of CPU tensors; infinite or NaN when an element is.");
}

}  // namespace gramcore
