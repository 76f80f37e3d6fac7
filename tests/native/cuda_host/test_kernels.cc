// Every kernel of the library at odd sizes over exactly sized heap blocks, so that the sanitizers see an overrun or a
// race.  Values are checked in tests/cuda.
#include <cstdint>
#include <string>
#include <vector>

#include "core/cuda/status.h"
#include "core/device.h"
#include "core/dtype.h"
#include "grammar/cuda/apply_bitmask.h"
#include "native/test.h"
#include "optim/cuda/adamw.h"

using gramcore::bf16;
using gramcore::DType;

namespace {

void expect_ok(int status) {
  if (status != 0) throw gramcore::test::Failure{gc_cuda_last_message()};
}

template <class T>
std::int32_t dtype_of() {
  return static_cast<std::int32_t>(gramcore::DTypeOf<T>::value);
}

template <class Word, DType kType>
void run_bitmask(std::int64_t vocab) {
  const std::int64_t rows = 3, words = (vocab + 31) / 32;
  std::vector<Word> logits(static_cast<std::size_t>(rows * vocab));
  std::vector<std::int32_t> bitmask(static_cast<std::size_t>(rows * words), 0x5a5a00ff);
  const gramcore::grammar::ApplyBitmaskArgs args{
      logits.data(), bitmask.data(), nullptr, rows, vocab, vocab, words, static_cast<std::int32_t>(kType)};
  expect_ok(gc_cuda_apply_bitmask(&args, nullptr));
  for (std::int64_t i = 0; i < rows * vocab; ++i) {
    const bool allowed = (0x5a5a00ff >> (i % vocab % 32) & 1) != 0;
    EXPECT_EQ(logits[static_cast<std::size_t>(i)] == 0, allowed);
  }
}

template <class Param, class Grad, class State>
void run_adamw(bool stochastic) {
  const std::size_t sizes[] = {1, 3, 0, 1027, 8193, 16384};
  std::vector<std::vector<Param>> params;
  std::vector<std::vector<Grad>> grads;
  std::vector<std::vector<State>> moments;
  std::vector<gramcore::optim::AdamwTensor> tensors;
  for (const std::size_t n : sizes) {
    params.emplace_back(n);
    grads.emplace_back(n);
    moments.emplace_back(n);
    moments.emplace_back(n);
    tensors.push_back({params.back().data(), grads.back().data(), moments[moments.size() - 2].data(),
                       moments.back().data(), static_cast<std::int64_t>(n)});
  }
  const gramcore::optim::AdamwArgs args{tensors.data(),
                                        static_cast<std::int64_t>(tensors.size()),
                                        1e-3,
                                        0.9,
                                        0.999,
                                        1e-8,
                                        0.1,
                                        1,
                                        7,
                                        dtype_of<Param>(),
                                        dtype_of<Grad>(),
                                        dtype_of<State>(),
                                        0,
                                        stochastic ? 1 : 0};
  expect_ok(gc_cuda_adamw(&args, nullptr));
  for (const auto& p : params) {
    for (const Param x : p) EXPECT_EQ(gramcore::to_f32(x), 0.0f);
  }
}

}  // namespace

GC_TEST(cuda_kernel_apply_bitmask_stays_in_bounds) {
  for (const std::int64_t vocab : {1, 7, 31, 32, 33, 100, 1025, 9001}) {
    run_bitmask<std::uint32_t, DType::f32>(vocab);
    run_bitmask<std::uint16_t, DType::f16>(vocab);
    run_bitmask<std::uint16_t, DType::bf16>(vocab);
  }
}

GC_TEST(cuda_kernel_adamw_stays_in_bounds) {
  for (const bool stochastic : {false, true}) {
    run_adamw<float, float, float>(stochastic);
    run_adamw<bf16, float, float>(stochastic);
    run_adamw<bf16, bf16, bf16>(stochastic);
    run_adamw<float, bf16, bf16>(stochastic);
  }
}

GC_TEST(cuda_status_becomes_a_typed_error) {
  gramcore::cuda::check_status(0);
  gramcore::grammar::ApplyBitmaskArgs args{};
  args.vocab_size = -1;
  const int status = gc_cuda_apply_bitmask(&args, nullptr);
  std::string text;
  EXPECT(gramcore::test::throws<gramcore::InvalidArgument>([&] { gramcore::cuda::check_status(status); }, &text));
  EXPECT_EQ(text, std::string("vocab_size must be in [0, 2^31), got -1"));
  const int failed = gramcore::cuda::set_status(719, "adamw: the device said no");
  EXPECT(gramcore::test::throws<gramcore::CudaError>([&] { gramcore::cuda::check_status(failed); }, &text));
  EXPECT_EQ(text, std::string("adamw: the device said no"));
}

GC_TEST(cuda_device_status_of_the_emulation) {
  EXPECT(gramcore::cuda::compiled());
  EXPECT_EQ(gramcore::cuda::device_count(), 1);
  EXPECT_EQ(gramcore::cuda::status_message(), std::string("1 CUDA device"));
}
