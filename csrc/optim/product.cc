#include "optim/product.h"

#include "core/check.h"
#include "core/cpu.h"

namespace gramcore::optim {
namespace {

Element element_of(Storage storage) {
  return storage == Storage::f32 ? Element::f32 : storage == Storage::bf16 ? Element::bf16 : Element::f16;
}

ProductForm form_of(bool narrow) {
  const ProductKernels& kernels = product_kernels();
  GC_CHECK(!narrow || kernels.narrow.tile, "narrow must be false on a processor without dot products of bf16");
  return narrow ? kernels.narrow : kernels.wide;
}

}  // namespace

Lines Factor::lines(std::int64_t first, std::int64_t count) const {
  const std::int64_t offset = first * row_stride * (storage == Storage::f32 ? 4 : 2);
  return {static_cast<const char*>(data) + offset,
          element_of(storage),
          row_stride,
          column_stride,
          static_cast<int>(std::min(count, rows - first)),
          columns};
}

// Measured: Intel's processors multiply pairs of bf16 at half the rate of fp32, unless they have tiles, which libraries
// use; libraries reach nine tenths of their fp32 rate, and seven tenths of AMD's, whose pairs have twice that rate.
ProductKind best_product(Storage storage) {
#if defined(__x86_64__)
  const bool pairs = product_kernels().narrow.tile != nullptr;
  if (storage == Storage::f16) return ProductKind::wide;
  if (cpu_is_amd()) return storage == Storage::bf16 && pairs ? ProductKind::narrow : ProductKind::wide;
  const bool tiles = (usable_level_mask() >> static_cast<int>(CpuLevel::amx)) & 1u;
  return storage == Storage::f32 || tiles ? ProductKind::library : ProductKind::wide;
#else
  return storage == Storage::f16 ? ProductKind::wide : ProductKind::library;
#endif
}

PackedFactor::PackedFactor(const Factor& b, bool narrow) : form_(form_of(narrow)), inner_(b.rows), columns_(b.columns) {
  const std::int64_t tiles = (columns_ + form_.columns - 1) / form_.columns;
  data_ = Words(tiles * words() * form_.columns + 16);
  const Factor lines = b.transposed();
  parallel_chunks(tiles, [&](std::int64_t tile) {
    form_.pack(lines.lines(tile * form_.columns, form_.columns), form_.columns,
               data_.get() + tile * words() * form_.columns);
  });
}

void Product::pack(std::int64_t first, std::int64_t height, std::uint32_t* packed) const {
  const ProductForm& form = b_.form();
  for (std::int64_t i = 0; i < height; i += form.rows) {
    form.pack(a_.lines(first + i, form.rows), form.rows, packed + i * b_.words());
  }
}

Ahead Product::rows_ahead(std::int64_t first, std::int64_t height) const {
  const std::int64_t size = a_.storage == Storage::f32 ? 4 : 2;
  const char* const data = static_cast<const char*>(a_.data) + first * a_.row_stride * size;
  if (a_.column_stride == 1) return {data, height, a_.columns * size, a_.row_stride * size};
  return {data, a_.columns, height * size, a_.column_stride * size};
}

void Product::block(const std::uint32_t* packed, std::int64_t height, std::int64_t j, float* to, std::int64_t stride,
                    Ahead& soon, Ahead& next) const {
  const ProductForm& form = b_.form();
  const std::int64_t width = std::min(kBandColumns, b_.columns() - j), words = b_.words();
  for (std::int64_t k = 0; k < words; k += kInnerWords) {
    const std::int64_t count = std::min(kInnerWords, words - k);
    for (std::int64_t column = 0; column < width; column += form.columns) {
      const std::uint32_t* const right = b_.at((j + column) / form.columns, k);
      for (std::int64_t row = 0; row < height; row += form.rows) {
        soon.some(32);
        next.some(32);
        form.tile(packed + row * words + k * form.rows, right, count, to + row * stride + column, stride, k > 0);
      }
    }
  }
}

void Product::store(float* out) const {
  const std::int64_t columns = b_.columns();
  each_band([&](std::int64_t first, std::int64_t height, const std::uint32_t* packed, Ahead& next, float* values) {
    for (std::int64_t j = 0; j < columns; j += kBandColumns) {
      const std::int64_t n = std::min(kBandColumns, columns - j);
      float* const to = out + first * columns + j;
      Ahead none;
      if (height % b_.form().rows == 0 && n % b_.form().columns == 0) {
        block(packed, height, j, to, columns, none, next);
        continue;
      }
      block(packed, height, j, values, kBandColumns, none, next);
      for (std::int64_t i = 0; i < height; ++i) std::copy_n(values + i * kBandColumns, n, to + i * columns);
    }
  });
}

}  // namespace gramcore::optim
