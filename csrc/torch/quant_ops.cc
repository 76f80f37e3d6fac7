// Torch operators of packed low-bit weights, on the CPU and (compiled, emulated in the tests) on CUDA devices.  A
// weight is its packed bytes, the same on both, and the numbers of its PackSpec.
#include "core/cuda/status.h"
#include "quant/binary.h"
#include "quant/cuda/linear_binary.h"
#include "quant/cuda/linear_packed.h"
#include "quant/cuda/linear_table.h"
#include "quant/linear.h"
#include "quant/packed.h"
#include "quant/table.h"
#include "torch/registry.h"

namespace gramcore::torch {
namespace {

// Arguments `first` .. first + 6: n, k, bits, group, zero, has_min, scale_f32.
quant::PackSpec spec_of(const OpCall& call, std::uint64_t first) {
  quant::PackSpec s;
  s.n = call.integer(first);
  s.k = call.integer(first + 1);
  s.bits = static_cast<int>(call.integer(first + 2));
  s.group = call.integer(first + 3);
  s.zero = static_cast<int>(call.integer(first + 4));
  s.has_min = call.boolean(first + 5);
  s.scale = call.boolean(first + 6) ? quant::ScaleType::f32 : quant::ScaleType::f16;
  s.validate();
  return s;
}

Span<const std::uint8_t> packed_bytes(const TensorView& t, int device) {
  check_tensor(t, "packed", DType::u8, 1);
  check_contiguous(t, "packed");
  check_device(t, "packed", device);
  return {t.as<const std::uint8_t>(), static_cast<std::size_t>(t.numel())};
}

// A bias of n floats, or null.
const float* bias_of(OpCall& call, std::uint64_t index, std::int64_t n, int device) {
  TensorView bias;
  if (!call.optional_tensor(index, &bias)) return nullptr;
  check_tensor(bias, "bias", DType::f32, 1);
  check_contiguous(bias, "bias");
  check_device(bias, "bias", device);
  GC_CHECK(bias.shape[0] == n, "bias must have ", n, " elements, got ", bias.shape[0]);
  return bias.as<const float>();
}

// The result of a product: x's shape with n columns.
TensorView new_product(OpCall& call, const TensorView& x, std::int64_t k, std::int64_t n) {
  GC_CHECK(x.rank >= 1 && x.shape[x.rank - 1] == k, "x must have ", k, " columns, got shape ", shape_string(x));
  check_contiguous(x, "x");
  std::int64_t shape[TensorView::kMaxRank];
  for (int i = 0; i < x.rank; ++i) shape[i] = x.shape[i];
  shape[x.rank - 1] = n;
  return call.new_output(0, x.dtype, shape, x.rank, x.device);
}

struct LinearOperands {
  TensorView x, y;
  quant::PackedLinear w;
  std::int64_t rows;
};

LinearOperands read_linear(OpCall& call) {
  LinearOperands o;
  o.x = call.tensor(0);
  const TensorView &x = o.x, packed = call.tensor(1);
  const quant::PackSpec spec = spec_of(call, 3);
  o.w = {spec, packed_bytes(packed, x.device), bias_of(call, 2, spec.n, x.device)};
  o.y = new_product(call, x, spec.k, spec.n);
  o.rows = x.numel() / spec.k;
  return o;
}

void linear_packed_cpu(OpCall& call) {
  const LinearOperands o = read_linear(call);
  const quant::PackSpec& s = o.w.spec;
  check_cpu(o.x, "x");
  quant::linear(o.w, quant::RowsView{o.x.data, o.x.dtype, o.rows, s.k, s.k},
                quant::MutableRowsView{o.y.data, o.y.dtype, o.rows, s.n, s.n},
                call.boolean(10) ? quant::Activations::int8 : quant::Activations::f32);
}

// x, packed, bias, spec, activation_bits.
void linear_bipolar_cpu(OpCall& call) {
  const LinearOperands o = read_linear(call);
  const quant::PackSpec& s = o.w.spec;
  check_cpu(o.x, "x");
  quant::linear_rounded(o.w, quant::RowsView{o.x.data, o.x.dtype, o.rows, s.k, s.k},
                        quant::MutableRowsView{o.y.data, o.y.dtype, o.rows, s.n, s.n},
                        static_cast<int>(call.integer(10)));
}

struct BinaryOperands {
  TensorView x, y;
  quant::BinaryLinear w;
  std::int64_t rows;
  bool int8_activations;
};

// x, planes, order, bias, n, k, blocks, salient_group, plain_group, scale_f32, int8_activations.
BinaryOperands read_binary(OpCall& call) {
  BinaryOperands o;
  o.x = call.tensor(0);
  const TensorView planes = call.tensor(1), order = call.tensor(2);
  o.w = quant::BinaryLinear::shaped(call.integer(4), call.integer(5), call.integer(6), call.integer(7), call.integer(8),
                                    call.boolean(9) ? quant::ScaleType::f32 : quant::ScaleType::f16);
  o.w.planes = packed_bytes(planes, o.x.device);
  check_tensor(order, "order", DType::i32, 1);
  check_contiguous(order, "order");
  check_device(order, "order", o.x.device);
  o.w.order = {order.as<const std::int32_t>(), static_cast<std::size_t>(order.numel())};
  o.w.bias = bias_of(call, 3, o.w.n, o.x.device);
  o.y = new_product(call, o.x, o.w.k, o.w.n);
  o.rows = o.x.numel() / o.w.k;
  o.int8_activations = call.boolean(10);
  return o;
}

void linear_binary_cpu(OpCall& call) {
  const BinaryOperands o = read_binary(call);
  check_cpu(o.x, "x");
  quant::linear(o.w, {o.x.data, o.x.dtype, o.rows, o.w.k, o.w.k}, {o.y.data, o.y.dtype, o.rows, o.w.n, o.w.n},
                o.int8_activations ? quant::Activations::int8 : quant::Activations::f32);
}

// The table (on the CPU) is argument `at`, the spec begins at `spec`.
quant::TableLinear read_table(OpCall& call, const TensorView& packed, int device, std::uint64_t at, std::uint64_t spec,
                              quant::ValueTable* values) {
  const TensorView table = call.tensor(at);
  check_tensor(table, "table", DType::f32, 1);
  check_contiguous(table, "table");
  check_cpu(table, "table");
  quant::TableLinear w{spec_of(call, spec), packed_bytes(packed, device)};
  *values = quant::value_table(w.spec.bits, {table.as<const float>(), static_cast<std::size_t>(table.numel())});
  w.table = values;
  w.validate();
  return w;
}

struct TableOperands {
  TensorView x, y;
  quant::TableLinear w;
  std::int64_t rows;
};

// x, packed, table (on the CPU), bias, spec.
TableOperands read_linear_table(OpCall& call, quant::ValueTable* values) {
  TableOperands o;
  o.x = call.tensor(0);
  o.w = read_table(call, call.tensor(1), o.x.device, 2, 4, values);
  o.w.bias = bias_of(call, 3, o.w.spec.n, o.x.device);
  o.y = new_product(call, o.x, o.w.spec.k, o.w.spec.n);
  o.rows = o.x.numel() / o.w.spec.k;
  return o;
}

void linear_table_cpu(OpCall& call) {
  quant::ValueTable values;
  const TableOperands o = read_linear_table(call, &values);
  check_cpu(o.x, "x");
  const std::int64_t n = o.w.spec.n, k = o.w.spec.k;
  quant::linear(o.w, {o.x.data, o.x.dtype, o.rows, k, k}, {o.y.data, o.y.dtype, o.rows, n, n});
}

void dequantize_table_cpu(OpCall& call) {
  quant::ValueTable values;
  const quant::TableLinear w = read_table(call, call.tensor(0), -1, 1, 2, &values);
  const TensorView out = call.new_output(0, DType::f32, {w.spec.n, w.spec.k});
  quant::dequantize(w, {out.as<float>(), static_cast<std::size_t>(out.numel())});
}

void dequantize_packed_cpu(OpCall& call) {
  const TensorView packed = call.tensor(0);
  const quant::PackSpec s = spec_of(call, 1);
  const TensorView w = call.new_output(0, DType::f32, {s.n, s.k});
  quant::dequantize(s, packed_bytes(packed, -1), {w.as<float>(), static_cast<std::size_t>(s.n * s.k)});
}

struct GatherOperands {
  TensorView ids, packed, y;
  quant::PackSpec spec;
};

// spec_at: the operand where the numbers of the packed form begin.
GatherOperands read_gather(OpCall& call, std::uint64_t spec_at = 2) {
  GatherOperands o{call.tensor(0), call.tensor(1), {}, spec_of(call, spec_at)};
  const TensorView& ids = o.ids;
  check_tensor(ids, "ids", DType::i64, -1);
  check_contiguous(ids, "ids");
  std::int64_t shape[TensorView::kMaxRank];
  GC_CHECK(ids.rank < TensorView::kMaxRank, "ids must have fewer than ", TensorView::kMaxRank, " dimensions");
  for (int i = 0; i < ids.rank; ++i) shape[i] = ids.shape[i];
  shape[ids.rank] = o.spec.k;
  o.y = call.new_output(0, DType::f32, shape, ids.rank + 1, ids.device);
  return o;
}

void embedding_packed_cpu(OpCall& call) {
  const GatherOperands o = read_gather(call);
  quant::gather_rows(o.spec, packed_bytes(o.packed, -1),
                     {o.ids.as<const std::int64_t>(), static_cast<std::size_t>(o.ids.numel())},
                     {o.y.as<float>(), static_cast<std::size_t>(o.y.numel())});
}

void embedding_table_cpu(OpCall& call) {
  const GatherOperands o = read_gather(call, 3);
  quant::ValueTable values;
  quant::gather_rows(read_table(call, o.packed, -1, 2, 3, &values),
                     {o.ids.as<const std::int64_t>(), static_cast<std::size_t>(o.ids.numel())},
                     {o.y.as<float>(), static_cast<std::size_t>(o.y.numel())});
}

#if defined(GRAMCORE_WITH_CUDA)
// The arguments that all products have.
template <class Args, class Operands>
Args product_args(const Operands& o, std::int64_t n, std::int64_t k) {
  Args args{};
  args.x = o.x.data;
  args.bias = o.w.bias;
  args.y = o.y.data;
  args.rows = o.rows;
  args.x_stride = k;
  args.y_stride = n;
  args.dtype = static_cast<std::int32_t>(o.x.dtype);
  return args;
}

template <class Args>
void launch(OpCall& call, const TensorView& x, Args* args, std::int64_t (*workspace)(const Args*),
            int (*launcher)(const Args*, void*)) {
  const CudaStream stream(x.device);
  args->workspace_bytes = workspace(args);
  args->workspace = call.scratch(DType::u8, args->workspace_bytes, x.device).data;
  cuda::check_status(launcher(args, stream.get()));
}

void launch_packed(OpCall& call, int bits) {
  const LinearOperands o = read_linear(call);
  o.w.validate();
  auto args = product_args<quant::LinearPackedArgs>(o, o.w.spec.n, o.w.spec.k);
  args.packed = o.w.packed.data();
  args.spec = o.w.spec;
  args.activation_bits = bits;
  launch(call, o.x, &args, gc_cuda_linear_packed_workspace, gc_cuda_linear_packed);
}

void linear_packed_cuda(OpCall& call) {
  launch_packed(call, call.boolean(10) ? 8 : 0);
}

void linear_bipolar_cuda(OpCall& call) {
  const std::int64_t bits = call.integer(10);
  GC_CHECK(bits >= 1 && bits <= 8, "bits of activations must be in [1, 8], got ", bits);
  launch_packed(call, static_cast<int>(bits));
}

void linear_binary_cuda(OpCall& call) {
  const BinaryOperands o = read_binary(call);
  o.w.validate_sizes();
  auto args = product_args<quant::LinearBinaryArgs>(o, o.w.n, o.w.k);
  args.planes = o.w.planes.data();
  args.order = o.w.order.data();
  args.k = o.w.k;
  args.salient = o.w.salient;
  args.plain = o.w.plain;
  args.int8_activations = o.int8_activations ? 1 : 0;
  launch(call, o.x, &args, gc_cuda_linear_binary_workspace, gc_cuda_linear_binary);
}

void linear_table_cuda(OpCall& call) {
  quant::ValueTable values;
  const TableOperands o = read_linear_table(call, &values);
  auto args = product_args<quant::LinearTableArgs>(o, o.w.spec.n, o.w.spec.k);
  args.packed = o.w.packed.data();
  args.values = values.values;
  args.spec = o.w.spec;
  launch(call, o.x, &args, gc_cuda_linear_table_workspace, gc_cuda_linear_table);
}

void dequantize_table_cuda(OpCall& call) {
  quant::ValueTable values;
  const TensorView packed = call.tensor(0);
  const quant::TableLinear w = read_table(call, packed, packed.device, 1, 2, &values);
  const TensorView out = call.new_output(0, DType::f32, {w.spec.n, w.spec.k}, packed.device);
  const CudaStream stream(packed.device);
  const quant::DequantizeTableArgs args{w.packed.data(), values.values, out.as<float>(), w.spec};
  cuda::check_status(gc_cuda_dequantize_table(&args, stream.get()));
}

void gather(const quant::PackSpec& spec, const TensorView& packed, const std::int64_t* ids, std::int64_t rows,
            const TensorView& out) {
  const Span<const std::uint8_t> bytes = packed_bytes(packed, out.device);
  GC_CHECK(bytes.size() == static_cast<std::size_t>(spec.packed_bytes()), "packed must have ", spec.packed_bytes(),
           " elements, got ", bytes.size());
  const CudaStream stream(out.device);
  const quant::GatherPackedArgs args{bytes.data(), ids, out.as<float>(), rows, spec};
  cuda::check_status(gc_cuda_gather_packed(&args, stream.get()));
}

void dequantize_packed_cuda(OpCall& call) {
  const TensorView packed = call.tensor(0);
  const quant::PackSpec s = spec_of(call, 1);
  gather(s, packed, nullptr, s.n, call.new_output(0, DType::f32, {s.n, s.k}, packed.device));
}

void embedding_packed_cuda(OpCall& call) {
  const GatherOperands o = read_gather(call);
  gather(o.spec, o.packed, o.ids.as<const std::int64_t>(), o.ids.numel(), o.y);
}
#define GC_TWIN(name) boxed<name##_cuda>
#else
#define GC_TWIN(name) nullptr
#endif

#define GC_SPEC "int n, int k, int bits, int group, int zero, bool has_min, bool scale_f32"
const Ops ops{
    {"linear_packed(Tensor x, Tensor packed, Tensor? bias, " GC_SPEC ", bool int8_activations) -> Tensor",
     boxed<linear_packed_cpu>, GC_TWIN(linear_packed)},
    {"linear_bipolar(Tensor x, Tensor packed, Tensor? bias, " GC_SPEC ", int activation_bits) -> Tensor",
     boxed<linear_bipolar_cpu>, GC_TWIN(linear_bipolar)},
    {"linear_binary(Tensor x, Tensor planes, Tensor order, Tensor? bias, int n, int k, int blocks, int salient_group, "
     "int plain_group, bool scale_f32, bool int8_activations) -> Tensor",
     boxed<linear_binary_cpu>, GC_TWIN(linear_binary)},
    {"linear_table(Tensor x, Tensor packed, Tensor table, Tensor? bias, " GC_SPEC ") -> Tensor",
     boxed<linear_table_cpu>, GC_TWIN(linear_table)},
    {"dequantize_table(Tensor packed, Tensor table, " GC_SPEC ") -> Tensor", boxed<dequantize_table_cpu>,
     GC_TWIN(dequantize_table)},
    {"dequantize_packed(Tensor packed, " GC_SPEC ") -> Tensor", boxed<dequantize_packed_cpu>,
     GC_TWIN(dequantize_packed)},
    {"embedding_packed(Tensor ids, Tensor packed, " GC_SPEC ") -> Tensor", boxed<embedding_packed_cpu>,
     GC_TWIN(embedding_packed)},
    {"embedding_table(Tensor ids, Tensor packed, Tensor table, " GC_SPEC ") -> Tensor", boxed<embedding_table_cpu>,
     nullptr},
};
#undef GC_SPEC
#undef GC_TWIN

}  // namespace
}  // namespace gramcore::torch
