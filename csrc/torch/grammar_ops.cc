// apply_bitmask_: logits of forbidden tokens to -inf, on the CPU and (compiled, emulated in the tests) on CUDA devices.
#include <algorithm>

#include "core/bitset.h"
#include "core/cuda/status.h"
#include "grammar/apply_bitmask.h"
#include "grammar/cuda/apply_bitmask.h"
#include "torch/registry.h"

namespace gramcore::torch {
namespace {

struct Operands {
  TensorView logits, bitmask, rows;
  bool has_rows;
};

Operands read(OpCall& call) {
  Operands o;
  o.logits = call.tensor(0);
  o.bitmask = call.tensor(1);
  o.has_rows = call.optional_tensor(2, &o.rows);
  return o;
}

grammar::ApplyBitmaskArgs checked(const Operands& o) {
  const TensorView &logits = o.logits, &bitmask = o.bitmask;
  GC_CHECK(logits.rank == 2 && (logits.stride[1] == 1 || logits.shape[1] == 1),
           "logits must be (rows, vocabulary), dense along the vocabulary, got shape ", shape_string(logits));
  check_tensor(bitmask, "bitmask", DType::i32, 2);
  const auto words = static_cast<std::int64_t>(bitmask_words(static_cast<std::size_t>(logits.shape[1])));
  GC_CHECK(bitmask.shape[1] >= words && (bitmask.stride[1] == 1 || bitmask.shape[1] == 1),
           "bitmask must have at least ceil(vocabulary / 32) = ", words, " dense words per row, got shape ",
           shape_string(bitmask), " (logits ", shape_string(logits), ")");
  grammar::ApplyBitmaskArgs args{};
  args.logits = logits.data;
  args.bitmask = bitmask.as<const std::int32_t>();
  args.num_rows = logits.shape[0];
  args.vocab_size = logits.shape[1];
  args.logits_stride = logits.stride[0];
  args.bitmask_stride = bitmask.stride[0];
  args.dtype = static_cast<std::int32_t>(logits.dtype);
  if (o.has_rows) {
    check_tensor(o.rows, "rows", DType::i32, 1);
    check_contiguous(o.rows, "rows");
    args.row_index = o.rows.as<const std::int32_t>();
    args.num_rows = o.rows.shape[0];
  } else {
    GC_CHECK(bitmask.shape[0] == logits.shape[0], "bitmask must have one row per row of logits, got ",
             shape_string(bitmask), " (logits ", shape_string(logits), "); name the rows with rows=");
  }
  return args;
}

void apply_bitmask_cpu(OpCall& call) {
  const Operands o = read(call);
  const grammar::ApplyBitmaskArgs args = checked(o);
  check_cpu(o.bitmask, "bitmask");
  if (o.has_rows) {
    check_cpu(o.rows, "rows");
    const std::int64_t limit = std::min(o.logits.shape[0], o.bitmask.shape[0]);
    for (std::int64_t i = 0; i < args.num_rows; ++i) {
      GC_CHECK_AS(OutOfRange, args.row_index[i] >= 0 && args.row_index[i] < limit, "rows must be in [0, ", limit,
                  "), got ", args.row_index[i], " at position ", i);
    }
  }
  grammar::apply_bitmask(args);
}

#if defined(GRAMCORE_WITH_CUDA)
void apply_bitmask_cuda(OpCall& call) {
  const Operands o = read(call);
  const grammar::ApplyBitmaskArgs args = checked(o);
  const CudaStream stream(o.logits.device);
  GC_CHECK_AS(TypeMismatch, o.bitmask.device == o.logits.device && (!o.has_rows || o.rows.device == o.logits.device),
              "bitmask and rows must be on the device of logits, cuda:", o.logits.device);
  cuda::check_status(gc_cuda_apply_bitmask(&args, stream.get()));
}
constexpr BoxedFn kCuda = boxed<apply_bitmask_cuda>;
#else
constexpr BoxedFn kCuda = nullptr;
#endif

const Ops ops{
    {"apply_bitmask_(Tensor(a!) logits, Tensor bitmask, Tensor? rows=None) -> ()", boxed<apply_bitmask_cpu>, kCuda}};

}  // namespace
}  // namespace gramcore::torch
