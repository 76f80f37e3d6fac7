// Weight matrices of the decoder and products with them.
//
// A matrix is dense (fp32 or bf16 in panels of 16 rows) or packed low-bit (gramcore::quant): integer codes, or places
// in a table of values.  Memory comes from an arena of huge pages: at one token per pass every weight is read once, and
// small pages cost a quarter of the bandwidth.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/dtype.h"
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
  const float* column_scale = nullptr;  // cols: the weight is what is stored, times this in every row; null: all 1

  quant::TableLinear as_table() const { return {packed.spec, packed.packed, table, nullptr}; }
  std::int64_t num_panels() const { return (rows + 15) / 16; }
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
};
Matrix packed_matrix(const PackedWeights& weights, Arena* arena);
// Row `row` as fp32 (an embedding).
void copy_row(const Matrix& m, std::int64_t row, float* out);

// Rows of fp32 activations and, as the matrices that will read them need it, their int8 form or rows ending in zeros.
class Activations {
 public:
  using Piece = quant::QuantizedRows::Piece;

  // Sets the shape, then come the matrices that will read; rows are written through row(), then every piece is
  // finished once before anything is read.
  void resize(std::int64_t rows, std::int64_t cols);
  void expect(const Matrix& reader);
  std::int64_t cols() const { return cols_; }
  // Pieces for any thread: columns of a few rows, rows of many; one piece where others would cost more than they save.
  std::int64_t num_pieces() const;
  Piece piece(std::int64_t i, std::int64_t pieces) const;
  void finish(const Piece& piece);
  float* row(std::int64_t r) { return values_.data() + r * cols_; }
  const float* row(std::int64_t r) const { return values_.data() + r * cols_; }
  std::int64_t rows() const { return rows_; }

 private:
  friend void columns(const Matrix&, const Activations&, std::int64_t, std::int64_t, float*, std::int64_t, bool);
  std::int64_t rows_ = 0, cols_ = 0;
  std::vector<float> values_;
  quant::QuantizedRows quantized_;
  bool packed_readers_ = false;
  std::int64_t padded_cols_ = 0;  // of table readers whose last group is not full; 0: none
  std::vector<float> padded_;
};

// Columns [16 p0, 16 p1) (cut at m.rows) of y = x m^T, or y += x m^T, for all rows of x; y has `stride` floats per row.
void columns(const Matrix& m, const Activations& x, std::int64_t p0, std::int64_t p1, float* y, std::int64_t stride,
             bool add = false);

}  // namespace gramcore::model
