#include "core/cuda/status.h"
#include "core/dtype.h"
#include "grammar/cuda/apply_bitmask.cuh"

namespace gramcore::grammar {
namespace {

using cuda::invalid;

int check(const ApplyBitmaskArgs& a, int element_bytes) {
  if (a.num_rows < 0 || a.num_rows > 0x7fffffff) return invalid("num_rows must be in [0, 2^31), got ", a.num_rows);
  if (a.vocab_size < 0 || a.vocab_size > 0x7fffffff) {
    return invalid("vocab_size must be in [0, 2^31), got ", a.vocab_size);
  }
  if (a.logits_stride < a.vocab_size) {
    return invalid("logits_stride must be >= vocab_size, got ", a.logits_stride, " (vocab_size ", a.vocab_size, ")");
  }
  if (a.bitmask_stride < (a.vocab_size + 31) / 32) {
    return invalid("bitmask_stride must be >= ceil(vocab_size / 32), got ", a.bitmask_stride, " (vocab_size ",
                   a.vocab_size, ")");
  }
  if (a.num_rows == 0 || a.vocab_size == 0) return cuda::kOk;
  if (a.logits == nullptr || a.bitmask == nullptr) return invalid("logits and bitmask must not be null");
  if (reinterpret_cast<std::uintptr_t>(a.logits) % static_cast<unsigned>(element_bytes) != 0) {
    return invalid("logits must be aligned to its element size of ", element_bytes, " bytes");
  }
  return cuda::kOk;
}

template <class Word, Word kMinusInf>
int launch(const ApplyBitmaskArgs& args, cudaStream_t stream) {
  using Policy = ApplyBitmaskPolicy;
  if (const int status = check(args, sizeof(Word)); status != cuda::kOk) return status;
  if (args.num_rows == 0 || args.vocab_size == 0) return cuda::set_status(cuda::kOk, "");
  constexpr std::int64_t kWidth = 16 / sizeof(Word);
  constexpr std::int64_t kTileVectors = std::int64_t{Policy::kThreads} * Policy::kVectorsPerThread;
  // One vector more than V needs: a row that starts between two boundaries touches one more.
  const std::int64_t vectors = (args.vocab_size + kWidth - 1) / kWidth + 1;
  const std::int64_t tiles = (vectors + kTileVectors - 1) / kTileVectors;
  if (tiles > 65535)
    return invalid("vocab_size must be below ", 65534 * kTileVectors * kWidth, ", got ", args.vocab_size);
  const dim3 grid(static_cast<unsigned>(args.num_rows), static_cast<unsigned>(tiles));
  GC_CUDA_LAUNCH((apply_bitmask_kernel<Word, kMinusInf>), grid, Policy::kThreads, 0, stream, args);
  return cuda::launch_status("apply_bitmask");
}

}  // namespace
}  // namespace gramcore::grammar

int gc_cuda_apply_bitmask(const gramcore::grammar::ApplyBitmaskArgs* args, void* stream) {
  using namespace gramcore;
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  switch (static_cast<DType>(args->dtype)) {
    case DType::f32: return grammar::launch<std::uint32_t, 0xff800000u>(*args, s);
    case DType::f16: return grammar::launch<std::uint16_t, 0xfc00u>(*args, s);
    case DType::bf16: return grammar::launch<std::uint16_t, 0xff80u>(*args, s);
    default: return cuda::invalid("logits dtype must be float32, float16 or bfloat16, got dtype code ", args->dtype);
  }
}
