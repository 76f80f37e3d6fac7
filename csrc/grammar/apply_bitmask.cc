#include "grammar/apply_bitmask.h"

#include "core/dtype.h"
#include "core/thread_pool.h"
#include "grammar/kernels/apply_bitmask.h"

namespace gramcore::grammar {
namespace {

// Tokens per piece of work: below this a second thread costs more than it saves.
constexpr std::int64_t kTile = 1 << 15;

}  // namespace

void apply_bitmask(const ApplyBitmaskArgs& args) {
  const auto dtype = static_cast<DType>(args.dtype);
  GC_CHECK_AS(TypeMismatch, dtype == DType::f32 || dtype == DType::f16 || dtype == DType::bf16,
              "logits must be float32, float16 or bfloat16, got ", dtype_name(dtype));
  const ApplyBitmaskKernels& kernels = apply_bitmask_kernels();
  const std::uint16_t minus_inf16 = dtype == DType::f16 ? 0xfc00u : 0xff80u;
  const std::int64_t tiles = (args.vocab_size + kTile - 1) / kTile;
  parallel_for(args.num_rows * tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t row = args.row_index ? args.row_index[i / tiles] : i / tiles;
      const std::int64_t first = i % tiles * kTile;
      const std::int64_t count = args.vocab_size - first < kTile ? args.vocab_size - first : kTile;
      const std::int32_t* mask = args.bitmask + row * args.bitmask_stride + first / 32;
      const std::int64_t at = row * args.logits_stride + first;
      if (dtype == DType::f32) {
        kernels.mask32(static_cast<std::uint32_t*>(args.logits) + at, mask, count);
      } else {
        kernels.mask16(static_cast<std::uint16_t*>(args.logits) + at, mask, count, minus_inf16);
      }
    }
  });
}

}  // namespace gramcore::grammar
