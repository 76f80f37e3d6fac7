// Products of a matrix with a packed one, a band of rows at a time, so that what is done with a result finds it in the
// caches: the projections and lifts of optimizers with moments in a subspace.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>

#include "core/thread_pool.h"
#include "optim/engine.h"
#include "optim/kernels/product.h"

namespace gramcore::optim {

// A matrix to be read: (i, k) is element i * row_stride + k * column_stride; one of the strides is 1, or has nothing to
// reach.
struct Factor {
  const void* data = nullptr;
  Storage storage = Storage::f32;
  std::int64_t rows = 0, columns = 0, row_stride = 0, column_stride = 1;

  Factor transposed() const { return {data, storage, columns, rows, column_stride, row_stride}; }
  // Row `first` and those after it, of a form's tile at most.
  Lines lines(std::int64_t first, std::int64_t count) const;
};

// Words in memory that begins with a cache line.
class Words {
 public:
  Words() = default;
  explicit Words(std::int64_t count)
      : data_(static_cast<std::uint32_t*>(
            ::operator new(static_cast<std::size_t>(count) * sizeof(std::uint32_t), std::align_val_t(64)))) {}
  std::uint32_t* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(std::uint32_t* p) const { ::operator delete(p, std::align_val_t(64)); }
  };
  std::unique_ptr<std::uint32_t, Free> data_;
};

// What multiplies matrices stored so fastest on this processor: an ordinary library, or products below, wide or narrow.
enum class ProductKind : std::uint8_t { library, wide, narrow };
ProductKind best_product(Storage storage);

// The right side of products: (inner, columns).
class PackedFactor {
 public:
  // narrow: both sides are rounded to bf16, where the machine has such products, else refused.
  PackedFactor(const Factor& b, bool narrow);

  std::int64_t inner() const { return inner_; }
  std::int64_t columns() const { return columns_; }
  const ProductForm& form() const { return form_; }
  std::int64_t words() const { return (inner_ + form_.per_word - 1) / form_.per_word; }
  // From word k of a tile of columns.
  const std::uint32_t* at(std::int64_t tile, std::int64_t k) const {
    return data_.get() + (tile * words() + k) * form_.columns;
  }

 private:
  ProductForm form_;
  std::int64_t inner_, columns_;
  Words data_;
};

inline constexpr std::int64_t kBandRows = 48;      // a multiple of every tile's rows
inline constexpr std::int64_t kBandColumns = 256;  // and of its columns
inline constexpr std::int64_t kInnerWords = 256;   // a tile of the right side that the first-level cache holds
inline constexpr std::int64_t kTaskBands = 4;

// Memory that will be read soon, asked for a few cache lines at a time while something else is computed.
class Ahead {
 public:
  Ahead() = default;
  // `runs` runs of `bytes`, each `stride` bytes after the last.
  Ahead(const void* data, std::int64_t runs, std::int64_t bytes, std::int64_t stride)
      : at_(static_cast<const char*>(data)), runs_(runs), bytes_(bytes), stride_(stride) {}
  void some(std::int64_t lines) {
    for (; lines > 0 && runs_ > 0; --lines) {
      __builtin_prefetch(at_ + done_, 0, 2);
      done_ += 64;
      if (done_ < bytes_) continue;
      done_ = 0;
      at_ += stride_;
      --runs_;
    }
  }

 private:
  const char* at_ = nullptr;
  std::int64_t runs_ = 0, bytes_ = 0, stride_ = 0, done_ = 0;
};

// A B, by bands of kBandRows rows and blocks of kBandColumns columns of them.
class Product {
 public:
  Product(const Factor& a, const PackedFactor& b) : a_(a), b_(b) {}
  std::int64_t rows() const { return a_.rows; }
  std::int64_t columns() const { return b_.columns(); }

  // out = A B, its rows one after the other.
  void store(float* out) const;

  // fn(i, j, n, values): values holds the elements [j, j + n) of row i.  From several threads.  ahead(i, rows, j, n)
  // says what fn will read for the block whose first element is (i, j).
  template <class F, class G>
  void each_stretch(F&& fn, G&& ahead) const {
    each_band([&](std::int64_t first, std::int64_t height, const std::uint32_t* packed, Ahead& next, float* values) {
      for (std::int64_t j = 0; j < b_.columns(); j += kBandColumns) {
        const std::int64_t n = std::min(kBandColumns, b_.columns() - j);
        Ahead soon = ahead(first, height, j, n);
        block(packed, height, j, values, kBandColumns, soon, next);
        for (std::int64_t i = 0; i < height; ++i) fn(first + i, j, n, values + i * kBandColumns);
      }
    });
  }

 private:
  // fn(first row, rows, packed rows, the rows after them, room for a block)
  template <class F>
  void each_band(F&& fn) const {
    const std::int64_t task_rows = kTaskBands * kBandRows;
    parallel_chunks((a_.rows + task_rows - 1) / task_rows, [&](std::int64_t task) {
      const Words packed(kBandRows * b_.words() + 16), values(kBandRows * kBandColumns);
      const std::int64_t end = std::min(a_.rows, (task + 1) * task_rows);
      for (std::int64_t i = task * task_rows; i < end; i += kBandRows) {
        const std::int64_t height = std::min(kBandRows, end - i);
        pack(i, height, packed.get());
        Ahead next = i + height < end ? rows_ahead(i + height, std::min(kBandRows, end - i - height)) : Ahead();
        fn(i, height, packed.get(), next, reinterpret_cast<float*>(values.get()));
      }
    });
  }
  void pack(std::int64_t first, std::int64_t height, std::uint32_t* packed) const;
  Ahead rows_ahead(std::int64_t first, std::int64_t height) const;
  // Columns [j, j + kBandColumns) of a packed band; what is beyond the product, up to the end of a tile, is left open.
  void block(const std::uint32_t* packed, std::int64_t height, std::int64_t j, float* to, std::int64_t stride,
             Ahead& soon, Ahead& next) const;

  const Factor a_;
  const PackedFactor& b_;
};

}  // namespace gramcore::optim
