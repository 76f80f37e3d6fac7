#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "core/cpu.h"
#include "core/thread_pool.h"
#include "native/test.h"
#include "optim/engine.h"
#include "optim/product.h"
#include "optim/rounding.h"

using namespace gramcore;
using namespace gramcore::optim;

namespace {

struct Arrays {
  std::vector<float> p, g, m, v;
  explicit Arrays(std::size_t n) : p(n), g(n), m(n), v(n) {
    Rng rng(n + 1);
    for (std::size_t i = 0; i < n; ++i) {
      p[i] = static_cast<float>(rng.next_uniform()) - 0.5f;
      g[i] = static_cast<float>(rng.next_uniform()) - 0.5f;
    }
  }
  StepTensor tensor(std::uint32_t id) {
    StepTensor t;
    t.param = p.data();
    t.grad = g.data();
    t.param_storage = t.grad_storage = Storage::f32;
    t.slot[0] = {m.data(), Storage::f32};
    t.slot[1] = {v.data(), Storage::f32};
    t.numel = static_cast<std::int64_t>(p.size());
    t.id = id;
    return t;
  }
};

Hyper adamw_hyper() {
  Hyper h;
  h.lr = 0.01;
  h.beta1 = 0.9;
  h.beta2 = 0.999;
  h.eps = 1e-8;
  h.weight_decay = 0.1;
  return h;
}

}  // namespace

GC_TEST(optim_adam_step_follows_its_formula_at_every_level) {
  const CpuLevel before = current_cpu_level();
  for (const CpuLevel level : supported_cpu_levels()) {
    set_cpu_level(level);
    for (const std::size_t n : {0u, 1u, 5u, 16u, 33u, 1024u, 32769u, 70001u}) {
      Arrays a(n), old(n);
      std::vector<StepTensor> tensors{a.tensor(0)};
      const Hyper h = adamw_hyper();
      rule_coefs(kAdam, h, 1, tensors[0].c);
      run_step(tensors, StepOptions{});
      for (std::size_t i = 0; i < n; ++i) {
        const double g = old.g[i], m = 0.1 * g, v = 0.001 * g * g;
        const double want = old.p[i] * (1 - 0.001) - 0.01 * (m / 0.1) / (std::sqrt(v / 0.001) + 1e-8);
        EXPECT(std::fabs(a.p[i] - want) < 1e-6);
        EXPECT(std::fabs(a.m[i] - m) < 1e-8 && std::fabs(a.v[i] - v) < 1e-9);
      }
    }
  }
  set_cpu_level(before);
}

GC_TEST(optim_many_small_tensors_and_zeroed_gradients) {
  set_num_threads(3);
  std::vector<Arrays> arrays;
  for (std::size_t n = 1; n < 400; ++n) arrays.emplace_back(n);
  std::vector<StepTensor> tensors;
  for (std::size_t i = 0; i < arrays.size(); ++i) {
    tensors.push_back(arrays[i].tensor(static_cast<std::uint32_t>(i)));
    rule_coefs(kAdam, adamw_hyper(), 1, tensors[i].c);
  }
  StepOptions options;
  options.zero_grad = true;
  run_step(tensors, options);
  for (std::size_t k = 0; k < arrays.size(); ++k) {
    const Arrays old(k + 1);
    for (std::size_t i = 0; i <= k; ++i) {
      EXPECT(arrays[k].p[i] != old.p[i]);
      EXPECT_EQ(arrays[k].g[i], 0.0f);
    }
  }
  set_num_threads(0);
}

