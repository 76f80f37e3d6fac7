#include "quant/cuda/linear_binary.cuh"
#include "quant/cuda/linear_binary.h"
#include "quant/cuda/panel_launch.h"

namespace gramcore::quant {
namespace {

using Policy = LinearPackedPolicy;

std::int64_t blocks_of(const PackSpec& s) {
  return s.k_padded() / kBlock;
}

// Workspace of the salient part's rows, so that the plain part's are aligned.
template <class Rows>
std::int64_t salient_bytes(const LinearBinaryArgs& a) {
  return ceil_div(prepared_bytes<Rows>(a.rows, blocks_of(a.salient)), 16) * 16;
}

template <class Rows>
std::int64_t workspace_of(const LinearBinaryArgs& a) {
  return salient_bytes<Rows>(a) + prepared_bytes<Rows>(a.rows, blocks_of(a.plain));
}

PackSpec second_plane(PackSpec s) {
  s.has_min = false;
  return s;
}

int check(const LinearBinaryArgs& a) {
  for (const PackSpec* s : {&a.salient, &a.plain}) {
    if (const int status = check_spec(*s, a.planes); status != cuda::kOk) return status;
    if (s->bits != 1 || s->n != a.salient.n || s->k % s->group != 0) {
      return cuda::invalid("planes must be one-bit weights of one number of rows and whole groups, got ", s->bits,
                           " bits, ", s->n, " rows and ", s->k, " columns");
    }
  }
  if (a.plain.has_min) return cuda::invalid("plain columns must have no minima");
  if (a.k < 1 || a.k > 0x7fffff00) return cuda::invalid("x must have 1 to 2^31 - 256 columns, got ", a.k);
  if (a.order == nullptr) return cuda::invalid("order must not be null");
  const std::int64_t blocks = blocks_of(a.salient) + blocks_of(a.plain);
  return check_product(a, {a.salient.n, a.k, blocks, gc_cuda_linear_binary_workspace(&a), Policy::kVectorRows});
}

template <class Rows>
typename LinearBinaryLaunch<Rows>::Part part_of(const PackSpec& s, const std::uint8_t* planes) {
  typename LinearBinaryLaunch<Rows>::Part part{};
  part.first = shape_of(s);
  part.second = shape_of(second_plane(s));
  part.first_plane = planes;
  part.second_plane = planes + s.packed_bytes();
  part.blocks_per_segment = blocks_per_segment(part.first.blocks);
  return part;
}

template <class Rows>
int run(const LinearBinaryArgs& a, cudaStream_t stream) {
  const std::int64_t salient_planes = a.salient.packed_bytes() + second_plane(a.salient).packed_bytes();
  LinearBinaryLaunch<Rows> l{};
  l.salient = part_of<Rows>(a.salient, a.planes);
  l.plain = part_of<Rows>(a.plain, a.planes + salient_planes);
  l.product = product_of(a, a.salient.n);
  if (const int status = prepare(a, a.workspace, {blocks_of(a.salient), a.k}, a.order, stream, &l.salient.x);
      status != cuda::kOk) {
    return status;
  }
  void* const behind = static_cast<char*>(a.workspace) + salient_bytes<Rows>(a);
  if (const int status = prepare(a, behind, {blocks_of(a.plain), a.k}, a.order + a.salient.k, stream, &l.plain.x);
      status != cuda::kOk) {
    return status;
  }
  const unsigned panels = static_cast<unsigned>(a.salient.panels());
  if (a.rows == 1) {
    GC_CUDA_LAUNCH((linear_binary_kernel<Rows, 1>), panels, Policy::kThreads, 0, stream, l);
  } else {
    const dim3 grid(panels, static_cast<unsigned>(ceil_div(a.rows, Policy::kVectorRows)));
    GC_CUDA_LAUNCH((linear_binary_kernel<Rows, Policy::kVectorRows>), grid, Policy::kThreads, 0, stream, l);
  }
  return cuda::launch_status("linear_binary");
}

}  // namespace
}  // namespace gramcore::quant

std::int64_t gc_cuda_linear_binary_workspace(const gramcore::quant::LinearBinaryArgs* args) {
  using namespace gramcore::quant;
  return args->int8_activations != 0 ? workspace_of<Int8Blocks>(*args) : workspace_of<FloatBlocks>(*args);
}

int gc_cuda_linear_binary(const gramcore::quant::LinearBinaryArgs* args, void* stream) {
  using namespace gramcore;
  if (const int status = quant::check(*args); status != cuda::kOk) return status;
  if (args->rows == 0) return cuda::set_status(cuda::kOk, "");
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  return args->int8_activations != 0 ? quant::run<quant::Int8Blocks>(*args, s)
                                     : quant::run<quant::FloatBlocks>(*args, s);
}
