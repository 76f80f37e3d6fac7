// Bindings of products and of steps along them; part of optim.inl.h.
#pragma once

#include "bind/optim_matrix.inl.h"
#include "optim/lifted.h"
#include "optim/product.h"

namespace gramcore {
namespace optim_bind {

inline optim::Factor factor(const TensorArg& x, const char* name) {
  const TensorView& v = x.view();
  GC_CHECK(v.rank == 2 && (v.shape[0] <= 1 || v.shape[1] <= 1 || v.stride[0] == 1 || v.stride[1] == 1), name,
           " must be a matrix whose rows or columns have no gaps, got ", shape_string(v));
  optim::Factor f{v.data, float_storage(v, name), v.shape[0], v.shape[1], v.stride[0], v.stride[1]};
  // A stride over one element means nothing.
  if (f.columns <= 1) f.column_stride = 1;
  if (f.rows <= 1 && f.column_stride != 1) f.row_stride = 1;
  return f;
}

inline optim::PackedFactor pack_factor(const TensorArg& x, bool narrow) {
  const optim::Factor f = factor(x, "x");
  GC_CHECK(f.rows > 0, "x must have a row at least, got ", shape_string(x.view()));
  GC_CHECK(!narrow || f.storage != Storage::f16, "x must not be float16 where products are narrow");
  const pybind11::gil_scoped_release release;
  return {f, narrow};
}

inline const char* best_product(const TensorArg& like) {
  const optim::ProductKind kind = optim::best_product(float_storage(like.view(), "like"));
  return kind == optim::ProductKind::library ? "library" : kind == optim::ProductKind::wide ? "wide" : "narrow";
}

inline optim::Product product_of(const TensorArg& a, const optim::PackedFactor& b) {
  const optim::Factor f = factor(a, "a");
  GC_CHECK(f.columns == b.inner(), "a must have ", b.inner(), " columns, got ", shape_string(a.view()));
  GC_CHECK(b.form().per_word == 1 || f.storage != Storage::f16, "a must not be float16 where products are narrow");
  return {f, b};
}

inline void multiply(const TensorArg& a, const optim::PackedFactor& b, const TensorArg& result) {
  const optim::Product product = product_of(a, b);
  const auto out = result.span<float>("result", 2);
  const TensorView& v = result.view();
  GC_CHECK(v.shape[0] == a.view().shape[0] && v.shape[1] == b.columns(), "result must have ", a.view().shape[0],
           " rows of ", b.columns(), ", got ", shape_string(v));
  const pybind11::gil_scoped_release release;
  product.store(out.data());
}

// Elements from a row of a part of a matrix to the next; the rows themselves have no gaps.
inline std::int64_t row_stride(const TensorView& v, const char* name) {
  GC_CHECK(v.rank == 2 && (v.shape[1] <= 1 || v.stride[1] == 1), name,
           " must be a matrix whose rows have no gaps, got ", shape_string(v));
  return v.stride[0];
}

// The arguments of a step along a lifted matrix, beside that matrix.
struct LiftedArgs {
  MatrixArgs matrix;
  optim::LiftedStep lift;
  Lists lists;

