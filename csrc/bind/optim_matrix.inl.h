// Bindings of steps that treat parts of one matrix differently; part of optim.inl.h.
#pragma once

#include "bind/tensor_arg.h"
#include "optim/engine.h"
#include "optim/factored.h"
#include "optim/matrix_steps.h"

namespace gramcore {
namespace optim_bind {

// Strictly increasing places in [0, size).
inline Span<const std::int64_t> places(const TensorArg& index, std::int64_t size) {
  const auto span = index.span<const std::int64_t>("index");
  for (std::size_t k = 0; k < span.size(); ++k) {
    GC_CHECK(span[k] >= 0 && span[k] < size && (k == 0 || span[k] > span[k - 1]),
             "index must be increasing and in [0, ", size, "), got ", span[k], " at ", k);
  }
  return span;
}

inline void check_matrix(const TensorView& v, const char* name) {
  GC_CHECK(v.rank == 2 && v.is_contiguous(), name, " must be a contiguous matrix, got ", shape_string(v));
}

inline void step_rows(const std::string& rule_name, const HyperMap& hyper, const TensorArg& param,
                      const TensorArg& grad, const std::vector<TensorArg>& slots, const TensorArg& index,
                      std::int64_t step, std::uint32_t id, bool stochastic, std::uint64_t seed) {
  const optim::RuleId rule = optim::parse_rule(rule_name);
  const TensorView &p = param.view(), &g = grad.view();
  check_matrix(p, "param");
  check_layout(g, p, "grad", 0);
  const auto rows = places(index, p.shape[0]);
  const std::int64_t cols = p.shape[1], count = static_cast<std::int64_t>(rows.size());
  GC_CHECK(slots.size() == static_cast<std::size_t>(optim::rule_slots(rule)), "slots must hold ",
           optim::rule_slots(rule), " tensors for this rule, got ", slots.size());
  GC_CHECK(step >= 1, "step must be >= 1, got ", step);
  const auto at = [cols](const TensorView& v, std::int64_t row) {
    return static_cast<char*>(v.data) + row * cols * (float_storage(v, "tensors") == Storage::f32 ? 4 : 2);
  };
  StepTensor first;
  optim::rule_coefs(rule, parse_hyper(hyper), step, first.c);
  first.numel = cols;
  first.step = static_cast<std::uint32_t>(step);
  std::vector<StepTensor> tensors(rows.size(), first);
  for (std::size_t k = 0; k < rows.size(); ++k) {
    StepTensor& t = tensors[k];
    t.param = at(p, rows[k]);
    t.grad = at(g, rows[k]);
    t.param_storage = float_storage(p, "param");
    t.grad_storage = float_storage(g, "grad");
    t.id = id + (static_cast<std::uint32_t>(rows[k]) << 16);  // rows draw bits of their own
    for (std::size_t s = 0; s < slots.size(); ++s) {
      const TensorView& v = slots[s].view();
      check_matrix(v, "slots");
      GC_CHECK(v.shape[0] == count && v.shape[1] == cols, "slots must have the shape of the selected rows (", count,
               ", ", cols, "), got ", shape_string(v));
      t.slot[s] = {at(v, static_cast<std::int64_t>(k)), float_storage(v, "slots"), nullptr};
    }
  }
  optim::StepOptions options;
  options.rule = rule;
  options.stochastic = stochastic;
  options.seed = seed;
  const pybind11::gil_scoped_release release;
  optim::run_step(tensors, options);
}

inline optim::MatrixStep matrix_step(const pybind11::object& param, const TensorArg& grad, const TensorArg& m,
                                     const TensorArg& v, std::int64_t width, Lists& lists) {
  optim::MatrixStep s;
  const TensorView& g = grad.view();
  check_matrix(g, "grad");
  s.rows = g.shape[0];
  s.cols = g.shape[1];
  s.width = width;
  s.grad = grad.span<const float>("grad").data();
  if (!param.is_none()) {
    lists.params.emplace_back(param);
    check_layout(lists.params[0].view(), g, "param", 0);
    s.param = lists.params[0].span<float>("param").data();
  }
  const auto first = m.span<float>("m"), second = v.span<float>("v");
  const std::int64_t wanted = s.rows * width;
  GC_CHECK(static_cast<std::int64_t>(first.size()) == wanted && static_cast<std::int64_t>(second.size()) == wanted,
           "m and v must hold ", s.rows, " rows of ", width, " numbers, got ", first.size(), " and ", second.size());
  s.m = first.data();
  s.v = second.data();
  return s;
}

inline void step_columns(const HyperMap& inside, const HyperMap& outside, const pybind11::object& param,
                         const TensorArg& grad, const TensorArg& m, const TensorArg& v, const TensorArg& index,
                         std::int64_t step) {
  Lists lists;
  const auto columns = places(index, grad.view().rank == 2 ? grad.view().shape[1] : 0);
  const auto s = matrix_step(param, grad, m, v, static_cast<std::int64_t>(columns.size()), lists);
  GC_CHECK(s.param != nullptr && step >= 1, "param must be a tensor and step >= 1, got step ", step);
  float c[2][optim::kMaxCoefs];
  optim::rule_coefs(optim::kAdam, parse_hyper(inside), step, c[0]);
  optim::rule_coefs(optim::kSign, parse_hyper(outside), step, c[1]);
  const pybind11::gil_scoped_release release;
  optim::step_columns(s, columns, c[0], c[1]);
}

inline std::int64_t haar_runs(const TensorArg& grad, int level) {
  GC_CHECK(level >= 1 && level <= 16, "level must be in [1, 16], got ", level);
  const TensorView& g = grad.view();
  check_matrix(g, "grad");
  return (g.shape[1] + (std::int64_t{1} << level) - 1) >> level;
}

inline double haar_moments(const HyperMap& hyper, const TensorArg& grad, const TensorArg& m, const TensorArg& v,
                           int level) {
  Lists lists;
  const auto s = matrix_step(pybind11::none(), grad, m, v, haar_runs(grad, level), lists);
  Hyper own = parse_hyper(hyper);  // N itself: Adam without bias correction and with lr -1, on zeros
  own.lr = -1.0;
  own.correct_bias = false;
  float c[optim::kMaxCoefs];
  optim::rule_coefs(optim::kAdam, own, 1, c);
  const pybind11::gil_scoped_release release;
  return optim::haar_moments(s, level, c);
}

inline void haar_step(const pybind11::object& param, const TensorArg& grad, const TensorArg& m, const TensorArg& v,
                      int level, double lr, double factor, double eps, double grad_scale,
                      const std::pair<double, double>& decay) {
  Lists lists;
  const auto s = matrix_step(param, grad, m, v, haar_runs(grad, level), lists);
  GC_CHECK(s.param != nullptr, "param must be a tensor, got None");
  optim::HaarLift lift;
  lift.grad_scale = static_cast<float>(grad_scale);
  lift.factor = static_cast<float>(factor);
  lift.eps = static_cast<float>(eps);
  lift.lr = static_cast<float>(lr);
  lift.decay[0] = static_cast<float>(decay.first);
  lift.decay[1] = static_cast<float>(decay.second);
  const pybind11::gil_scoped_release release;
  optim::haar_step(s, level, lift);
}

inline void step_blocks(const pybind11::object& param, const TensorArg& grad, const TensorArg& m, const TensorArg& v,
                        double lr, const std::pair<double, double>& weights, double scale2, double eps,
                        double grad_scale, const std::pair<double, double>& decay) {
  Lists lists;
  lists.params.emplace_back(param);
  const TensorView &p = lists.params[0].view(), &g = grad.view();
  check_layout(g, p, "grad", 0);
  check_layout(m.view(), p, "m", 0);
  GC_CHECK(p.is_contiguous(), "param must be contiguous, got ", shape_string(p));
  const auto second = v.span<float>("v");
  optim::MatrixStep s;
  s.rows = static_cast<std::int64_t>(second.size());
  GC_CHECK(s.rows > 0 && p.numel() % s.rows == 0, "v must hold one number per block of param, got ", s.rows, " for ",
           p.numel(), " elements");
  s.width = p.numel() / s.rows;
  s.param = lists.params[0].span<float>("param").data();
  s.grad = grad.span<const float>("grad").data();
  s.m = m.span<float>("m").data();
  s.v = second.data();
  optim::BlockAdam a;
  a.grad_scale = static_cast<float>(grad_scale);
  a.weight1 = static_cast<float>(weights.first);
  a.weight2 = static_cast<float>(weights.second);
  a.lr = static_cast<float>(lr);
  a.scale2 = static_cast<float>(scale2);
  a.eps = static_cast<float>(eps);
  a.decay[0] = static_cast<float>(decay.first);
  a.decay[1] = static_cast<float>(decay.second);
  const pybind11::gil_scoped_release release;
  optim::step_blocks(s, a);
}

inline double project_line(const TensorArg& x, const TensorArg& weights, const TensorArg& result, bool along_rows) {
  const TensorView& v = x.view();
  check_matrix(v, "x");
  optim::LineProjection p;
  p.x = v.data;
  p.x_storage = float_storage(v, "x");
  p.rows = v.shape[0];
  p.cols = v.shape[1];
  p.along_rows = along_rows;
  const auto w = weights.span<const float>("weights");
  const auto r = result.span<float>("result");
  GC_CHECK(static_cast<std::int64_t>(w.size()) == (along_rows ? p.cols : p.rows) &&
               static_cast<std::int64_t>(r.size()) == (along_rows ? p.rows : p.cols),
           "weights and result must hold a number per column and row of x ", shape_string(v), ", got ", w.size(),
           " and ", r.size());
  p.weights = w.data();
  const pybind11::gil_scoped_release release;
  return optim::project_line(p, r.data());
}

inline void bind_matrix_steps(pybind11::module_& m) {
  namespace py = pybind11;
  m.def("step_rows", &step_rows, py::arg("rule"), py::arg("hyper"), py::arg("param"), py::arg("grad"), py::arg("slots"),
        py::arg("index"), py::arg("step"), py::arg("id") = 0, py::arg("stochastic") = false, py::arg("seed") = 0,
        "One step of `rule` on the rows `index` of a matrix, in place; slots (len(index), columns).");
  m.def("step_columns", &step_columns, py::arg("inside"), py::arg("outside"), py::arg("param"), py::arg("grad"),
        py::arg("m"), py::arg("v"), py::arg("index"), py::arg("step"),
        "Adam on the columns `index` of a matrix, with m and v (rows, len(index)); sign descent on the others.");
  m.def(
      "step_blocks", &step_blocks, py::arg("param"), py::arg("grad"), py::arg("m"), py::arg("v"), py::arg("lr"),
      py::arg("weights"), py::arg("scale2"), py::arg("eps"), py::arg("grad_scale") = 1.0,
      py::arg("decay") = std::pair<double, double>{0.0, 0.0},
      "Adam with one second moment per equal run of elements: m += weights[0] (g - m), v += weights[1] (mean g^2 - v), "
      "p += decay[0] p; p -= lr m / (sqrt(v) scale2 + eps); p += decay[1] p.");
  m.def("project_line", &project_line, py::arg("x"), py::arg("weights"), py::arg("result"), py::arg("along_rows"),
        "result = x weights, or its transpose times weights; returns the sum of squares of x.");
  m.def("haar_moments", &haar_moments, py::arg("hyper"), py::arg("grad"), py::arg("m"), py::arg("v"), py::arg("level"),
        "Folds the coarse Haar coefficients of rows into m and v; the sum of squares of N = m / (sqrt(v) + eps).");
  m.def("haar_step", &haar_step, py::arg("param"), py::arg("grad"), py::arg("m"), py::arg("v"), py::arg("level"),
        py::arg("lr"), py::arg("factor"), py::arg("eps"), py::arg("grad_scale") = 1.0,
        py::arg("decay") = std::pair<double, double>{0.0, 0.0},
        "p += decay[0] p; p -= lr factor (g - up(r) + up(m)) / (sqrt(v) + eps), run by run; p += decay[1] p.");
}

}  // namespace optim_bind
}  // namespace gramcore
