#include "core/cuda/status.h"
#include "quant/cuda/linear_packed.cuh"
#include "quant/cuda/linear_packed.h"

namespace gramcore::quant {
namespace {

using cuda::invalid;
using Policy = LinearPackedPolicy;

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

int check_spec(const PackSpec& s, const std::uint8_t* packed) {
  if (s.n < 1 || s.k < 1 || s.n > 0x7fffffc0 || s.k > 0x7fffff00) {
    return invalid("weight must have 1 to 2^31 - 256 rows and columns on a CUDA device, got (", s.n, ", ", s.k, ")");
  }
  if (s.bits < 1 || s.bits > 8) return invalid("bits must be in [1, 8], got ", s.bits);
  const std::int64_t row = ceil_div(s.k, kBlock) * kBlock;
  if ((s.group < kBlock || s.group > kMaxGroup || s.group % kBlock != 0) && s.group != row) {
    return invalid("group_size must be 32, 64, 96, 128 or ", row, " (one group per row), got ", s.group);
  }
  if (s.zero < 0 || s.zero >= 1 << s.bits || (s.bits == 8 && s.zero != 128) || (s.bits == 1 && s.zero != 1)) {
    return invalid("zero must be a code, 128 for 8 bits and 1 for one bit, got ", s.zero, " (", s.bits, " bits)");
  }
  if (packed == nullptr || reinterpret_cast<std::uintptr_t>(packed) % 16 != 0) {
    return invalid("packed must not be null and must be aligned to 16 bytes");
  }
  return cuda::kOk;
}

PanelShape shape_of(const PackSpec& s) {
  PanelShape p{};
  p.panel_bytes = s.panel_bytes();
  p.group_bytes = s.group_bytes();
  p.n = static_cast<std::uint32_t>(s.n);
  p.blocks = static_cast<std::uint32_t>(s.k_padded() / kBlock);
  p.blocks_per_group = static_cast<std::uint32_t>(s.group / kBlock);
  p.block_bytes = static_cast<std::uint32_t>(s.block_bytes());
  p.scale_bytes = static_cast<std::uint32_t>(s.scale_bytes());
  p.bits = s.bits;
  p.zero = s.zero;
  p.has_min = s.has_min ? 1 : 0;
  return p;
}

int check(const LinearPackedArgs& a) {
  if (const int status = check_spec(a.spec, a.packed); status != cuda::kOk) return status;
  const std::int64_t blocks = a.spec.k_padded() / kBlock;
  if (a.rows < 0 || a.rows > 65535 * std::int64_t{Policy::kTileRows} || a.rows * blocks > 0x7fffff00) {
    return invalid("x must have 0 to ", 65535 * std::int64_t{Policy::kTileRows},
                   " rows and fewer than 2^36 elements on a CUDA device, got ", a.rows, " rows");
  }
  if (a.rows == 0) return cuda::kOk;
  if (a.x == nullptr || a.y == nullptr) return invalid("x and y must not be null");
  if (a.x_stride < a.spec.k && a.rows > 1) {
    return invalid("x_stride must be >= k, got ", a.x_stride, " (k ", a.spec.k, ")");
  }
  if (a.y_stride < a.spec.n && a.rows > 1) {
    return invalid("y_stride must be >= n, got ", a.y_stride, " (n ", a.spec.n, ")");
  }
  const DType dtype = static_cast<DType>(a.dtype);
  if (dtype != DType::f32 && dtype != DType::bf16 && dtype != DType::f16) {
    return invalid("x must be float32, bfloat16 or float16, got dtype code ", a.dtype);
  }
  const std::int64_t needed = gc_cuda_linear_packed_workspace(&a);
  if (a.workspace_bytes < needed || a.workspace == nullptr || reinterpret_cast<std::uintptr_t>(a.workspace) % 16 != 0) {
    return invalid("workspace must have ", needed, " bytes, aligned to 16, got ", a.workspace_bytes);
  }
  return cuda::kOk;
}

// Values, then sums, then scales.
template <class Rows>
Rows rows_in(void* workspace, std::int64_t rows, std::int64_t blocks) {
  using Value = typename Rows::Value;
  using Sum = typename Rows::Sum;
  Value* const values = static_cast<Value*>(workspace);
  Sum* const sums = reinterpret_cast<Sum*>(values + rows * blocks * kBlock);
  float* const scales = Rows::kScaled ? reinterpret_cast<float*>(sums + rows * blocks) : nullptr;
  return {values, scales, sums, blocks};
}

template <class Rows, int kBits>
int multiply(const LinearPackedLaunch<Rows>& l, cudaStream_t stream) {
  const unsigned panels = static_cast<unsigned>(ceil_div(l.shape.n, kPanelRows));
  if (l.rows == 1) {
    GC_CUDA_LAUNCH((linear_vector_kernel<Rows, kBits, 1>), panels, Policy::kThreads, 0, stream, l);
  } else if (l.rows <= Policy::kVectorRows) {
    GC_CUDA_LAUNCH((linear_vector_kernel<Rows, kBits, Policy::kVectorRows>), panels, Policy::kThreads, 0, stream, l);
  } else {
    const dim3 grid(static_cast<unsigned>(ceil_div(panels, Policy::kTilePanels)),
                    static_cast<unsigned>(ceil_div(l.rows, Policy::kTileRows)));
    GC_CUDA_LAUNCH((linear_tile_kernel<Rows, kBits>), grid, Policy::kThreads, 0, stream, l);
  }
  return cuda::launch_status("linear_packed");
}

template <class Rows>
int run(const LinearPackedArgs& a, cudaStream_t stream) {
  const PanelShape shape = shape_of(a.spec);
  LinearPackedLaunch<Rows> l{};
  l.shape = shape;
  l.x = rows_in<Rows>(a.workspace, a.rows, shape.blocks);
  l.source = a.x;
  l.packed = a.packed;
  l.bias = a.bias;
  l.y = a.y;
  l.source_stride = a.x_stride;
  l.y_stride = a.y_stride;
  l.rows = static_cast<std::uint32_t>(a.rows);
  l.cols = static_cast<std::uint32_t>(a.spec.k);
  l.blocks_per_segment = static_cast<std::uint32_t>(ceil_div(shape.blocks, Policy::kSegments));
  l.dtype = static_cast<DType>(a.dtype);
  const unsigned grid = static_cast<unsigned>(ceil_div(a.rows * shape.blocks, Policy::kPrepareWarps));
  GC_CUDA_LAUNCH((prepare_kernel<Rows>), grid, 32 * Policy::kPrepareWarps, 0, stream, l);
  if (const int status = cuda::launch_status("linear_packed (preparing x)"); status != cuda::kOk) return status;
  switch (a.spec.bits) {
    case 1: return multiply<Rows, 1>(l, stream);
    case 2: return multiply<Rows, 2>(l, stream);
    case 3: return multiply<Rows, 3>(l, stream);
    case 4: return multiply<Rows, 4>(l, stream);
    case 5: return multiply<Rows, 5>(l, stream);
    case 6: return multiply<Rows, 6>(l, stream);
    case 7: return multiply<Rows, 7>(l, stream);
    default: return multiply<Rows, 8>(l, stream);
  }
}

template <int kBits>
int gather(const GatherPackedArgs& a, cudaStream_t stream) {
  GC_CUDA_LAUNCH((gather_kernel<kBits>), static_cast<unsigned>(a.rows), Policy::kThreads, 0, stream, shape_of(a.spec),
                 a.packed, a.ids, a.out, static_cast<std::uint32_t>(a.spec.k));
  return cuda::launch_status("gather_packed");
}

}  // namespace
}  // namespace gramcore::quant

