#include "model/weights.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "core/huge_pages.h"
#include "core/thread_pool.h"
#include "model/kernels/layers.h"

namespace gramcore::model {
namespace {

constexpr auto kPage = static_cast<std::int64_t>(kHugePage);
constexpr std::int64_t kArenaBlock = 16 * kPage;

std::int64_t round_up(std::int64_t n, std::int64_t unit) {
  return (n + unit - 1) / unit * unit;
}

template <class T>
void fill_panels(const TensorView& w, T* to) {
  const std::int64_t rows = w.shape[0], cols = w.shape[1];
  parallel_for((rows + 15) / 16, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p) {
      T* panel = to + p * cols * 16;
      const std::int64_t real = std::min<std::int64_t>(16, rows - p * 16);
      for (std::int64_t r = 0; r < real; ++r) {
        const T* from = w.as<T>() + (p * 16 + r) * w.stride[0];
        for (std::int64_t k = 0; k < cols; ++k) panel[k * 16 + r] = from[k];
      }
    }
  });
}

template <class T>
void copy_dense_row(const Matrix& m, std::int64_t row, float* out) {
  const T* panel = static_cast<const T*>(m.panels) + row / 16 * m.cols * 16 + row % 16;
  for (std::int64_t k = 0; k < m.cols; ++k) out[k] = to_f32(panel[k * 16]);
}

// Rows [row0, row0 + rows) of x, `x_stride` apart.
void dense_columns(const Matrix& m, const float* x, std::int64_t x_stride, std::int64_t row0, std::int64_t rows,
                   std::int64_t p0, std::int64_t p1, const quant::MutableRowsView& y) {
  static thread_local LineVector<float> results;
  results.resize(static_cast<std::size_t>(rows * 16));
  const auto& kernels = layers_kernels();
  const bool narrow = m.kind == Matrix::Kind::bf16;
  const auto kernel = narrow ? kernels.dense_bf16 : kernels.dense_f32;
  for (std::int64_t p = p0; p < p1; ++p) {
    const char* panel = static_cast<const char*>(m.panels) + p * m.cols * 16 * (narrow ? 2 : 4);
    kernel({panel, m.cols, x + row0 * x_stride, x_stride, rows, results.data()});
    quant::store_rows(results.data(), rows, row0, p * 16, nullptr, y);
  }
}

}  // namespace

Arena::~Arena() {
  for (const Block& b : blocks_) ::munmap(b.data, static_cast<std::size_t>(b.size));
}

