// y = x W^T + bias with packed low-bit W: activations are quantised to int8 in blocks of 32 columns (scale = largest
// magnitude / 127) or to odd numbers of fewer bits, inner products are exact, sums over blocks fp32 in one fixed order.
// A row of y does not depend on the other rows of x, on the number of threads, or on which rows are computed together.
//
//   linear(w, x_rows, y_rows);                       // all at once, on the thread pool
//
// or, to run several products inside one dispatch (q, k, v; gate, up):
//
//   x.quantize(rows); x.prepare(w1.spec); x.prepare(w2.spec);
//   parallel_chunks(..., [&] { linear_columns(w1, x, n0, n1, y1); ... });   // n0 a multiple of 16
#pragma once

#include <cstdint>
#include <limits>
#include <vector>

#include "core/dtype.h"
#include "core/line_vector.h"
#include "quant/packed.h"

namespace gramcore::quant {

// Rows of fp32 or bf16, `stride` elements apart.
struct RowsView {
  const void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0, cols = 0, stride = 0;
};
struct MutableRowsView {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0, cols = 0, stride = 0;
  bool add = false;  // results are added to what is there (fp32)
};

// Rows [begin, end) of x and y, cut at their last; begin a multiple of 16, end too unless it is the last.
struct RowRange {
  std::int64_t begin = 0, end = std::numeric_limits<std::int64_t>::max();
};

// A borrowed packed weight (N, K) and its bias of N floats or null.
struct PackedLinear {
  PackSpec spec;
  Span<const std::uint8_t> packed;
  const float* bias = nullptr;

  void validate() const;  // throws InvalidArgument
};

// Activations as the kernels read them.  Keep one object and call quantize again: its memory is reused.
//
// Or piece by piece, from several threads: resize, expect every weight, then set every row and block once.
class QuantizedRows {
 public:
  // Rows [row0, row1) and blocks [block0, block1); both blocks multiples of block_step(), the last one's end blocks().
  struct Piece {
    std::int64_t row0, row1, block0, block1;
  };
  // bits: 8, or 1 to 7 for the odd numbers within 2^bits - 1 times largest magnitude / (2^bits - 1); of one bit, signs
  // times the mean magnitude.
  void quantize(const RowsView& x, int bits = 8);
  void resize(std::int64_t rows, std::int64_t cols, int bits = 8);
  void expect(const PackSpec& w);
  void set(const RowsView& x, const Piece& piece);
  std::int64_t blocks() const { return blocks_; }
  std::int64_t block_step() const;
  void prepare(const PackSpec& w);  // what the weight's zero and groups need; cheap when it was done for a like weight
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }

 private:
  friend void linear_columns(const PackedLinear&, const QuantizedRows&, std::int64_t, std::int64_t,
                             const MutableRowsView&, const PackedLinear*, const RowRange&);
  struct Prepared {
    int zero = -1;
    std::int64_t group = 0;  // 0: no minima
    int planes = 0;          // bits of the weight in products by counting bits; 0: by dot products
    bool current = false;
    std::vector<std::int32_t> init;  // [tile][block][row]: what sums of products start from
    std::vector<float> gsum;         // [tile][group][row]: sum of scale * sum, for minima
  };
  const Prepared& prepared(const PackSpec& w) const;
  Prepared* slot(const PackSpec& w);  // with memory, and current from now on; null if it was
  void fill(Prepared* slot, const Piece& piece) const;
  void fill_tables(const Piece& piece);
  void fill_planes(const Piece& piece);
  bool by_planes(const PackSpec& w) const;
  void use(const PackSpec& w, bool filled);
  Piece everything() const { return {0, rows_, 0, blocks_}; }

  std::int64_t rows_ = 0, cols_ = 0, blocks_ = 0;
  int bits_ = 8;
  LineVector<std::int8_t> codes_;   // tiles of 16 rows: [tile][block][row][32]
  std::vector<float> scales_;       // [tile][block][row]
  std::vector<std::int32_t> sums_;  // the same
  std::vector<Prepared> prepared_;
  LineVector<std::uint8_t> tables_;  // of one-bit weights: [block][row][256]
  bool tables_current_ = false;
  std::vector<std::uint32_t> planes_;  // [tile][block][row]: see PanelArgs::planes
  bool planes_current_ = false;
};

// Columns [n0, n1) of y (M, N); n0 a multiple of 16.  x must have been prepared for w.spec.  Runs on the calling
// thread; different columns may be computed by different threads at once.  With `second`, a weight like w but without
// minima, its product is added: faster than two calls for one-bit weights and few rows.
void linear_columns(const PackedLinear& w, const QuantizedRows& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y, const PackedLinear* second = nullptr, const RowRange& range = {});

// fp32 activations in rows padded with zeros; y = x times the dequantised weight, in fp32.
class FloatRows {
 public:
  void set(const RowsView& x);
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  RowsView view() const { return {values_.data(), DType::f32, rows_, cols_, stride_}; }

 private:
  std::int64_t rows_ = 0, cols_ = 0, stride_ = 0;
  std::vector<float> values_;
};

void linear_columns(const PackedLinear& w, const FloatRows& x, std::int64_t n0, std::int64_t n1,
                    const MutableRowsView& y, const PackedLinear* second = nullptr);

// Results of a kernel, `panels` of (rows, 16) one after the other, go to rows row0 .., columns col0 .. of y, whose last
// panel may have fewer than 16.
void store_rows(const float* from, std::int64_t rows, std::int64_t row0, std::int64_t col0, const float* bias,
                const MutableRowsView& y, std::int64_t panels = 1);

// int8: fastest, rounds activations.  f32: no rounding of activations, for results that must not depend on the last
// bits of x (a rounding that flips would change them visibly).
enum class Activations : int { int8 = 0, f32 = 1 };

void linear(const PackedLinear& w, QuantizedRows* x, const MutableRowsView& y);
void linear(const PackedLinear& w, const FloatRows& x, const MutableRowsView& y);
void linear(const PackedLinear& w, const RowsView& x, const MutableRowsView& y,
            Activations activations = Activations::int8);

// With activations rounded to `bits` bits, as QuantizedRows::quantize does it.
void linear_rounded(const PackedLinear& w, const RowsView& x, const MutableRowsView& y, int bits);

}  // namespace gramcore::quant
