// Torch operators of packed low-bit weights.  A weight is its packed bytes and the numbers of its PackSpec.
#include "quant/linear.h"
#include "quant/packed.h"
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

Span<const std::uint8_t> packed_bytes(const TensorView& t) {
  check_tensor(t, "packed", DType::u8, 1);
  check_contiguous(t, "packed");
  check_cpu(t, "packed");
  return {t.as<const std::uint8_t>(), static_cast<std::size_t>(t.numel())};
}

void linear_packed(OpCall& call) {
  const TensorView x = call.tensor(0), packed = call.tensor(1);
  TensorView bias;
  const bool has_bias = call.optional_tensor(2, &bias);
  const quant::PackedLinear w{spec_of(call, 3), packed_bytes(packed), has_bias ? bias.as<const float>() : nullptr};
  GC_CHECK(x.rank >= 1 && x.shape[x.rank - 1] == w.spec.k, "x must have ", w.spec.k, " columns, got shape ",
           shape_string(x));
  check_contiguous(x, "x");
  check_cpu(x, "x");
  if (has_bias) {
    check_tensor(bias, "bias", DType::f32, 1);
    check_contiguous(bias, "bias");
    GC_CHECK(bias.shape[0] == w.spec.n, "bias must have ", w.spec.n, " elements, got ", bias.shape[0]);
  }
  std::int64_t shape[TensorView::kMaxRank];
  for (int i = 0; i < x.rank; ++i) shape[i] = x.shape[i];
  shape[x.rank - 1] = w.spec.n;
  const TensorView y = call.new_output(0, x.dtype, shape, x.rank);
  const std::int64_t rows = x.numel() / w.spec.k;
  quant::linear(w, quant::RowsView{x.data, x.dtype, rows, w.spec.k, w.spec.k},
                quant::MutableRowsView{y.data, y.dtype, rows, w.spec.n, w.spec.n},
                call.boolean(10) ? quant::Activations::int8 : quant::Activations::f32);
}

void dequantize_packed(OpCall& call) {
  const TensorView packed = call.tensor(0);
  const quant::PackSpec s = spec_of(call, 1);
  const TensorView w = call.new_output(0, DType::f32, {s.n, s.k});
  quant::dequantize(s, packed_bytes(packed), {w.as<float>(), static_cast<std::size_t>(s.n * s.k)});
}

void embedding_packed(OpCall& call) {
  const TensorView ids = call.tensor(0), packed = call.tensor(1);
  const quant::PackSpec s = spec_of(call, 2);
  check_tensor(ids, "ids", DType::i64, -1);
  check_contiguous(ids, "ids");
  std::int64_t shape[TensorView::kMaxRank];
  GC_CHECK(ids.rank < TensorView::kMaxRank, "ids must have fewer than ", TensorView::kMaxRank, " dimensions");
  for (int i = 0; i < ids.rank; ++i) shape[i] = ids.shape[i];
  shape[ids.rank] = s.k;
  const TensorView y = call.new_output(0, DType::f32, shape, ids.rank + 1);
  quant::gather_rows(s, packed_bytes(packed), {ids.as<const std::int64_t>(), static_cast<std::size_t>(ids.numel())},
                     {y.as<float>(), static_cast<std::size_t>(y.numel())});
}

#define GC_SPEC "int n, int k, int bits, int group, int zero, bool has_min, bool scale_f32"
const Ops ops{
    {"linear_packed(Tensor x, Tensor packed, Tensor? bias, " GC_SPEC ", bool int8_activations) -> Tensor",
     boxed<linear_packed>},
    {"dequantize_packed(Tensor packed, " GC_SPEC ") -> Tensor", boxed<dequantize_packed>},
    {"embedding_packed(Tensor ids, Tensor packed, " GC_SPEC ") -> Tensor", boxed<embedding_packed>},
};
#undef GC_SPEC

}  // namespace
}  // namespace gramcore::torch