GC_TEST(optim_bf16_stores_round_with_the_shared_bits) {
  const CpuLevel before = current_cpu_level();
  for (const CpuLevel level : supported_cpu_levels()) {
    set_cpu_level(level);
    const std::size_t n = 300;
    std::vector<bf16> p(n), g(n);
    for (std::size_t i = 0; i < n; ++i) p[i] = to_bf16(1.0f + static_cast<float>(i) * 0.01f), g[i] = to_bf16(1.0f);
    StepTensor t;
    t.param = p.data();
    t.grad = g.data();
    t.param_storage = t.grad_storage = Storage::bf16;
    t.numel = static_cast<std::int64_t>(n);
    t.id = 4;
    t.step = 9;
    Hyper h;
    h.lr = 0x1p-9;  // exact in fp32, so every level computes the same sum
    rule_coefs(kSgd, h, 9, t.c);
    std::vector<StepTensor> tensors{t};
    StepOptions options;
    options.rule = kSgd;
    options.stochastic = true;
    options.seed = 77;
    run_step(tensors, options);
    for (std::size_t i = 0; i < n; ++i) {
      const float old = to_f32(to_bf16(1.0f + static_cast<float>(i) * 0.01f));
      const std::uint32_t word = rounding_word(rounding_key(77, 9, 4, i), i);
      EXPECT_EQ(p[i].bits, to_bf16_stochastic(old - 0x1p-9f, rounding_bits(word, 0)).bits);
    }
  }
  set_cpu_level(before);
}

GC_TEST(optim_sum_of_squares_sees_what_is_not_finite) {
  for (const std::size_t n : {1u, 300u, 5000u, 40000u}) {
    Arrays a(n);
    a.g[n / 2] = 3e30f;
    std::vector<StepTensor> tensors{a.tensor(0)};
    EXPECT(std::fabs(sum_squares(Span<const StepTensor>(tensors)) / 9e60 - 1) < 1e-6);
    a.g[n - 1] = std::numeric_limits<float>::quiet_NaN();
    EXPECT(!std::isfinite(sum_squares(Span<const StepTensor>(tensors))));
    a.g[n - 1] = std::numeric_limits<float>::infinity();
    EXPECT(!std::isfinite(sum_squares(Span<const StepTensor>(tensors))));
  }
}

GC_TEST(optim_rules_are_found_by_name) {
  EXPECT_EQ(static_cast<int>(parse_rule("lion")), static_cast<int>(kLion));
  EXPECT(test::throws<InvalidArgument>([] { parse_rule("adamax"); }));
}

GC_TEST(optim_products_are_sums_of_products_at_every_level) {
  const CpuLevel before = current_cpu_level();
  const std::int64_t shapes[][3] = {{1, 1, 1}, {13, 7, 5}, {60, 33, 300}, {200, 300, 9}};
  for (const CpuLevel level : supported_cpu_levels()) {
    set_cpu_level(level);
    for (const auto& [rows, inner, columns] : shapes) {
      for (int layout = 0; layout < 4; ++layout) {
        Arrays left(static_cast<std::size_t>(rows * inner)), right(static_cast<std::size_t>(inner * columns));
        const bool by_row = layout % 2 == 0, by_column = layout / 2 == 0;
        const Factor a{left.p.data(), Storage::f32, rows, inner, by_row ? inner : 1, by_row ? 1 : rows};
        const Factor b{right.g.data(), Storage::f32, inner, columns, by_column ? 1 : columns, by_column ? inner : 1};
        std::vector<float> result(static_cast<std::size_t>(rows * columns), 7.0f);
        const PackedFactor packed(b, false);
        Product(a, packed).store(result.data());
        double worst = 0;
        for (std::int64_t i = 0; i < rows; ++i) {
          for (std::int64_t j = 0; j < columns; ++j) {
            double want = 0;
            for (std::int64_t k = 0; k < inner; ++k) {
              want += static_cast<double>(left.p[static_cast<std::size_t>(i * a.row_stride + k * a.column_stride)]) *
                      static_cast<double>(right.g[static_cast<std::size_t>(k * b.row_stride + j * b.column_stride)]);
            }
            worst = std::fmax(worst,
                              std::fabs(want - static_cast<double>(result[static_cast<std::size_t>(i * columns + j)])));
          }
        }
        EXPECT(worst < 2e-5);
      }
    }
  }
  set_cpu_level(before);
}
