// Intrinsics, 16-bit floats and PTX twins against plain arithmetic.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/cuda/ptx.cuh"
#include "core/rng.h"
#include "native/cuda_host/launch_test.h"

__global__ void convert_kernel(const float* in, std::uint16_t* half_out, std::uint16_t* bfloat_out, int n) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  half_out[i] = __half_as_ushort(__float2half_rn(in[i]));
  bfloat_out[i] = __bfloat16_as_ushort(__float2bfloat16_rn(in[i]));
}

// One warp multiplies A (16, 16) by B (16, 8) given row-major, and adds C.
template <class Half, bool kBfloat>
__global__ void mma_kernel(const Half* a, const Half* b, const float* c, float* d) {
  const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
  const auto pair = [](Half low, Half high) { return std::uint32_t{low.bits} | std::uint32_t{high.bits} << 16; };
  std::uint32_t fa[4], fb[2];
  float fc[4], fd[4];
  for (int i = 0; i < 4; ++i) {
    const int row = g + 8 * (i % 2), column = 2 * t + 8 * (i / 2);
    fa[i] = pair(a[row * 16 + column], a[row * 16 + column + 1]);
    fc[i] = c[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2];
  }
  for (int i = 0; i < 2; ++i) fb[i] = pair(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
  if (kBfloat) {
    gramcore::cuda::ptx::mma_m16n8k16_bf16(fd, fa, fb, fc);
  } else {
    gramcore::cuda::ptx::mma_m16n8k16_f16(fd, fa, fb, fc);
  }
  for (int i = 0; i < 4; ++i) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = fd[i];
}

// Named, so that nvcc assembles both instructions although only the emulation launches them.
template __global__ void mma_kernel<gramcore::bf16, true>(const gramcore::bf16*, const gramcore::bf16*, const float*,
                                                          float*);
template __global__ void mma_kernel<gramcore::f16, false>(const gramcore::f16*, const gramcore::f16*, const float*,
                                                          float*);

// Loads A (16, 16) row-major and B (16, 8) row-major from shared memory as the fragments of one mma.
__global__ void ldmatrix_kernel(const std::uint16_t* a, const std::uint16_t* b, std::uint32_t* out) {
  __shared__ __align__(16) std::uint16_t tile[16 * 16 + 16 * 8];
  const int lane = static_cast<int>(threadIdx.x);
  for (int i = lane; i < 256; i += 32) tile[i] = a[i];
  for (int i = lane; i < 128; i += 32) tile[256 + i] = b[i];
  __syncthreads();
  std::uint32_t fa[4], fb[4];
  // Matrices 0..3 of A: rows 0-7 and 8-15 of columns 0-7, then of columns 8-15.
  gramcore::cuda::ptx::ldmatrix_x4<false>(fa, tile + lane % 16 * 16 + lane / 16 * 8);
  gramcore::cuda::ptx::ldmatrix_x4<true>(fb, tile + 256 + lane % 16 * 8);  // rows 0-7, 8-15, and both again
  for (int i = 0; i < 4; ++i) out[lane * 6 + i] = fa[i];
  for (int i = 0; i < 2; ++i) out[lane * 6 + 4 + i] = fb[i];
}

#if !defined(__CUDACC__)  // passes host memory

namespace {

using gramcore::philox4x32;
using gramcore::test::expect_success;

// Nearest even by exhaustive search over neighbours, in double: the obvious twin of the conversions.
template <class Scalar>
std::uint16_t nearest_bits(double x, double (*value)(std::uint16_t), std::uint16_t infinity) {
  const std::uint16_t sign = std::signbit(x) ? 0x8000u : 0u;
  std::uint16_t low = 0, high = infinity;
  while (high - low > 1) {
    const std::uint16_t middle = static_cast<std::uint16_t>((low + high) / 2);
    (value(middle) <= std::fabs(x) ? low : high) = middle;
  }
  // The step past the largest finite value is as wide as the last one, for the rounding to infinity.
  const double below = value(low);
  const double above = high == infinity ? 2 * below - value(static_cast<std::uint16_t>(low - 1)) : value(high);
  const double down = std::fabs(x) - below, up = above - std::fabs(x);
  const bool take_low = down < up || (down == up && low % 2 == 0);
  return static_cast<std::uint16_t>(sign | (take_low ? low : high));
}

double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, fraction = bits & 1023;
  return exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
}
double bfloat_value(std::uint16_t bits) {
  const int exponent = bits >> 7 & 255, fraction = bits & 127;
  return exponent == 0 ? std::ldexp(fraction, -133) : std::ldexp(128 + fraction, exponent - 134);
}

float float_of(std::uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

}  // namespace

GC_TEST(cuda_host_conversions_round_to_nearest_even) {
  std::vector<float> in = {0.0f,     -0.0f,         1.0f,          65504.0f,       65519.9f,
                           65520.0f, 5.9604645e-8f, 2.9802322e-8f, 2.98023224e-8f, 6.097555e-5f,
                           1e-40f,   3.3895314e38f, 3.4e38f,       1.00390625f,    1.01171875f};
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const auto r = philox4x32(1, i);
    in.push_back(float_of((r.v[0] & 0x807fffffu) | (102 + r.v[1] % 50) << 23));  // around half's range
    const float any = float_of(r.v[2]);
    if (std::isfinite(any)) in.push_back(any);
    in.push_back(float_of((r.v[3] & 0xbfffffffu & ~0x1fffu) | 0x1000u));  // ties
  }
  const int n = static_cast<int>(in.size());
  std::vector<std::uint16_t> half_out(n), bfloat_out(n);
  GC_CUDA_LAUNCH(convert_kernel, (n + 255) / 256, 256, 0, nullptr, in.data(), half_out.data(), bfloat_out.data(), n);
  expect_success();
  for (int i = 0; i < n; ++i) {
    EXPECT_EQ(half_out[i], nearest_bits<__half>(in[i], half_value, 0x7c00));
    EXPECT_EQ(bfloat_out[i], nearest_bits<__nv_bfloat16>(in[i], bfloat_value, 0x7f80));
  }
}

