// Bindings of steps that treat parts of one matrix differently; part of optim.inl.h.
#pragma once

#include <algorithm>

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

// What the steps of one matrix share: the tensors and how they are stored.
struct MatrixArgs {
  std::vector<TensorArg> held;
  optim::MatrixStep step;
};
// (seed, id, step): names the random bits of stochastic rounding.
using NoiseName = std::optional<std::tuple<std::uint64_t, std::uint32_t, std::uint32_t>>;

inline void take_grad(MatrixArgs& a, const TensorArg& grad) {
  const TensorView& g = grad.view();
  check_matrix(g, "grad");
  a.step.rows = g.shape[0];
  a.step.cols = g.shape[1];
  a.step.grad = g.data;
  a.step.grad_storage = float_storage(g, "grad");
}

inline void take_noise(MatrixArgs& a, const NoiseName& noise) {
  if (!noise) return;
  a.step.stochastic = true;
  a.step.noise = {std::get<0>(*noise), std::get<2>(*noise), std::get<1>(*noise), 0};
}

inline void take_param(MatrixArgs& a, const TensorArg& param, const TensorArg& grad, const py::object& remainder,
                       const NoiseName& noise) {
  check_layout(grad.view(), param.view(), "grad", 0);
  a.step.param = param.view().data;
  a.step.param_storage = float_storage(param.view(), "param");
  take_noise(a, noise);
  if (remainder.is_none()) return;
  a.held.emplace_back(remainder);
  const TensorView& low = a.held.back().view();
  check_layout(low, param.view(), "remainder", 0);
  GC_CHECK_AS(TypeMismatch, low.dtype == DType::bf16 && a.step.param_storage == Storage::bf16,
              "remainder must be bfloat16 beside a bfloat16 parameter, got ", dtype_name(low.dtype));
  a.step.param_low = low.data;
}

