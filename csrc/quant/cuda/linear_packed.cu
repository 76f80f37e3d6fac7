#include "quant/cuda/linear_packed.h"
#include "quant/cuda/panel_launch.h"

namespace gramcore::quant {
namespace {

using Policy = LinearPackedPolicy;

int check(const LinearPackedArgs& a) {
  if (const int status = check_spec(a.spec, a.packed); status != cuda::kOk) return status;
  const std::int64_t blocks = a.spec.k_padded() / kBlock;
  if (a.activation_bits < 0 || a.activation_bits > 8) {
    return cuda::invalid("activation_bits must be in [0, 8], got ", a.activation_bits);
  }
  return check_product(a, {a.spec.n, a.spec.k, blocks, gc_cuda_linear_packed_workspace(&a), Policy::kTileRows});
}

template <class Rows, int kBits>
int multiply(const LinearPackedLaunch<Rows>& l, cudaStream_t stream) {
  const unsigned panels = static_cast<unsigned>(ceil_div(l.shape.n, kPanelRows));
  if (l.product.rows == 1) {
    GC_CUDA_LAUNCH((linear_vector_kernel<Rows, kBits, 1>), panels, Policy::kThreads, 0, stream, l);
  } else if (l.product.rows <= Policy::kVectorRows) {
    GC_CUDA_LAUNCH((linear_vector_kernel<Rows, kBits, Policy::kVectorRows>), panels, Policy::kThreads, 0, stream, l);
  } else {
    const dim3 grid(static_cast<unsigned>(ceil_div(panels, Policy::kTilePanels)),
                    static_cast<unsigned>(ceil_div(l.product.rows, Policy::kTileRows)));
    GC_CUDA_LAUNCH((linear_tile_kernel<Rows, kBits>), grid, Policy::kThreads, 0, stream, l);
  }
  return cuda::launch_status("linear_packed");
}

template <class Rows>
int run(const LinearPackedArgs& a, cudaStream_t stream) {
  LinearPackedLaunch<Rows> l{};
  l.shape = shape_of(a.spec);
  l.packed = a.packed;
  l.product = product_of(a, a.spec.n);
  l.blocks_per_segment = blocks_per_segment(l.shape.blocks);
  const int status = prepare(a, a.workspace, {l.shape.blocks, a.spec.k, a.activation_bits}, nullptr, stream, &l.x);
  if (status != cuda::kOk) return status;
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
  using namespace gramcore::quant;
  const std::int64_t blocks = args->spec.k_padded() / kBlock;
  return args->activation_bits != 0 ? prepared_bytes<Int8Blocks>(args->rows, blocks)
                                    : prepared_bytes<FloatBlocks>(args->rows, blocks);
}

int gc_cuda_linear_packed(const gramcore::quant::LinearPackedArgs* args, void* stream) {
  using namespace gramcore;
  if (const int status = quant::check(*args); status != cuda::kOk) return status;
  if (args->rows == 0) return cuda::set_status(cuda::kOk, "");
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  return args->activation_bits != 0 ? quant::run<quant::Int8Blocks>(*args, s)
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
