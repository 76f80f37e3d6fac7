#include <cmath>
#include <vector>

#include "core/cpu.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "native/test.h"
#include "quant/binary.h"
#include "quant/linear.h"
#include "quant/table.h"

using namespace gramcore;
using namespace gramcore::quant;

namespace {

// Uniform numbers in [-1, 1) from the counter-based generator.
std::vector<float> uniform(std::size_t n, std::uint64_t seed) {
  std::vector<float> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    out[i] = static_cast<float>(philox4x32(seed, i, 0).v[0]) * (2.0f / 4294967296.0f) - 1.0f;
  }
  return out;
}

struct Problem {
  PackSpec spec;
  std::vector<std::uint8_t> codes, packed;
  std::vector<float> scales, mins;

  Problem(std::int64_t n, std::int64_t k, int bits, std::int64_t group, bool has_min, ScaleType scale) {
    spec.n = n;
    spec.k = k;
    spec.bits = bits;
    spec.group = group;
    spec.zero = bits == 1 ? 1 : bits == 8 ? 128 : (has_min ? 0 : 1 << (bits - 1));
    spec.has_min = has_min;
    spec.scale = scale;
    codes.resize(static_cast<std::size_t>(n * k));
    for (std::size_t i = 0; i < codes.size(); ++i) {
      codes[i] = static_cast<std::uint8_t>(philox4x32(1, i, 0).v[0] & ((1u << bits) - 1u));
    }
    scales = uniform(static_cast<std::size_t>(n * spec.groups()), 2);
    if (has_min) mins = uniform(scales.size(), 3);
    for (auto* values : {&scales, &mins}) {
      for (float& v : *values) v = scale == ScaleType::f16 ? to_f32(to_f16(v)) : v;
    }
    packed.resize(static_cast<std::size_t>(spec.packed_bytes()));
    pack(spec, codes, {scales, mins}, packed);
  }
};

}  // namespace

GC_TEST(quant_pack_round_trip) {
  for (int bits = 1; bits <= 8; ++bits) {
    for (bool has_min : {false, true}) {
      const Problem p(21, 77, bits, 32, has_min, has_min ? ScaleType::f32 : ScaleType::f16);
      std::vector<std::uint8_t> codes(p.codes.size());
      std::vector<float> scales(p.scales.size()), mins(p.mins.size()), values(p.codes.size());
      unpack(p.spec, p.packed, codes, scales, mins);
      EXPECT(codes == p.codes && scales == p.scales && mins == p.mins);
      dequantize(p.spec, p.packed, values);
      const int code = (bits == 1 ? 2 : 1) * p.codes[3 * 77 + 76];
      const float expected = p.scales[3 * 3 + 2] * static_cast<float>(code - p.spec.zero);
      EXPECT_EQ(values[3 * 77 + 76], has_min ? expected + p.mins[3 * 3 + 2] : expected);
    }
  }
}

GC_TEST(quant_linear_levels_agree_and_rows_are_independent) {
  const CpuLevel before = current_cpu_level();
  for (int bits = 1; bits <= 8; ++bits) {
    for (std::int64_t group : {32, 96, 128, 800}) {
      for (bool has_min : {false, true}) {
        const Problem p(37, 800, bits, group, has_min, has_min ? ScaleType::f32 : ScaleType::f16);
        std::vector<float> dense(p.codes.size());
        dequantize(p.spec, p.packed, dense);
        const std::int64_t m = 35;
        const auto x = uniform(static_cast<std::size_t>(m * 800), 9);
        for (CpuLevel level : supported_cpu_levels()) {
          set_cpu_level(level);
          const PackedLinear w{p.spec, p.packed, nullptr};
          std::vector<float> y(static_cast<std::size_t>(m * 37)), one(37);
          linear(w, RowsView{x.data(), DType::f32, m, 800, 800}, MutableRowsView{y.data(), DType::f32, m, 37, 37});
          for (std::int64_t r = 0; r < m; ++r) {
            linear(w, RowsView{x.data() + r * 800, DType::f32, 1, 800, 800},
                   MutableRowsView{one.data(), DType::f32, 1, 37, 37});
            for (std::int64_t c = 0; c < 37; ++c)
              EXPECT_EQ(one[static_cast<std::size_t>(c)], y[static_cast<std::size_t>(r * 37 + c)]);
            double exact = 0, magnitude = 0;
            for (std::int64_t k = 0; k < 800; ++k) {
              const double term = static_cast<double>(x[static_cast<std::size_t>(r * 800 + k)]) *
                                  static_cast<double>(dense[static_cast<std::size_t>(5 * 800 + k)]);
              exact += term;
              magnitude += std::fabs(static_cast<double>(dense[static_cast<std::size_t>(5 * 800 + k)]));
            }
            // Each activation is off by at most half a step, max |x| / 254 <= 1 / 254.
            EXPECT(std::fabs(exact - static_cast<double>(one[5])) <= magnitude / 254 + 1e-4 * magnitude + 1e-6);
          }
        }
      }
    }
  }
  set_cpu_level(before);
}

