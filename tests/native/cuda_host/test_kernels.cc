// Every kernel of the library at odd sizes over exactly sized heap blocks, so that the sanitizers see an overrun or a
// race.  Values are checked in tests/cuda.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <string>
#include <type_traits>
#include <vector>

#include "core/cuda/status.h"
#include "core/device.h"
#include "core/dtype.h"
#include "grammar/cuda/apply_bitmask.h"
#include "kvcache/cuda/kv_compact.h"
#include "kvcache/cuda/tree_attention.h"
#include "native/test.h"
#include "optim/cuda/adamw.h"
#include "optim/cuda/step.h"
#include "optim/engine.h"
#include "quant/cuda/linear_binary.h"
#include "quant/cuda/linear_packed.h"
#include "quant/cuda/linear_table.h"

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

// Matrices in rank-1 storage and a vector between them, without a byte too many.
void run_rank1_step() {
  namespace optim = gramcore::optim;
  const std::int64_t shapes[][2] = {{1, 7}, {257, 0}, {65, 131}, {3, 1029}};
  std::vector<std::vector<float>> floats;
  std::vector<std::vector<std::uint8_t>> codes;
  std::vector<optim::StepCudaTensor> tensors;
  for (const auto& [rows, cols] : shapes) {
    const std::int64_t numel = cols > 0 ? rows * cols : rows, blocks = (numel + 127) / 128;
    const std::int64_t scales = cols > 0 ? rows + cols : blocks;
    optim::StepCudaTensor t{};
    const auto make = [&](std::int64_t n, float value) {
      floats.emplace_back(static_cast<std::size_t>(n), value);
      return floats.back().data();
    };
    t.param = make(numel, 0.0f);
    t.grad = make(numel, 1.0f);
    for (int k = 0; k < 2; ++k) {
      codes.emplace_back(static_cast<std::size_t>((numel + 1) / 2), std::uint8_t{0x77});
      t.moment[k] = codes.back().data();
      t.scales[k] = make(k == 0 ? blocks : scales, 0.0f);
    }
    t.numel = numel;
    t.cols = cols;
    if (cols > 0) t.fresh = make(scales, 5.0f);
    tensors.push_back(t);
  }
  optim::StepCudaArgs args{};
  args.tensors = tensors.data();
  args.num_tensors = static_cast<std::int64_t>(tensors.size());
  const float coefs[] = {1, 0, 0, 0, 1, 0, 1, 1, 1, 0};  // m = g, v = g g: the step is 1
  std::copy(std::begin(coefs), std::end(coefs), args.coefs);
  args.step = 1;
  args.rule = optim::kAdam;
  args.state = static_cast<std::int32_t>(optim::Storage::rank1);
  expect_ok(gc_cuda_optim_step(&args, nullptr));
  for (const optim::StepCudaTensor& t : tensors) {
    for (std::int64_t i = 0; i < t.numel; ++i) EXPECT_EQ(static_cast<const float*>(t.param)[i], -1.0f);
    EXPECT_EQ(t.scales[1][0], 1.0f);
    EXPECT_EQ(static_cast<const std::uint8_t*>(t.moment[1])[0], 0xffu);
  }
}

template <class T>
T one_of() {
  if constexpr (std::is_same_v<T, bf16>) {
    return gramcore::to_bf16(1.0f);
  } else if constexpr (std::is_same_v<T, gramcore::f16>) {
    return gramcore::to_f16(1.0f);
  } else {
    return 1.0f;
  }
}

