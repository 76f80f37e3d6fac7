// Weight matrices of the decoder and products with them.
//
// A matrix is dense (fp32 or bf16 in panels of 16 rows) or packed low-bit (gramcore::quant): integer codes, or places
// in a table of values.  Memory comes from an arena of huge pages: at one token per pass every weight is read once, and
// small pages cost a quarter of the bandwidth.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "core/dtype.h"
#include "core/line_vector.h"
#include "quant/table.h"

namespace gramcore::model {

class Arena {
 public:
  Arena() = default;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena();
  // 64-byte aligned, zeroed, valid as long as the arena.
  void* take(std::int64_t num_bytes);
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Block {
    char* data;
    std::int64_t size, used;
  };
  std::vector<Block> blocks_;
  std::int64_t bytes_ = 0;
};

struct Matrix {
  enum class Kind { none, f32, bf16, packed, table };
  Kind kind = Kind::none;
  std::int64_t rows = 0, cols = 0;
  const void* panels = nullptr;  // dense: [rows / 16][cols][16]
  quant::PackedLinear packed;    // of a table its codes
  const quant::ValueTable* table = nullptr;
  int activation_bits = 8;              // packed: what activations are rounded to
  const float* column_scale = nullptr;  // cols: the weight is what is stored, times this in every row; null: all 1

  quant::TableLinear as_table() const { return {packed.spec, packed.packed, table, nullptr}; }
  std::int64_t num_panels() const { return (rows + 15) / 16; }
  // The matrix of panels [p0, p1) alone.
  Matrix panels_between(std::int64_t p0, std::int64_t p1) const;
  std::int64_t bytes() const;
};

// From row-major (rows, cols) fp32 or bf16 (kept as they are).
Matrix dense_matrix(const TensorView& weights, Arena* arena);
// Bytes in gramcore::quant's layout.
struct PackedWeights {
  quant::PackSpec spec;
  Span<const std::uint8_t> packed;
  Span<const float> values;        // of the codes, bf16 numbers; empty: codes are integers
  Span<const float> column_scale;  // k, or empty: all 1
  int activation_bits = 8;         // of integer codes
};
Matrix packed_matrix(const PackedWeights& weights, Arena* arena);
// Row `row` as fp32 (an embedding).
void copy_row(const Matrix& m, std::int64_t row, float* out);

// Floats from a row of a buffer to the next: whole cache lines, an odd number of them, or columns of many rows would
// fall into a few sets of the cache.
inline std::int64_t row_stride(std::int64_t cols) {
  return ((cols + 15) / 16 | 1) * 16;
}

// Rows [r0, r1) and columns [c0, c1) of a buffer.
struct Rect {
  std::int64_t r0, r1, c0, c1;
};

// Rows of fp32 activations and, as the matrices that will read them need it, their int8 form or rows ending in zeros.
class Activations {
 public:
  // Sets the shape, then come the matrices that will read; rows are written through row(), then every part is finished
  // once before anything is read.
  void resize(std::int64_t rows, std::int64_t cols);
  void expect(const Matrix& reader);
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  std::int64_t stride() const { return stride_; }
  // Parts that different threads may finish start and end at multiples of this many columns, or at the last.
  std::int64_t column_step() const;
  void finish(const Rect& part);
  float* row(std::int64_t r) { return values_.data() + r * stride_; }
  const float* row(std::int64_t r) const { return values_.data() + r * stride_; }

 private:
  friend void columns(const Matrix&, const Activations&, const quant::RowRange&, std::int64_t, std::int64_t, float*,
                      std::int64_t, bool);
  struct Rounded {
    int bits;
    quant::QuantizedRows rows;
    bool expected = false;
  };
  Rounded& rounded_to(int bits);
  const quant::QuantizedRows& rounded_to(int bits) const;

  std::int64_t rows_ = 0, cols_ = 0, stride_ = 0;
  LineVector<float> values_;
  std::deque<Rounded> rounded_;   // one per number of bits that a reader ever had
  std::int64_t padded_cols_ = 0;  // of table readers whose last group is not full; 0: none
  LineVector<float> padded_;
};

// Columns [16 p0, 16 p1) (cut at m.rows) of y = x m^T, or y += x m^T, for some rows of x; y has `stride` floats per
// row.
void columns(const Matrix& m, const Activations& x, const quant::RowRange& range, std::int64_t p0, std::int64_t p1,
             float* y, std::int64_t stride, bool add = false);

}  // namespace gramcore::model
