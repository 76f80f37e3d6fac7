#include "quant/packed.h"

#include <cstring>

#include "core/half.h"
#include "core/thread_pool.h"

namespace gramcore::quant {
namespace {

// Where column c (0..31) of row r (0..15) sits in a block of `bits`-bit codes: vector j, lane, and the position of
// the bits.  Two-bit codes: four vectors per 64 bytes; three-bit ones add a plane of high bits, bit j of each byte.
struct Place {
  std::int64_t byte;
  int shift, width;
};

Place low_place(int bits, int r, int c) {
  const int j = c / 4;
  const std::int64_t lane = 4 * r + c % 4;
  switch (bits) {
    case 8: return {64 * j + lane, 0, 8};
    case 4: return {64 * (j % 4) + lane, j < 4 ? 0 : 4, 4};
    default: return {64 * (j / 4) + lane, 2 * (j % 4), 2};  // 2 and the low part of 3
  }
}

unsigned get_code(const std::uint8_t* block, int bits, int r, int c) {
  const Place p = low_place(bits, r, c);
  unsigned code = (block[p.byte] >> p.shift) & ((1u << p.width) - 1u);
  if (bits == 3) code |= ((block[128 + 4 * r + c % 4] >> (c / 4)) & 1u) << 2;
  return code;
}

void put_code(std::uint8_t* block, int bits, int r, int c, unsigned code) {
  const Place p = low_place(bits, r, c);
  block[p.byte] = static_cast<std::uint8_t>(block[p.byte] | ((code & ((1u << p.width) - 1u)) << p.shift));
  if (bits == 3) {
    std::uint8_t& high = block[128 + 4 * r + c % 4];
    high = static_cast<std::uint8_t>(high | ((code >> 2) << (c / 4)));
  }
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
      const float product = scale * static_cast<float>(static_cast<int>(code) - s.zero);
      out[g * s.group + c] = s.has_min ? product + min : product;
    }
  }
}

}  // namespace

void PackSpec::validate() const {
  GC_CHECK(n >= 1 && k >= 1, "weight must have at least one row and column, got (", n, ", ", k, ")");
  GC_CHECK(n <= (std::int64_t{1} << 40) / k, "weight must have at most 2^40 elements, got (", n, ", ", k, ")");
  GC_CHECK(bits == 2 || bits == 3 || bits == 4 || bits == 8, "bits must be 2, 3, 4 or 8, got ", bits);
  const std::int64_t row = (k + kBlock - 1) / kBlock * kBlock;
  GC_CHECK(group == 32 || group == 64 || group == 128 || group == row, "group_size must be 32, 64, 128 or ", row,
           " (one group per row), got ", group);
  GC_CHECK(zero >= 0 && zero < (1 << bits), "zero must be a code of ", bits, " bits, got ", zero);
  GC_CHECK(bits < 8 || zero == 128, "zero must be 128 for 8-bit codes, got ", zero);
}

void pack(const PackSpec& s, Span<const std::uint8_t> codes, const GroupValues& values, Span<std::uint8_t> packed) {
  s.validate();
  check_size(codes.size(), s.n * s.k, "codes");
  check_size(values.scales.size(), s.n * s.groups(), "scales");
  check_size(values.mins.size(), s.has_min ? s.n * s.groups() : 0, "mins");
  check_size(packed.size(), s.packed_bytes(), "packed");
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

void dequantize_row(const PackSpec& s, Span<const std::uint8_t> packed, std::int64_t row, float* out) {
  const std::uint8_t* panel = packed.data() + row / kPanelRows * s.panel_bytes();
  const int r = static_cast<int>(row % kPanelRows);
  for (std::int64_t k = 0; k < s.k; ++k) {
    const std::uint8_t* group = panel + k / s.group * s.group_bytes();
    const std::uint8_t* values = group + s.group / kBlock * s.block_bytes();
    const std::int64_t c = k % s.group;
    const unsigned code = get_code(group + c / kBlock * s.block_bytes(), s.bits, r, static_cast<int>(c % kBlock));
    const float min = s.has_min ? get_value(values + 16 * s.scale_bytes(), s.scale, r) : 0.0f;
    const float product = get_value(values, s.scale, r) * static_cast<float>(static_cast<int>(code) - s.zero);
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