  LiftedArgs(const TensorArg& param, const TensorArg& grad, std::int64_t rows, std::int64_t columns,
             const py::object& phi, bool by_row, double lr, const std::pair<double, double>& decay,
             const py::object& remainder, const NoiseName& noise, const std::pair<std::int64_t, std::int64_t>& place) {
    const TensorView &p = param.view(), &g = grad.view();
    GC_CHECK(p.rank == 2 && g.rank == 2 && p.shape[0] == rows && p.shape[1] == columns && g.shape[0] == rows &&
                 g.shape[1] == columns,
             "param and grad must have the shape of the lifted matrix (", rows, ", ", columns, "), got ",
             shape_string(p), " and ", shape_string(g));
    GC_CHECK(place.first >= 0 && place.second >= 0 && place.second % 128 == 0,
             "place must be a row and a multiple of 128, got ", place.first, " and ", place.second);
    matrix.step.rows = rows;
    matrix.step.cols = columns;
    matrix.step.grad = g.data;
    matrix.step.grad_storage = float_storage(g, "grad");
    take_param(matrix, param, param, remainder, noise);
    lift.stride = row_stride(p, "param");
    lift.grad_stride = row_stride(g, "grad");
    lift.phi = factor_of(lists, phi, by_row ? rows : columns, "phi");
    lift.by_row = by_row;
    lift.lr = static_cast<float>(lr);
    lift.decay[0] = static_cast<float>(decay.first);
    lift.decay[1] = static_cast<float>(decay.second);
    lift.first_row = place.first;
    lift.first_column = place.second;
  }
};

inline void step_lifted(const TensorArg& param, const TensorArg& grad, const TensorArg& lifted, const py::object& phi,
                        bool by_row, double lr, const std::pair<double, double>& decay, const py::object& remainder,
                        const NoiseName& noise, const std::pair<std::int64_t, std::int64_t>& place) {
  const TensorView& u = lifted.view();
  check_matrix(u, "lifted");
  const LiftedArgs args(param, grad, u.shape[0], u.shape[1], phi, by_row, lr, decay, remainder, noise, place);
  const Storage storage = float_storage(u, "lifted");
  const pybind11::gil_scoped_release release;
  optim::step_lifted(args.matrix.step, args.lift, u.data, storage);
}

inline void step_product(const TensorArg& param, const TensorArg& grad, const TensorArg& a,
                         const optim::PackedFactor& b, const py::object& phi, bool by_row, double lr,
                         const std::pair<double, double>& decay, const py::object& remainder, const NoiseName& noise,
                         const std::pair<std::int64_t, std::int64_t>& place) {
  const optim::Product product = product_of(a, b);
  GC_CHECK(place.second % optim::kBandColumns == 0, "place must be a multiple of ", optim::kBandColumns,
           " columns, got ", place.second);
  const LiftedArgs args(param, grad, a.view().shape[0], b.columns(), phi, by_row, lr, decay, remainder, noise, place);
  const pybind11::gil_scoped_release release;
  optim::step_lifted(args.matrix.step, args.lift, product);
}

inline void bind_products(pybind11::module_& m) {
  namespace py = pybind11;
  py::class_<optim::PackedFactor>(m, "PackedFactor", "The right side of products, in the order of their tiles.")
      .def(py::init(&pack_factor), py::arg("x"), py::arg("narrow") = false,
           "x: (inner, columns). narrow: round both sides to bf16 and multiply pairs; sums are fp32 always.");
  m.def("best_product", &best_product, py::arg("like"),
        "What multiplies matrices stored as `like` fastest here: 'library', or a PackedFactor, 'wide' or 'narrow'.");
  m.def("multiply", &multiply, py::arg("a"), py::arg("b"), py::arg("result"), "result = a b, in fp32.");
  m.def("step_lifted", &step_lifted, py::arg("param"), py::arg("grad"), py::arg("lifted"), py::arg("phi"),
        py::arg("by_row"), py::arg("lr"), py::arg("decay") = std::pair<double, double>{0.0, 0.0},
        py::arg("remainder") = py::none(), py::arg("noise") = py::none(),
        py::arg("place") = std::pair<std::int64_t, std::int64_t>{0, 0},
        "p += decay[0] p; p -= lr (lifted + phi grad); p += decay[1] p, for a part of a matrix that begins at `place` "
        "(row, column); phi holds a number per row, or per column, or is None for zeros.");
  m.def("step_product", &step_product, py::arg("param"), py::arg("grad"), py::arg("a"), py::arg("b"), py::arg("phi"),
        py::arg("by_row"), py::arg("lr"), py::arg("decay") = std::pair<double, double>{0.0, 0.0},
        py::arg("remainder") = py::none(), py::arg("noise") = py::none(),
        py::arg("place") = std::pair<std::int64_t, std::int64_t>{0, 0},
        "As step_lifted with lifted = a b, which is never formed as a whole.");
}

}  // namespace optim_bind
}  // namespace gramcore