// Weights of one to three bits against the same weights in four-bit codes, whose products are dot products.
GC_TEST(quant_counted_bits_are_dot_products_at_every_level) {
  const CpuLevel before = current_cpu_level();
  const std::int64_t n = 37, k = 301, m = 21;
  const auto x = uniform(static_cast<std::size_t>(m * k), 9);
  for (int bits = 1; bits <= 3; ++bits) {
    for (std::int64_t group : {32, 96}) {
      const Problem p(n, k, bits, group, group == 32, ScaleType::f16);
      std::vector<std::uint8_t> wide = p.codes;
      PackSpec spec = p.spec;
      spec.bits = 4;
      for (std::uint8_t& code : wide) code = static_cast<std::uint8_t>(bits == 1 ? 2 * code : code);
      std::vector<std::uint8_t> packed(static_cast<std::size_t>(spec.packed_bytes()));
      pack(spec, wide, {p.scales, p.mins}, packed);
      for (CpuLevel level : supported_cpu_levels()) {
        set_cpu_level(level);
        for (int activation_bits = 1; activation_bits <= 8; ++activation_bits) {
          for (std::int64_t rows : {std::int64_t{1}, std::int64_t{2}, m}) {
            std::vector<float> counted(static_cast<std::size_t>(rows * n)), multiplied(counted.size());
            const RowsView from{x.data(), DType::f32, rows, k, k};
            linear_rounded({p.spec, p.packed, nullptr}, from, {counted.data(), DType::f32, rows, n, n},
                           activation_bits);
            linear_rounded({spec, packed, nullptr}, from, {multiplied.data(), DType::f32, rows, n, n}, activation_bits);
            EXPECT(counted == multiplied);
          }
        }
      }
    }
  }
  set_cpu_level(before);
}

GC_TEST(quant_table_products_at_every_level) {
  const CpuLevel before = current_cpu_level();
  const std::int64_t n = 37, k = 300, m = 35;
  const auto x = uniform(static_cast<std::size_t>(m * k), 9);
  for (int bits = 2; bits <= 8; ++bits) {
    std::vector<float> values = uniform(std::size_t{1} << bits, 4);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = to_f32(to_bf16(i < 128 ? values[i] : -values[i - 128]));
    const ValueTable table = value_table(bits, values);
    for (bool halves : {false, true}) {
      const Problem p(n, k, bits, halves ? 32 : 96, halves, halves ? ScaleType::f32 : ScaleType::f16);
      const TableLinear w{p.spec, p.packed, &table, nullptr};
      std::vector<float> dense(p.codes.size()), y(static_cast<std::size_t>(m * n)), one(static_cast<std::size_t>(n));
      dequantize(w, dense);
      for (CpuLevel level : supported_cpu_levels()) {
        set_cpu_level(level);
        linear(w, RowsView{x.data(), DType::f32, m, k, k}, MutableRowsView{y.data(), DType::f32, m, n, n});
        for (std::int64_t r = 0; r < m; ++r) {
          const float* const row = x.data() + r * k;
          linear(w, RowsView{row, DType::f32, 1, k, k}, MutableRowsView{one.data(), DType::f32, 1, n, n});
          for (std::int64_t c = 0; c < n; ++c) {
            double exact = 0, magnitude = 0;
            for (std::int64_t i = 0; i < k; ++i) {
              const double term =
                  static_cast<double>(row[i]) * static_cast<double>(dense[static_cast<std::size_t>(c * k + i)]);
              exact += term;
              magnitude += std::fabs(term);
            }
            EXPECT_EQ(one[static_cast<std::size_t>(c)], y[static_cast<std::size_t>(r * n + c)]);
            EXPECT(std::fabs(exact - static_cast<double>(one[static_cast<std::size_t>(c)])) <=
                   1e-5 * magnitude + 1e-12);
          }
        }
      }
    }
  }
  set_cpu_level(before);
}