std::int64_t gc_cuda_linear_packed_workspace(const gramcore::quant::LinearPackedArgs* args) {
  const std::int64_t columns = args->spec.k_padded(), blocks = columns / gramcore::quant::kBlock;
  return args->rows * (args->int8_activations != 0 ? columns + 8 * blocks : 4 * columns + 4 * blocks);
}

int gc_cuda_linear_packed(const gramcore::quant::LinearPackedArgs* args, void* stream) {
  using namespace gramcore;
  if (const int status = quant::check(*args); status != cuda::kOk) return status;
  if (args->rows == 0) return cuda::set_status(cuda::kOk, "");
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  return args->int8_activations != 0 ? quant::run<quant::Int8Blocks>(*args, s)
                                     : quant::run<quant::FloatBlocks>(*args, s);
}

int gc_cuda_gather_packed(const gramcore::quant::GatherPackedArgs* args, void* stream) {
  using namespace gramcore;
  if (const int status = quant::check_spec(args->spec, args->packed); status != cuda::kOk) return status;
  if (args->rows < 0 || args->rows > 0x7fffffff) {
    return cuda::invalid("rows must be in [0, 2^31), got ", args->rows);
  }
  if (args->rows == 0) return cuda::set_status(cuda::kOk, "");
  if (args->out == nullptr) return cuda::invalid("out must not be null");
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  switch (args->spec.bits) {
    case 1: return quant::gather<1>(*args, s);
    case 2: return quant::gather<2>(*args, s);
    case 3: return quant::gather<3>(*args, s);
    case 4: return quant::gather<4>(*args, s);
    case 5: return quant::gather<5>(*args, s);
    case 6: return quant::gather<6>(*args, s);
    case 7: return quant::gather<7>(*args, s);
    default: return quant::gather<8>(*args, s);
  }
}