GC_TEST(cuda_host_half_arithmetic_rounds_once) {
  for (std::uint32_t i = 0; i < 4000; ++i) {
    const auto r = philox4x32(2, i);
    const auto pick = [](std::uint32_t w) {
      return __ushort_as_half(static_cast<unsigned short>((w & 0x83ffu) | (10 + w % 10) << 10));
    };
    const __half a = pick(r.v[0]), b = pick(r.v[1]), c = pick(r.v[2]);
    const double x = float(a), y = float(b), z = float(c);
    EXPECT_EQ(__half_as_ushort(__hfma(a, b, c)), nearest_bits<__half>(x * y + z, half_value, 0x7c00));
    EXPECT_EQ(__half_as_ushort(__hadd(a, c)), nearest_bits<__half>(x + z, half_value, 0x7c00));
    EXPECT_EQ(__half_as_ushort(__hmul(a, b)), nearest_bits<__half>(x * y, half_value, 0x7c00));
  }
  // x * y + z lies just above a tie: rounding the sum to float first would lose that and round down to even.
  const __half big = __half(2048.0f), one = __half(1.0f), tiny = __ushort_as_half(1);
  EXPECT_EQ(float(__hfma(tiny, one, __half(1.0f))), 1.0f);
  EXPECT_EQ(float(__hfma(big, __half(1.0009765625f), tiny)), 2050.0f);
  EXPECT_EQ(float(__hfma(__half(1.0f + 0x1p-10f), __half(1.0f + 0x1p-10f), tiny)), 1.0f + 0x1p-9f);
}