GC_TEST(quant_binary_planes_add_up_at_every_level) {
  const std::int64_t n = 37, k = 150, blocks = 2;
  std::vector<std::int32_t> order(static_cast<std::size_t>(blocks * (32 + 96)), -1);
  for (std::int64_t c = 0; c < k; ++c) order[static_cast<std::size_t>(c * 77 % 256)] = static_cast<std::int32_t>(c);
  BinaryLinear w = BinaryLinear::shaped(n, k, blocks, 32, 96, ScaleType::f16);
  // The four planes, packed one after the other; values of stored column s are planes[2 i] + planes[2 i + 1].
  std::vector<std::uint8_t> planes;
  std::vector<float> dense[4];
  for (int i = 0; i < 4; ++i) {
    const Problem p(n, blocks * (i < 2 ? 32 : 96), 1, i < 2 ? 32 : 96, i == 0, ScaleType::f16);
    dense[i].resize(p.codes.size());
    dequantize(p.spec, p.packed, dense[i]);
    planes.insert(planes.end(), p.packed.begin(), p.packed.end());
  }
  w.planes = planes;
  w.order = order;
  const std::int64_t m = 19;
  const auto x = uniform(static_cast<std::size_t>(m * k), 9);
  const CpuLevel before = current_cpu_level();
  for (Activations activations : {Activations::int8, Activations::f32}) {
    for (CpuLevel level : supported_cpu_levels()) {
      set_cpu_level(level);
      std::vector<float> y(static_cast<std::size_t>(m * n));
      linear(w, {x.data(), DType::f32, m, k, k}, {y.data(), DType::f32, m, n, n}, activations);
      for (std::int64_t r = 0; r < m; ++r) {
        std::vector<float> one(static_cast<std::size_t>(n));
        linear(w, {x.data() + r * k, DType::f32, 1, k, k}, {one.data(), DType::f32, 1, n, n}, activations);
        for (std::int64_t c = 0; c < n; ++c) {
          EXPECT_EQ(one[static_cast<std::size_t>(c)], y[static_cast<std::size_t>(r * n + c)]);
          double exact = 0, magnitude = 0;
          for (std::int64_t s = 0; s < 256; ++s) {
            const std::int32_t column = order[static_cast<std::size_t>(s)];
            const int part = s < 64 ? 0 : 2;
            const std::int64_t width = s < 64 ? 64 : 192, at = c * width + (s < 64 ? s : s - 64);
            const double v = static_cast<double>(dense[part][static_cast<std::size_t>(at)]) +
                             static_cast<double>(dense[part + 1][static_cast<std::size_t>(at)]);
            if (column >= 0) exact += v * static_cast<double>(x[static_cast<std::size_t>(r * k + column)]);
            magnitude += std::fabs(v);
          }
          const double step = activations == Activations::int8 ? 1.0 / 254 : 0.0;
          EXPECT(std::fabs(exact - static_cast<double>(one[static_cast<std::size_t>(c)])) <= magnitude * (step + 1e-5));
        }
      }
    }
  }
  set_cpu_level(before);
  std::string message;
  order[3] = 150;
  EXPECT(test::throws<InvalidArgument>([&] { w.validate(); }, &message));
  EXPECT(message.find("order must hold columns below 150 or -1, got 150") == 0);
  EXPECT(test::throws<InvalidArgument>([&] { BinaryLinear::shaped(n, k, blocks, 16, 96, ScaleType::f16); }, &message));
  EXPECT(message.find("group must be 32, 64, 96 or 128, got 16") == 0);
}

GC_TEST(quant_bad_arguments_are_named) {
  std::string message;
  PackSpec s;
  s.n = 1;
  s.k = 40;
  s.bits = 9;
  EXPECT(test::throws<InvalidArgument>([&] { s.validate(); }, &message));
  EXPECT(message.find("bits must be in [1, 8], got 9") == 0);
  s.bits = 4;
  s.group = 48;
  EXPECT(test::throws<InvalidArgument>([&] { s.validate(); }, &message));
  EXPECT(message.find("group_size must be") == 0);
  s.group = 32;
  std::vector<std::uint8_t> codes(40, 16), packed(static_cast<std::size_t>(s.packed_bytes()));
  const std::vector<float> scales(2, 1.0f);
  EXPECT(test::throws<InvalidArgument>([&] { pack(s, codes, {scales, {}}, packed); }, &message));
  EXPECT(message.find("codes must be below 16, got 16") == 0);
}
