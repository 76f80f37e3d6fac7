// Packed low-bit weight matrices: one layout for every instruction set.
//
//   W[n, k] = scale[n, g] * (code[n, k] - zero) + min[n, g],   g = k / group
//
// One-bit codes stand for -1 and +1: (2 code - 1) takes the place of (code - zero).
//
// Rows go in panels of 16.  A panel is, group by group: the codes of its blocks of 32 columns, then 16 scales, then
// (asymmetric weights) 16 minima.  A block holds eight vectors of 64 codes; vector j has, for row r, the codes of
// columns 4j .. 4j+3 in lanes 4r .. 4r+3: the operand order of four-way byte dot products and of AMX tiles.  Codes of
// fewer than 8 bits are split into four bits, two bits and one bit, as their width needs, lowest bits first, and each
// part is stored apart: two, four or eight vectors share 64 bytes.  Rows are padded to 16 (scale 0) and columns to
// whole groups (code = zero; activations are zero there).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/span.h"

namespace gramcore::quant {

inline constexpr std::int64_t kPanelRows = 16;
inline constexpr std::int64_t kBlock = 32;  // columns that share one activation scale
inline constexpr std::int64_t kMaxGroup = 128;

enum class ScaleType : int { f16 = 0, f32 = 1 };

struct PackSpec {
  std::int64_t n = 0, k = 0;
  int bits = 4;             // 1 to 8
  std::int64_t group = 32;  // 32, 64, 96, 128, or k rounded up to 32 (one group per row)
  int zero = 8;             // code subtracted before scaling; 128 for 8 bits, 1 for 1 bit
  bool has_min = false;
  ScaleType scale = ScaleType::f16;

  // Throws InvalidArgument naming the field.
  void validate() const;

  std::int64_t groups() const { return (k + group - 1) / group; }
  std::int64_t k_padded() const { return groups() * group; }
  std::int64_t panels() const { return (n + kPanelRows - 1) / kPanelRows; }
  std::int64_t block_bytes() const { return 64 * bits; }
  std::int64_t scale_bytes() const { return scale == ScaleType::f16 ? 2 : 4; }
  std::int64_t group_bytes() const {
    return group / kBlock * block_bytes() + kPanelRows * scale_bytes() * (has_min ? 2 : 1);
  }
  std::int64_t panel_bytes() const { return groups() * group_bytes(); }
  std::int64_t packed_bytes() const { return panels() * panel_bytes(); }
};

// Values per group, row-major (n, groups): fp32 arrays that already hold what the scale type can represent.
struct GroupValues {
  Span<const float> scales;
  Span<const float> mins;  // empty without minima
};

// codes: (n, k) row-major, one per byte, each < 2^bits.  Throws InvalidArgument for wrong sizes or codes.
void pack(const PackSpec& spec, Span<const std::uint8_t> codes, const GroupValues& values, Span<std::uint8_t> packed);

// The inverse of pack.
void unpack(const PackSpec& spec, Span<const std::uint8_t> packed, Span<std::uint8_t> codes, Span<float> scales,
            Span<float> mins);

// Row `row` alone: k codes; scales and, of asymmetric weights, minima per group.
void unpack_row(const PackSpec& spec, Span<const std::uint8_t> packed, std::int64_t row, std::uint8_t* codes,
                float* scales, float* mins);

// Row `row` as k fp32 values.
void dequantize_row(const PackSpec& spec, Span<const std::uint8_t> packed, std::int64_t row, float* out);

// (n, k) fp32 values.
void dequantize(const PackSpec& spec, Span<const std::uint8_t> packed, Span<float> out);

// Rows ids[i] as fp32: out is (ids.size(), k).  Throws OutOfRange for an id outside [0, n).
void gather_rows(const PackSpec& spec, Span<const std::uint8_t> packed, Span<const std::int64_t> ids, Span<float> out);

}  // namespace gramcore::quant
