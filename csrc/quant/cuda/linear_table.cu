#include "quant/cuda/linear_table.cuh"
#include "quant/cuda/linear_table.h"
#include "quant/cuda/panel_launch.h"

namespace gramcore::quant {
namespace {

using Policy = LinearPackedPolicy;

int check_table(const PackSpec& s, const std::uint8_t* packed, const float* values) {
  if (const int status = check_spec(s, packed); status != cuda::kOk) return status;
  if (s.bits < 2) return cuda::invalid("bits of table codes must be in [2, 8], got ", s.bits);
  if (s.has_min && s.group != kBlock) {
    return cuda::invalid("groups with two scales must have 32 columns, got ", s.group);
  }
  return values == nullptr ? cuda::invalid("values must not be null") : cuda::kOk;
}

ValuesOf values_of(const PackSpec& s, const float* values) {
  ValuesOf table{};
  for (int i = 0; i < 1 << s.bits; ++i) table.values[i] = values[i];
  return table;
}

template <int kBits, bool kHalves>
int multiply(const LinearTableLaunch& l, cudaStream_t stream) {
  const unsigned panels = static_cast<unsigned>(ceil_div(l.shape.n, kPanelRows));
  if (l.product.rows == 1) {
    GC_CUDA_LAUNCH((linear_table_kernel<kBits, kHalves, 1>), panels, Policy::kThreads, 0, stream, l);
  } else {
    const dim3 grid(panels, static_cast<unsigned>(ceil_div(l.product.rows, Policy::kVectorRows)));
    GC_CUDA_LAUNCH((linear_table_kernel<kBits, kHalves, Policy::kVectorRows>), grid, Policy::kThreads, 0, stream, l);
  }
  return cuda::launch_status("linear_table");
}

template <int kBits>
int multiply(const LinearTableLaunch& l, cudaStream_t stream) {
  return l.shape.has_min != 0 ? multiply<kBits, true>(l, stream) : multiply<kBits, false>(l, stream);
}

template <int kBits>
int write_values(const DequantizeTableArgs& a, cudaStream_t stream) {
  GC_CUDA_LAUNCH((dequantize_table_kernel<kBits>), static_cast<unsigned>(a.spec.n), Policy::kThreads, 0, stream,
                 shape_of(a.spec), a.packed, a.out, static_cast<std::uint32_t>(a.spec.k), values_of(a.spec, a.values));
  return cuda::launch_status("dequantize_table");
}

int run(const LinearTableArgs& a, cudaStream_t stream) {
  LinearTableLaunch l{};
  l.shape = shape_of(a.spec);
  l.packed = a.packed;
  l.product = product_of(a, a.spec.n);
  l.blocks_per_segment = blocks_per_segment(l.shape.blocks);
  l.table = values_of(a.spec, a.values);
  const int status = prepare(a, a.workspace, {l.shape.blocks, a.spec.k}, nullptr, stream, &l.x);
  if (status != cuda::kOk) return status;
  switch (a.spec.bits) {
    case 2: return multiply<2>(l, stream);
    case 3: return multiply<3>(l, stream);
    case 4: return multiply<4>(l, stream);
    case 5: return multiply<5>(l, stream);
    case 6: return multiply<6>(l, stream);
    case 7: return multiply<7>(l, stream);
    default: return multiply<8>(l, stream);
  }
}

}  // namespace
}  // namespace gramcore::quant

std::int64_t gc_cuda_linear_table_workspace(const gramcore::quant::LinearTableArgs* args) {
  using namespace gramcore::quant;
  return prepared_bytes<FloatBlocks>(args->rows, args->spec.k_padded() / kBlock);
}

int gc_cuda_linear_table(const gramcore::quant::LinearTableArgs* args, void* stream) {
  using namespace gramcore;
  const quant::LinearTableArgs& a = *args;
  if (const int status = quant::check_table(a.spec, a.packed, a.values); status != cuda::kOk) return status;
  const std::int64_t blocks = a.spec.k_padded() / quant::kBlock, needed = gc_cuda_linear_table_workspace(args);
  const quant::ProductSize size{a.spec.n, a.spec.k, blocks, needed, quant::Policy::kVectorRows};
  if (const int status = quant::check_product(a, size); status != cuda::kOk) return status;
  if (a.rows == 0) return cuda::set_status(cuda::kOk, "");
  return quant::run(a, static_cast<cudaStream_t>(stream));
}

int gc_cuda_dequantize_table(const gramcore::quant::DequantizeTableArgs* args, void* stream) {
  using namespace gramcore;
  const quant::DequantizeTableArgs& a = *args;
  if (const int status = quant::check_table(a.spec, a.packed, a.values); status != cuda::kOk) return status;
  if (a.out == nullptr) return cuda::invalid("out must not be null");
  const cudaStream_t s = static_cast<cudaStream_t>(stream);
  switch (a.spec.bits) {
    case 2: return quant::write_values<2>(a, s);
    case 3: return quant::write_values<3>(a, s);
    case 4: return quant::write_values<4>(a, s);
    case 5: return quant::write_values<5>(a, s);
    case 6: return quant::write_values<6>(a, s);
    case 7: return quant::write_values<7>(a, s);
    default: return quant::write_values<8>(a, s);
  }
}