GC_TEST(cuda_host_integer_intrinsics) {
  EXPECT_EQ(__popc(0xf0f0u), 8);
  EXPECT_EQ(__clz(1), 31);
  EXPECT_EQ(__clz(0), 32);
  EXPECT_EQ(__ffs(0), 0);
  EXPECT_EQ(__ffs(8), 4);
  EXPECT_EQ(__brev(1u), 0x80000000u);
  EXPECT_EQ(__byte_perm(0x33221100u, 0x77665544u, 0x7250u), 0x77225500u);
  EXPECT_EQ(__byte_perm(0x80007f00u, 0u, 0xb9bau), 0xff00ff00u);  // signs of bytes 3, 1, 3, 2
  EXPECT_EQ(__funnelshift_l(0x80000000u, 1u, 1), 3u);
  EXPECT_EQ(__funnelshift_r(2u, 1u, 1), 0x80000001u);
  EXPECT_EQ(__umulhi(0x80000000u, 6u), 3u);
  // (-1, 2, -128, 127) . (1, 3, -128, 127) + 10
  EXPECT_EQ(__dp4a(static_cast<int>(0x7f8002ffu), static_cast<int>(0x7f800301u), 10), -1 + 6 + 16384 + 16129 + 10);
  EXPECT_EQ(__dp4a(0xff000002u, 0xff000003u, 1u), 65025u + 6u + 1u);
  EXPECT_EQ(__float_as_uint(1.0f), 0x3f800000u);
}

template <class Half, bool kBfloat>
void check_mma(Half (*round)(float)) {
  Half a[256], b[128];
  float c[128], d[128];
  for (std::uint32_t i = 0; i < 256; ++i) {
    const auto r = philox4x32(3, i);
    a[i] = round(gramcore::uniform_f32(r.v[0]) - 0.5f);
    if (i < 128) b[i] = round(gramcore::uniform_f32(r.v[1]) - 0.5f);
    if (i < 128) c[i] = gramcore::uniform_f32(r.v[2]) - 0.5f;
  }
  GC_CUDA_LAUNCH((mma_kernel<Half, kBfloat>), 1, 32, 0, nullptr, a, b, c, d);
  expect_success();
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 8; ++column) {
      double sum = c[row * 8 + column];
      for (int k = 0; k < 16; ++k) sum += double{to_f32(a[row * 16 + k])} * double{to_f32(b[k * 8 + column])};
      EXPECT(std::fabs(d[row * 8 + column] - sum) <= 0x1p-24 * 8);  // half an ulp at magnitude below 8
    }
  }
}

GC_TEST(cuda_host_mma_m16n8k16) {
  check_mma<gramcore::bf16, true>([](float x) { return gramcore::to_bf16(x); });
  check_mma<gramcore::f16, false>([](float x) { return gramcore::to_f16(x); });
}

GC_TEST(cuda_host_ldmatrix_gives_the_fragments_of_mma) {
  std::uint16_t a[256], b[128];
  std::uint32_t out[32 * 6];
  for (int i = 0; i < 256; ++i) a[i] = static_cast<std::uint16_t>(i);
  for (int i = 0; i < 128; ++i) b[i] = static_cast<std::uint16_t>(1000 + i);
  GC_CUDA_LAUNCH(ldmatrix_kernel, 1, 32, 0, nullptr, a, b, out);
  expect_success();
  const auto pair = [](int low, int high) { return static_cast<std::uint32_t>(low | high << 16); };
  for (int lane = 0; lane < 32; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int first = (g + 8 * (i % 2)) * 16 + 2 * t + 8 * (i / 2);
      EXPECT_EQ(out[lane * 6 + i], pair(first, first + 1));
    }
    for (int i = 0; i < 2; ++i) {
      const int first = 1000 + (2 * t + 8 * i) * 8 + g;
      EXPECT_EQ(out[lane * 6 + 4 + i], pair(first, first + 8));
    }
  }
}

#endif