// Values are all 1, so is every row of the result.
template <class T>
void run_attention(std::int64_t nodes, std::int64_t dim, std::int64_t context, bool tree) {
  namespace kv = gramcore::kvcache;
  const std::int64_t batch = 2, heads = 4, kv_heads = 2, capacity = context + nodes, words = (nodes + 63) / 64;
  const T one = one_of<T>();
  std::vector<T> query(static_cast<std::size_t>(batch * heads * nodes * dim), one), out(query.size());
  std::vector<T> key(static_cast<std::size_t>(batch * kv_heads * capacity * dim), one), value = key;
  const std::vector<std::int64_t> lengths(static_cast<std::size_t>(batch), context), starts = {0, context / 2};
  std::vector<std::uint64_t> ancestors(static_cast<std::size_t>(nodes * words), 0x5555555555555555u);
  kv::TreeAttentionArgs args{};
  kv::AttentionProblem& p = args.problem;
  p.batch = batch, p.heads = heads, p.kv_heads = kv_heads, p.nodes = nodes, p.head_dim = dim, p.capacity = capacity;
  p.query = query.data(), p.key = key.data(), p.value = value.data(), p.out = out.data();
  p.query_batch = heads * nodes * dim, p.query_head = nodes * dim, p.query_node = dim;
  p.key_batch = p.value_batch = kv_heads * capacity * dim;
  p.key_head = p.value_head = capacity * dim;
  p.key_slot = p.value_slot = dim;
  p.query_dtype = p.kv_dtype = gramcore::DTypeOf<T>::value;
  p.lengths = lengths.data(), p.starts = starts.data();
  p.ancestors = tree ? ancestors.data() : nullptr;
  p.words = words;
  std::vector<float> workspace(static_cast<std::size_t>(gc_cuda_tree_attention_workspace(&p)));
  args.workspace = workspace.data();
  args.workspace_floats = static_cast<std::int64_t>(workspace.size());
  expect_ok(gc_cuda_tree_attention(&args, nullptr));
  for (const T x : out) EXPECT(std::abs(gramcore::to_f32(x) - 1.0f) < 1e-2f);
}

void run_compact(std::int64_t element, std::int64_t dim) {
  namespace kv = gramcore::kvcache;
  const std::int64_t batch = 2, heads = 3, capacity = 7, row = dim * element;
  std::vector<char> data(static_cast<std::size_t>(batch * heads * capacity * row));
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i / static_cast<std::size_t>(row) % 7);
  const std::vector<std::int64_t> lengths = {2, 1}, path = {1, 3, 4, 0, 5, -1};
  const kv::KvCompactCache cache{data.data(), heads * capacity * row, capacity * row, row, row, heads, capacity};
  const kv::KvCompactArgs args{&cache, 1, lengths.data(), path.data(), batch, 3};
  expect_ok(gc_cuda_kv_compact(&args, nullptr));
  const char want[2][7] = {{0, 1, 3, 5, 6, 5, 6}, {0, 1, 6, 3, 4, 5, 6}};
  for (std::size_t i = 0; i < data.size(); ++i) {
    const std::size_t slot = i / static_cast<std::size_t>(row);
    EXPECT_EQ(static_cast<int>(data[i]), static_cast<int>(want[slot / 21][slot % 7]));
  }
}

// Runs a product of exactly sized buffers, of a weight whose scales are 0: y is the bias.
template <class Args>
void run_product(Args args, std::int64_t n, std::int64_t k, std::int64_t (*workspace_bytes)(const Args*),
                 int (*launch)(const Args*, void*)) {
  const auto rows = static_cast<std::size_t>(args.rows);
  const std::vector<float> x(rows * static_cast<std::size_t>(k), 2.0f), bias(static_cast<std::size_t>(n), 3.0f);
  std::vector<float> y(rows * static_cast<std::size_t>(n));
  args.x = x.data(), args.bias = bias.data(), args.y = y.data();
  args.x_stride = k, args.y_stride = n;
  args.dtype = dtype_of<float>();
  args.workspace_bytes = workspace_bytes(&args);
  std::vector<char> workspace(static_cast<std::size_t>(args.workspace_bytes));
  args.workspace = workspace.data();
  expect_ok(launch(&args, nullptr));
  for (const float value : y) EXPECT_EQ(value, 3.0f);
}

void run_linear(int bits, std::int64_t rows, std::int64_t n, std::int64_t k, bool has_min, int activation_bits) {
  namespace quant = gramcore::quant;
  quant::PackSpec spec;
  spec.n = n, spec.k = k, spec.bits = bits, spec.zero = 1 << (bits - 1), spec.has_min = has_min;
  spec.group = rows % 2 == 0 ? 64 : 32;
  const std::vector<std::uint8_t> packed(static_cast<std::size_t>(spec.packed_bytes()));
  quant::LinearPackedArgs args{};
  args.packed = packed.data();
  args.rows = rows, args.spec = spec;
  args.activation_bits = activation_bits;
  run_product(args, n, k, gc_cuda_linear_packed_workspace, gc_cuda_linear_packed);

  std::vector<float> out(static_cast<std::size_t>(n * k), 5.0f);
  const quant::GatherPackedArgs gather{packed.data(), nullptr, out.data(), n, spec};
  expect_ok(gc_cuda_gather_packed(&gather, nullptr));
  for (const float value : out) EXPECT_EQ(value, 0.0f);
}