inline void step_rows(const std::string& rule_name, const HyperMap& hyper, const TensorArg& param,
                      const TensorArg& grad, const std::vector<TensorArg>& slots, const TensorArg& index,
                      std::int64_t step, std::uint32_t id, bool stochastic, std::uint64_t seed,
                      const py::object& remainder) {
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
  MatrixArgs a;
  take_param(a, param, grad, remainder, std::nullopt);
  StepTensor first;
  optim::rule_coefs(rule, parse_hyper(hyper), step, first.c);
  first.numel = cols;
  first.step = static_cast<std::uint32_t>(step);
  std::vector<StepTensor> tensors(rows.size(), first);
  for (std::size_t k = 0; k < rows.size(); ++k) {
    StepTensor& t = tensors[k];
    t.param = at(p, rows[k]);
    if (a.step.param_low) t.param_low = static_cast<std::uint16_t*>(a.step.param_low) + rows[k] * cols;
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

// Two tensors (rows, width), or their codes and as many tensors of scales.
inline void take_moments(MatrixArgs& a, const std::vector<TensorArg>& moments, const std::vector<TensorArg>& scales,
                         std::int64_t width, const std::string& storage) {
  GC_CHECK(moments.size() == 2 && (scales.empty() || scales.size() == 2), "moments must be two tensors, got ",
           moments.size(), " and ", scales.size(), " of scales");
  a.step.width = width;
  for (int k = 0; k < 2; ++k) {
    const auto at = static_cast<std::size_t>(k);
    TensorView like = moments[at].view();
    like.rank = 2;
    like.shape[0] = a.step.rows;
    like.shape[1] = width;
    like.stride[0] = std::max<std::int64_t>(1, width);
    like.stride[1] = 1;
    a.step.moment[k] = parse_slot(moments[at].view(), scales.empty() ? nullptr : &scales[at], like, storage, k == 0, 0);
  }
  GC_CHECK(a.step.moment[0].storage == a.step.moment[1].storage && a.step.moment[1].storage != Storage::rank1,
           "moments must both be stored alike, by blocks if in codes");
}

inline void step_columns(const HyperMap& inside, const HyperMap& outside, const TensorArg& param, const TensorArg& grad,
                         const std::vector<TensorArg>& moments, const TensorArg& chosen, std::int64_t width,
                         std::int64_t step, const py::object& scales, const std::string& storage,
                         const py::object& remainder, const NoiseName& noise) {
  MatrixArgs a;
  take_grad(a, grad);
  take_param(a, param, grad, remainder, noise);
  GC_CHECK(step >= 1, "step must be >= 1, got ", step);
  const bool by_entry = chosen.view().dtype == DType::u8;
  Span<const std::int64_t> columns;
  Span<const std::uint8_t> mask;
  if (!by_entry) {
    columns = places(chosen, a.step.cols);
    GC_CHECK(static_cast<std::int64_t>(columns.size()) == width, "chosen must hold ", width, " columns, got ",
             columns.size());
  }
  const std::vector<TensorArg> scale_list = tensor_list(scales, "scales");
  take_moments(a, moments, scale_list, width, storage);
  if (by_entry) {
    mask = chosen.span<const std::uint8_t>("chosen");
    GC_CHECK(optim::entries_fit(a.step, mask), "chosen must have ", width, " bits in each of ", a.step.rows,
             " rows of ", (a.step.cols + 7) / 8, " bytes, got ", shape_string(chosen.view()), " with others");
  }
  float c[2][optim::kMaxCoefs];
  optim::rule_coefs(optim::kAdam, parse_hyper(inside), step, c[0]);
  optim::rule_coefs(optim::kSign, parse_hyper(outside), step, c[1]);
  const pybind11::gil_scoped_release release;
  if (by_entry) {
    optim::step_entries(a.step, mask.data(), c[0], c[1]);
  } else {
    optim::step_columns(a.step, columns, c[0], c[1]);
  }
}

inline std::int64_t haar_runs(const TensorArg& grad, int level) {
  GC_CHECK(level >= 1 && level <= 16, "level must be in [1, 16], got ", level);
  const TensorView& g = grad.view();
  check_matrix(g, "grad");
  return (g.shape[1] + (std::int64_t{1} << level) - 1) >> level;
}

// Coefficients of N itself: Adam without bias correction and with lr -1, on zeros.
inline void rule_step_coefs(const HyperMap& hyper, float* c) {
  Hyper own = parse_hyper(hyper);
  own.lr = -1.0;
  own.correct_bias = false;
  optim::rule_coefs(optim::kAdam, own, 1, c);
}

inline void rule_norms(const HyperMap& hyper, const TensorArg& r, const std::vector<TensorArg>& moments,
                       const TensorArg& inputs, const TensorArg& steps, const py::object& scales,
                       const std::string& storage, const NoiseName& noise) {
  MatrixArgs a;
  take_grad(a, r);
  take_moments(a, moments, tensor_list(scales, "scales"), a.step.cols, storage);
  take_noise(a, noise);
  const auto before = inputs.span<float>("inputs"), after = steps.span<float>("steps");
  GC_CHECK(static_cast<std::int64_t>(before.size()) == a.step.rows && before.size() == after.size(),
           "inputs and steps must hold ", a.step.rows, " numbers, got ", before.size(), " and ", after.size());
  float c[optim::kMaxCoefs];
  rule_step_coefs(hyper, c);
  const pybind11::gil_scoped_release release;
  optim::rule_norms(a.step, c, before.data(), after.data());
}

inline double haar_moments(const HyperMap& hyper, const TensorArg& grad, const std::vector<TensorArg>& moments,
                           int level, const NoiseName& noise) {
  MatrixArgs a;
  take_grad(a, grad);
  take_moments(a, moments, {}, haar_runs(grad, level), "");
  take_noise(a, noise);
  float c[optim::kMaxCoefs];
  rule_step_coefs(hyper, c);
  const pybind11::gil_scoped_release release;
  return optim::haar_moments(a.step, level, c);
}

inline void haar_step(const TensorArg& param, const TensorArg& grad, const std::vector<TensorArg>& moments, int level,
                      double lr, double factor, double eps, double grad_scale, const std::pair<double, double>& decay,
                      const py::object& remainder, const NoiseName& noise) {
  MatrixArgs a;
  take_grad(a, grad);
  take_param(a, param, grad, remainder, noise);
  take_moments(a, moments, {}, haar_runs(grad, level), "");
  optim::HaarLift lift;
  lift.grad_scale = static_cast<float>(grad_scale);
  lift.factor = static_cast<float>(factor);
  lift.eps = static_cast<float>(eps);
  lift.lr = static_cast<float>(lr);
  lift.decay[0] = static_cast<float>(decay.first);
  lift.decay[1] = static_cast<float>(decay.second);
  const pybind11::gil_scoped_release release;
  optim::haar_step(a.step, level, lift);
}

inline void step_blocks(const TensorArg& param, const TensorArg& grad, const TensorArg& m, const TensorArg& v,
                        double lr, const std::pair<double, double>& weights, double scale2, double eps,
                        double grad_scale, const std::pair<double, double>& decay, const py::object& remainder,
                        const NoiseName& noise) {
  const TensorView& p = param.view();
  check_layout(m.view(), p, "m", 0);
  GC_CHECK(p.is_contiguous(), "param must be contiguous, got ", shape_string(p));
  const auto second = v.span<float>("v");
  MatrixArgs a;
  take_param(a, param, grad, remainder, noise);
  a.step.grad = grad.view().data;
  a.step.grad_storage = float_storage(grad.view(), "grad");
  a.step.rows = static_cast<std::int64_t>(second.size());
  GC_CHECK(a.step.rows > 0 && p.numel() % a.step.rows == 0, "v must hold one number per block of param, got ",
           a.step.rows, " for ", p.numel(), " elements");
  a.step.cols = p.numel() / a.step.rows;
  a.step.moment[0] = {m.span<float>("m").data(), Storage::f32, nullptr};
  optim::BlockAdam b;
  b.grad_scale = static_cast<float>(grad_scale);
  b.weight1 = static_cast<float>(weights.first);
  b.weight2 = static_cast<float>(weights.second);
  b.lr = static_cast<float>(lr);
  b.scale2 = static_cast<float>(scale2);
  b.eps = static_cast<float>(eps);
  b.decay[0] = static_cast<float>(decay.first);
  b.decay[1] = static_cast<float>(decay.second);
  const pybind11::gil_scoped_release release;
  optim::step_blocks(a.step, second.data(), b);
}

// R, C and, with a momentum, m and the running means of its instability: (…, M), (…, N), (…, M, N), (…, M), (…, N).
inline void factored_step(const std::map<std::string, double>& numbers, const TensorArg& param, const TensorArg& grad,
                          const std::vector<TensorArg>& state, std::int64_t step, std::uint32_t id,
                          const py::object& remainder, bool stochastic, std::uint64_t seed) {
  const TensorView& p = param.view();
  GC_CHECK(p.rank >= 2 && p.is_contiguous(), "param must be contiguous with two axes or more, got ", shape_string(p));
  GC_CHECK(state.size() == 2 || state.size() == 5, "state must hold 2 or 5 tensors, got ", state.size());
  GC_CHECK(step >= 1, "step must be >= 1, got ", step);
  MatrixArgs a;
  take_param(a, param, grad, remainder, std::nullopt);
  optim::FactoredStep s;
  s.rows = p.shape[p.rank - 2];
  s.cols = p.shape[p.rank - 1];
  for (int i = 0; i + 2 < p.rank; ++i) s.count *= p.shape[i];
  s.tensor.param = p.data;
  s.tensor.param_low = a.step.param_low;
  s.tensor.param_storage = a.step.param_storage;
  s.tensor.grad = grad.view().data;
  s.tensor.grad_storage = float_storage(grad.view(), "grad");
  s.tensor.id = id;
  s.tensor.step = static_cast<std::uint32_t>(step);
  s.stochastic = stochastic;
  s.seed = seed;
  const std::int64_t sizes[5] = {s.count * s.rows, s.count * s.cols, p.numel(), s.count * s.rows, s.count * s.cols};
  float** const to[5] = {&s.row, &s.column, &s.m, &s.unstable_row, &s.unstable_column};
  for (std::size_t k = 0; k < state.size(); ++k) {
    const auto span = state[k].span<float>("state");
    GC_CHECK(static_cast<std::int64_t>(span.size()) == sizes[k], "state must hold ", sizes[k], " numbers at ", k,
             ", got ", span.size());
    *to[k] = span.data();
  }
  const std::map<std::string, double*> fields = {{"scale", &s.scale},
                                                 {"lr", &s.lr},
                                                 {"weight_decay", &s.weight_decay},
                                                 {"clip", &s.clip},
                                                 {"least_rms", &s.least_rms},
                                                 {"weight1", &s.weight1},
                                                 {"weight2", &s.weight2},
                                                 {"weight3", &s.weight3},
                                                 {"eps", &s.eps},
                                                 {"eps2", &s.eps2}};
  for (const auto& [name, number] : numbers) {
    const auto field = fields.find(name);
    GC_CHECK(field != fields.end(), "numbers must hold known keys, got '", name, "'");
    *field->second = number;
  }
  const pybind11::gil_scoped_release release;
  optim::factored_step(s);
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
        py::arg("remainder") = py::none(),
        "One step of `rule` on the rows `index` of a matrix, in place; slots (len(index), columns).");
  m.def("step_columns", &step_columns, py::arg("inside"), py::arg("outside"), py::arg("param"), py::arg("grad"),
        py::arg("moments"), py::arg("chosen"), py::arg("width"), py::arg("step"), py::arg("scales") = py::tuple(),
        py::arg("storage") = "", py::arg("remainder") = py::none(), py::arg("noise") = py::none(),
        "Adam on `width` columns of each row of a matrix, with moments (rows, width); sign descent on the others. "
        "`chosen`: int64 columns of all rows, or uint8 (rows, ceil(columns / 8)) with a bit per column, lowest first.");
  m.def(
      "step_blocks", &step_blocks, py::arg("param"), py::arg("grad"), py::arg("m"), py::arg("v"), py::arg("lr"),
      py::arg("weights"), py::arg("scale2"), py::arg("eps"), py::arg("grad_scale") = 1.0,
      py::arg("decay") = std::pair<double, double>{0.0, 0.0}, py::arg("remainder") = py::none(),
      py::arg("noise") = py::none(),
      "Adam with one second moment per equal run of elements: m += weights[0] (g - m), v += weights[1] (mean g^2 - v), "
      "p += decay[0] p; p -= lr m / (sqrt(v) scale2 + eps); p += decay[1] p.");
  m.def(
      "factored_step", &factored_step, py::arg("numbers"), py::arg("param"), py::arg("grad"), py::arg("state"),
      py::arg("step"), py::arg("id") = 0, py::arg("remainder") = py::none(), py::arg("stochastic") = false,
      py::arg("seed") = 0,
      "A step of matrices with factored second moments. state: row and column means; with a momentum also the moment "
      "and the row and column means of its instability. numbers: scale, lr, weight_decay, clip, least_rms (< 0: none), "
      "weight1 to weight3 (of what is new in the moment, the means and the instability), eps, eps2.");
  m.def("project_line", &project_line, py::arg("x"), py::arg("weights"), py::arg("result"), py::arg("along_rows"),
        "result = x weights, or its transpose times weights; returns the sum of squares of x.");
  m.def("rule_norms", &rule_norms, py::arg("hyper"), py::arg("r"), py::arg("moments"), py::arg("inputs"),
        py::arg("steps"), py::arg("scales") = py::tuple(), py::arg("storage") = "", py::arg("noise") = py::none(),
        "Folds the rows of r into moments of its shape; the norms of the rows, and of N = m / (sqrt(v) + eps).");
  m.def("haar_moments", &haar_moments, py::arg("hyper"), py::arg("grad"), py::arg("moments"), py::arg("level"),
        py::arg("noise") = py::none(),
        "Folds the coarse Haar coefficients of rows into m and v; the sum of squares of N = m / (sqrt(v) + eps).");
  m.def("haar_step", &haar_step, py::arg("param"), py::arg("grad"), py::arg("moments"), py::arg("level"), py::arg("lr"),
        py::arg("factor"), py::arg("eps"), py::arg("grad_scale") = 1.0,
        py::arg("decay") = std::pair<double, double>{0.0, 0.0}, py::arg("remainder") = py::none(),
        py::arg("noise") = py::none(),
        "p += decay[0] p; p -= lr factor (g - up(r) + up(m)) / (sqrt(v) + eps), run by run; p += decay[1] p.");
}

}  // namespace optim_bind
}  // namespace gramcore