void* Arena::take(std::int64_t num_bytes) {
  const std::int64_t wanted = round_up(std::max<std::int64_t>(num_bytes, 1), 64);
  if (blocks_.empty() || blocks_.back().size - blocks_.back().used < wanted) {
    const std::int64_t size = round_up(std::max(wanted, kArenaBlock), kPage);
    void* data =
        ::mmap(nullptr, static_cast<std::size_t>(size), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    advise_huge_pages(data, static_cast<std::size_t>(size));
    blocks_.push_back({static_cast<char*>(data), size, 0});
  }
  Block& block = blocks_.back();
  void* const result = block.data + block.used;
  block.used += wanted;
  bytes_ += wanted;
  return result;
}

std::int64_t Matrix::bytes() const {
  switch (kind) {
    case Kind::f32: return num_panels() * 16 * cols * 4;
    case Kind::bf16: return num_panels() * 16 * cols * 2;
    case Kind::packed:
    case Kind::table: return packed.spec.packed_bytes();
    default: return 0;
  }
}

Matrix Matrix::panels_between(std::int64_t p0, std::int64_t p1) const {
  Matrix m = *this;
  m.rows = std::min(rows, p1 * 16) - p0 * 16;
  if (kind == Kind::packed || kind == Kind::table) {
    m.packed.spec.n = m.rows;
    m.packed.packed = {packed.packed.data() + p0 * packed.spec.panel_bytes(),
                       static_cast<std::size_t>(m.packed.spec.packed_bytes())};
  } else {
    m.panels = static_cast<const char*>(panels) + p0 * 16 * cols * (kind == Kind::f32 ? 4 : 2);
  }
  return m;
}

Matrix dense_matrix(const TensorView& w, Arena* arena) {
  GC_CHECK_AS(TypeMismatch, w.dtype == DType::f32 || w.dtype == DType::bf16,
              "weights must be float32 or bfloat16, got ", dtype_name(w.dtype));
  GC_CHECK(w.rank == 2 && w.stride[1] == 1, "weights must be (rows, columns), dense along columns, got ",
           shape_string(w));
  Matrix m;
  m.kind = w.dtype == DType::f32 ? Matrix::Kind::f32 : Matrix::Kind::bf16;
  m.rows = w.shape[0];
  m.cols = w.shape[1];
  void* to = arena->take(m.bytes());
  if (m.kind == Matrix::Kind::f32) {
    fill_panels<float>(w, static_cast<float*>(to));
  } else {
    fill_panels<bf16>(w, static_cast<bf16*>(to));
  }
  m.panels = to;
  return m;
}

namespace {

template <class T>
const T* copied(Span<const T> from, Arena* arena) {
  void* const to = arena->take(static_cast<std::int64_t>(from.size() * sizeof(T)));
  std::memcpy(to, from.data(), from.size() * sizeof(T));
  return static_cast<const T*>(to);
}

}  // namespace

Matrix packed_matrix(const PackedWeights& w, Arena* arena) {
  Matrix m;
  m.kind = w.values.empty() ? Matrix::Kind::packed : Matrix::Kind::table;
  m.rows = w.spec.n;
  m.cols = w.spec.k;
  m.packed.spec = w.spec;
  m.packed.packed = w.packed;
  m.packed.validate();
  GC_CHECK(w.activation_bits >= 1 && w.activation_bits <= 8, "activation_bits must be in [1, 8], got ",
           w.activation_bits);
  m.activation_bits = w.activation_bits;
  GC_CHECK(w.column_scale.empty() || static_cast<std::int64_t>(w.column_scale.size()) == m.cols,
           "column_scale must have ", m.cols, " entries, got ", w.column_scale.size());
  if (m.kind == Matrix::Kind::table) {
    m.as_table().validate();
    const quant::ValueTable table = quant::value_table(w.spec.bits, w.values);
    m.table = copied(Span<const quant::ValueTable>{&table, 1}, arena);
  }
  if (!w.column_scale.empty()) m.column_scale = copied(w.column_scale, arena);
  m.packed.packed = {copied(w.packed, arena), w.packed.size()};
  return m;
}

void copy_row(const Matrix& m, std::int64_t row, float* out) {
  switch (m.kind) {
    case Matrix::Kind::f32: copy_dense_row<float>(m, row, out); break;
    case Matrix::Kind::bf16: copy_dense_row<bf16>(m, row, out); break;
    case Matrix::Kind::table: quant::dequantize_row(m.as_table(), row, out); break;
    default: quant::dequantize_row(m.packed.spec, m.packed.packed, row, out);
  }
  for (std::int64_t k = 0; m.column_scale && k < m.cols; ++k) out[k] *= m.column_scale[k];
}

void Activations::resize(std::int64_t rows, std::int64_t cols) {
  rows_ = rows;
  cols_ = cols;
  stride_ = row_stride(cols);
  values_.resize(static_cast<std::size_t>(rows * stride_));
  for (Rounded& r : rounded_) r.expected = false;
  padded_cols_ = 0;
}

void Activations::expect(const Matrix& reader) {
  if (const std::int64_t end = reader.packed.spec.k_padded(); reader.kind == Matrix::Kind::table && end > cols_) {
    padded_cols_ = std::max(padded_cols_, end);
    padded_.resize(static_cast<std::size_t>(rows_ * padded_cols_));
  }
  if (reader.kind != Matrix::Kind::packed) return;
  Rounded& rounded = rounded_to(reader.activation_bits);
  if (!rounded.expected) rounded.rows.resize(rows_, cols_, rounded.bits);
  rounded.expected = true;
  rounded.rows.expect(reader.packed.spec);
}

Activations::Rounded& Activations::rounded_to(int bits) {
  for (Rounded& r : rounded_) {
    if (r.bits == bits) return r;
  }
  rounded_.emplace_back();
  rounded_.back().bits = bits;
  return rounded_.back();
}

const quant::QuantizedRows& Activations::rounded_to(int bits) const {
  const auto found =
      std::find_if(rounded_.begin(), rounded_.end(), [bits](const Rounded& r) { return r.bits == bits; });
  GC_CHECK(found != rounded_.end(), "activations must expect a reader of ", bits, " bits, got none");
  return found->rows;
}

std::int64_t Activations::column_step() const {
  std::int64_t step = 1;
  for (const Rounded& r : rounded_) {
    if (r.expected) step = std::lcm(step, r.rows.block_step());
  }
  return step * quant::kBlock;
}

void Activations::finish(const Rect& part) {
  const std::int64_t c0 = part.c0, c1 = part.c1;
  if (c0 >= c1) return;
  for (Rounded& r : rounded_) {
    if (!r.expected) continue;
    const std::int64_t last = c1 == cols_ ? r.rows.blocks() : c1 / quant::kBlock;
    r.rows.set({row(0), DType::f32, rows_, cols_, stride_}, {part.r0, part.r1, c0 / quant::kBlock, last});
  }
  if (padded_cols_ == 0) return;
  for (std::int64_t r = part.r0; r < part.r1; ++r) {
    float* const to = padded_.data() + r * padded_cols_;
    std::memcpy(to + c0, row(r) + c0, static_cast<std::size_t>(c1 - c0) * sizeof(float));
    if (c1 == cols_) std::fill(to + cols_, to + padded_cols_, 0.0f);
  }
}

void columns(const Matrix& m, const Activations& x, const quant::RowRange& range, std::int64_t p0, std::int64_t p1,
             float* y, std::int64_t stride, bool add) {
  const quant::MutableRowsView to{y, DType::f32, x.rows_, m.rows, stride, add};
  const std::int64_t n0 = p0 * 16, n1 = std::min(p1 * 16, m.rows);
  const std::int64_t row0 = range.begin, rows = std::min(x.rows_, range.end) - row0;
  if (m.kind == Matrix::Kind::packed) {
    quant::linear_columns(m.packed, x.rounded_to(m.activation_bits), n0, n1, to, nullptr, range);
  } else if (m.kind == Matrix::Kind::table) {
    const bool whole = m.packed.spec.k_padded() == x.cols_;
    const std::int64_t x_stride = whole ? x.stride_ : x.padded_cols_;
    const float* const from = (whole ? x.values_.data() : x.padded_.data()) + row0 * x_stride;
    quant::linear_columns(m.as_table(), {from, DType::f32, rows, x.cols_, x_stride}, n0, n1,
                          {y + row0 * stride, DType::f32, rows, m.rows, stride, add});
  } else {
    dense_columns(m, x.values_.data(), x.stride_, row0, rows, p0, p1, to);
  }
}

}  // namespace gramcore::model