void run_table(int bits, std::int64_t rows, std::int64_t n, std::int64_t k, bool halves) {
  namespace quant = gramcore::quant;
  quant::PackSpec spec;
  spec.n = n, spec.k = k, spec.bits = bits, spec.zero = 1 << (bits - 1), spec.has_min = halves;
  spec.group = halves ? 32 : 64;
  const std::vector<std::uint8_t> packed(static_cast<std::size_t>(spec.packed_bytes()));
  const std::vector<float> values(std::size_t{1} << bits, 5.0f);
  quant::LinearTableArgs args{};
  args.packed = packed.data(), args.values = values.data();
  args.rows = rows, args.spec = spec;
  run_product(args, n, k, gc_cuda_linear_table_workspace, gc_cuda_linear_table);

  std::vector<float> out(static_cast<std::size_t>(n * k), 5.0f);
  const quant::DequantizeTableArgs all{packed.data(), values.data(), out.data(), spec};
  expect_ok(gc_cuda_dequantize_table(&all, nullptr));
  for (const float value : out) EXPECT_EQ(value, 0.0f);
}

void run_binary(std::int64_t rows, std::int64_t n, std::int64_t blocks, bool int8) {
  namespace quant = gramcore::quant;
  quant::PackSpec plain, salient;
  plain.n = n, plain.k = 96 * blocks, plain.bits = 1, plain.zero = 1, plain.group = 96;
  salient = plain;
  salient.k = 32 * blocks, salient.group = 32;
  const std::int64_t second = salient.packed_bytes();
  salient.has_min = true;
  const std::vector<std::uint8_t> planes(
      static_cast<std::size_t>(salient.packed_bytes() + second + 2 * plain.packed_bytes()));
  std::vector<std::int32_t> order(static_cast<std::size_t>(128 * blocks));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int32_t>(order.size() - i) - 2;
  quant::LinearBinaryArgs args{};
  args.planes = planes.data(), args.order = order.data();
  args.rows = rows, args.k = 128 * blocks - 1;
  args.salient = salient, args.plain = plain;
  args.int8_activations = int8 ? 1 : 0;
  run_product(args, n, args.k, gc_cuda_linear_binary_workspace, gc_cuda_linear_binary);
}

}  // namespace

GC_TEST(cuda_kernel_linear_table_stays_in_bounds) {
  for (const int bits : {2, 3, 5, 6, 8}) {
    run_table(bits, 1, 1, 1, false);
    run_table(bits, 4, 17, 33, true);
    run_table(bits, 9, 34, 161, bits == 3);
  }
}

GC_TEST(cuda_kernel_linear_binary_stays_in_bounds) {
  for (const bool int8 : {false, true}) {
    run_binary(1, 1, 1, int8);
    run_binary(9, 18, 17, int8);
  }
}

GC_TEST(cuda_kernel_linear_packed_stays_in_bounds) {
  for (const int bits : {2, 3, 4, 8}) {
    for (const int activation_bits : {0, 1, 3, 8}) {
      run_linear(bits, 1, 1, 1, false, activation_bits);
      run_linear(bits, 4, 17, 33, true, activation_bits);
      run_linear(bits, 9, 66, 161, bits == 3, activation_bits);
    }
  }
}

GC_TEST(cuda_kernel_tree_attention_stays_in_bounds) {
  for (const bool tree : {false, true}) {
    run_attention<float>(1, 1, 0, tree);
    run_attention<float>(3, 33, 40, tree);
    run_attention<bf16>(5, 65, 64, tree);
    run_attention<gramcore::f16>(67, 130, 5, tree);
    run_attention<float>(2, 4, 1030, tree);
  }
}

GC_TEST(cuda_kernel_kv_compact_stays_in_bounds) {
  for (const std::int64_t dim : {1, 5, 8, 64}) {
    run_compact(2, dim);
    run_compact(4, dim);
  }
}

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

GC_TEST(cuda_kernel_rank1_step_stays_in_bounds) {
  run_rank1_step();
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
