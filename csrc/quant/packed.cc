#include "quant/packed.h"

#include <cstring>

#include "core/half.h"
#include "core/huge_pages.h"
#include "core/thread_pool.h"

namespace gramcore::quant {
namespace {

// One part of a code: where in the block its byte is, at which bit of the byte and of the code it starts, its width.
struct Part {
  std::int64_t byte;
  int shift, to, width;
};

// The parts of the code of row r (0..15), column c (0..31) in a block of `bits`-bit codes.
template <class F>
void for_each_part(int bits, int r, int c, F&& fn) {
  const int j = c / 4;
  const std::int64_t lane = 4 * r + c % 4;
  if (bits == 8) return fn(Part{64 * j + lane, 0, 0, 8});
  std::int64_t base = 0;
  int to = 0;
  if (bits & 4) {
    fn(Part{64 * (j % 4) + lane, j < 4 ? 0 : 4, 0, 4});
    base = 256;
    to = 4;
  }
  if (bits & 2) {
    fn(Part{base + 64 * (j / 4) + lane, 2 * (j % 4), to, 2});
    base += 128;
    to += 2;
  }
  if (bits & 1) fn(Part{base + lane, j, to, 1});
}

unsigned get_code(const std::uint8_t* block, int bits, int r, int c) {
  unsigned code = 0;
  for_each_part(bits, r, c, [&](const Part& p) {
    code |= ((static_cast<unsigned>(block[p.byte]) >> p.shift) & ((1u << p.width) - 1u)) << p.to;
  });
  return code;
}

void put_code(std::uint8_t* block, int bits, int r, int c, unsigned code) {
  for_each_part(bits, r, c, [&](const Part& p) {
    block[p.byte] = static_cast<std::uint8_t>(block[p.byte] | (((code >> p.to) & ((1u << p.width) - 1u)) << p.shift));
  });
}

// What the scale multiplies.
float centred(const PackSpec& s, unsigned code) {
  return static_cast<float>(static_cast<int>(s.bits == 1 ? 2 * code : code) - s.zero);
}

void put_value(std::uint8_t* at, ScaleType type, int r, float value) {
  if (type == ScaleType::f16) {
    const f16 half = to_f16(value);
    std::memcpy(at + 2 * r, &half, 2);
  } else {
    std::memcpy(at + 4 * r, &value, 4);
  }
}

float get_value(const std::uint8_t* at, ScaleType type, int r) {
  if (type == ScaleType::f16) {
    f16 half;
    std::memcpy(&half, at + 2 * r, 2);
    return to_f32(half);
  }
  float value;
  std::memcpy(&value, at + 4 * r, 4);
  return value;
}

void check_size(std::size_t got, std::int64_t wanted, const char* name) {
  GC_CHECK(got == static_cast<std::size_t>(wanted), name, " must have ", wanted, " elements, got ", got);
}

// fn(row, group, block pointer, scale pointer, first column) over the real rows of a panel.
template <class Bytes, class F>
void for_each_group(const PackSpec& s, Bytes* panel, std::int64_t p, F&& fn) {
  for (std::int64_t g = 0; g < s.groups(); ++g) {
    Bytes* group = panel + g * s.group_bytes();
    Bytes* values = group + s.group / kBlock * s.block_bytes();
    for (int r = 0; r < kPanelRows && p * kPanelRows + r < s.n; ++r) fn(p * kPanelRows + r, r, g, group, values);
  }
}

void dequantize_row(const PackSpec& s, const std::uint8_t* packed, std::int64_t row, float* out) {
  const std::uint8_t* panel = packed + row / kPanelRows * s.panel_bytes();
  const int r = static_cast<int>(row % kPanelRows);
  for (std::int64_t g = 0; g < s.groups(); ++g) {
    const std::uint8_t* blocks = panel + g * s.group_bytes();
    const std::uint8_t* values = blocks + s.group / kBlock * s.block_bytes();
    const float scale = get_value(values, s.scale, r);
    const float min = s.has_min ? get_value(values + 16 * s.scale_bytes(), s.scale, r) : 0.0f;
    for (std::int64_t c = 0; c < s.group && g * s.group + c < s.k; ++c) {
      const unsigned code = get_code(blocks + c / kBlock * s.block_bytes(), s.bits, r, static_cast<int>(c % kBlock));
      const float product = scale * centred(s, code);
      out[g * s.group + c] = s.has_min ? product + min : product;
    }
  }
}

}  // namespace

void PackSpec::validate() const {
  GC_CHECK(n >= 1 && k >= 1, "weight must have at least one row and column, got (", n, ", ", k, ")");
  GC_CHECK(n <= (std::int64_t{1} << 40) / k, "weight must have at most 2^40 elements, got (", n, ", ", k, ")");
  GC_CHECK(bits >= 1 && bits <= 8, "bits must be in [1, 8], got ", bits);
  const std::int64_t row = (k + kBlock - 1) / kBlock * kBlock;
  GC_CHECK((group >= kBlock && group <= kMaxGroup && group % kBlock == 0) || group == row,
           "group_size must be 32, 64, 96, 128 or ", row, " (one group per row), got ", group);
  GC_CHECK(zero >= 0 && zero < (1 << bits), "zero must be a code of ", bits, " bits, got ", zero);
  GC_CHECK(bits > 1 || zero == 1, "zero must be 1 for 1-bit codes, which stand for -1 and +1, got ", zero);
  GC_CHECK(bits < 8 || zero == 128, "zero must be 128 for 8-bit codes, got ", zero);
}

void pack(const PackSpec& s, Span<const std::uint8_t> codes, const GroupValues& values, Span<std::uint8_t> packed) {
  s.validate();
  check_size(codes.size(), s.n * s.k, "codes");
  check_size(values.scales.size(), s.n * s.groups(), "scales");
  check_size(values.mins.size(), s.has_min ? s.n * s.groups() : 0, "mins");
  check_size(packed.size(), s.packed_bytes(), "packed");
  advise_huge_pages(packed.data(), packed.size());
  const unsigned limit = 1u << s.bits;
  parallel_for(s.panels(), 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t p = first; p < last; ++p) {
      std::uint8_t* panel = packed.data() + p * s.panel_bytes();
      std::memset(panel, 0, static_cast<std::size_t>(s.panel_bytes()));
      for_each_group(s, panel, p, [&](std::int64_t row, int r, std::int64_t g, std::uint8_t* blocks, std::uint8_t* at) {
        for (std::int64_t c = 0; c < s.group; ++c) {
          const std::int64_t column = g * s.group + c;
          const unsigned code = column < s.k ? codes.data()[row * s.k + column] : static_cast<unsigned>(s.zero);
          GC_CHECK(code < limit, "codes must be below ", limit, ", got ", code, " (row ", row, ", column ", column,
                   ")");
          put_code(blocks + c / kBlock * s.block_bytes(), s.bits, r, static_cast<int>(c % kBlock), code);
        }
        put_value(at, s.scale, r, values.scales.data()[row * s.groups() + g]);
        if (s.has_min) put_value(at + 16 * s.scale_bytes(), s.scale, r, values.mins.data()[row * s.groups() + g]);
      });
    }
  });
}

void unpack(const PackSpec& s, Span<const std::uint8_t> packed, Span<std::uint8_t> codes, Span<float> scales,
            Span<float> mins) {
  s.validate();
  check_size(packed.size(), s.packed_bytes(), "packed");
  check_size(codes.size(), s.n * s.k, "codes");
  check_size(scales.size(), s.n * s.groups(), "scales");
  check_size(mins.size(), s.has_min ? s.n * s.groups() : 0, "mins");
  parallel_for(s.panels(), 8, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t p = first; p < last; ++p) {
      for_each_group(s, packed.data() + p * s.panel_bytes(), p,
                     [&](std::int64_t row, int r, std::int64_t g, const std::uint8_t* blocks, const std::uint8_t* at) {
                       for (std::int64_t c = 0; c < s.group && g * s.group + c < s.k; ++c) {
                         codes.data()[row * s.k + g * s.group + c] = static_cast<std::uint8_t>(
                             get_code(blocks + c / kBlock * s.block_bytes(), s.bits, r, static_cast<int>(c % kBlock)));
                       }
                       scales.data()[row * s.groups() + g] = get_value(at, s.scale, r);
                       if (s.has_min) {
                         mins.data()[row * s.groups() + g] = get_value(at + 16 * s.scale_bytes(), s.scale, r);
                       }
                     });
    }
  });
}

void unpack_row(const PackSpec& s, Span<const std::uint8_t> packed, std::int64_t row, std::uint8_t* codes,
                float* scales, float* mins) {
  const std::uint8_t* panel = packed.data() + row / kPanelRows * s.panel_bytes();
  const int r = static_cast<int>(row % kPanelRows);
  for (std::int64_t g = 0; g < s.groups(); ++g) {
    const std::uint8_t* blocks = panel + g * s.group_bytes();
    const std::uint8_t* values = blocks + s.group / kBlock * s.block_bytes();
    scales[g] = get_value(values, s.scale, r);
    if (s.has_min) mins[g] = get_value(values + 16 * s.scale_bytes(), s.scale, r);
    for (std::int64_t c = 0; c < s.group && g * s.group + c < s.k; ++c) {
      codes[g * s.group + c] = static_cast<std::uint8_t>(
          get_code(blocks + c / kBlock * s.block_bytes(), s.bits, r, static_cast<int>(c % kBlock)));
    }
  }
}

void dequantize_row(const PackSpec& s, Span<const std::uint8_t> packed, std::int64_t row, float* out) {
  const std::uint8_t* panel = packed.data() + row / kPanelRows * s.panel_bytes();
  const int r = static_cast<int>(row % kPanelRows);
  for (std::int64_t k = 0; k < s.k; ++k) {
    const std::uint8_t* group = panel + k / s.group * s.group_bytes();
    const std::uint8_t* values = group + s.group / kBlock * s.block_bytes();
    const std::int64_t c = k % s.group;
    const unsigned code = get_code(group + c / kBlock * s.block_bytes(), s.bits, r, static_cast<int>(c % kBlock));
    const float min = s.has_min ? get_value(values + 16 * s.scale_bytes(), s.scale, r) : 0.0f;
    const float product = get_value(values, s.scale, r) * centred(s, code);
    out[k] = s.has_min ? product + min : product;
  }
}

void dequantize(const PackSpec& s, Span<const std::uint8_t> packed, Span<float> out) {
  s.validate();
  check_size(packed.size(), s.packed_bytes(), "packed");
  check_size(out.size(), s.n * s.k, "out");
  parallel_for(s.n, 64, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t row = first; row < last; ++row) dequantize_row(s, packed.data(), row, out.data() + row * s.k);
  });
}

void gather_rows(const PackSpec& s, Span<const std::uint8_t> packed, Span<const std::int64_t> ids, Span<float> out) {
  s.validate();
  check_size(packed.size(), s.packed_bytes(), "packed");
  check_size(out.size(), static_cast<std::int64_t>(ids.size()) * s.k, "out");
  for (const std::int64_t id : ids) {
    GC_CHECK_AS(OutOfRange, id >= 0 && id < s.n, "ids must be in [0, ", s.n, "), got ", id);
  }
  parallel_for(static_cast<std::int64_t>(ids.size()), 64, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      dequantize_row(s, packed.data(), ids.data()[i], out.data() + i * s.k);
    }
  });
}

}  // namespace gramcore::quant
