// Tiles of a product of matrices, from panels packed in the order in which a tile reads them.
#pragma once

#include <cstdint>

namespace gramcore::optim {

enum class Element : std::uint8_t { f32, bf16, f16 };

// Some lines of a matrix: element k of line i is at data[i * across + k * along]; one of the strides is 1.
struct Lines {
  const void* data;
  Element element;
  std::int64_t across, along;
  int count;       // lines
  std::int64_t n;  // elements of each
};

// How elements are held while they are multiplied.
struct ProductForm {
  int rows, columns;  // of a tile
  int per_word;       // elements along the lines in 32 bits: one fp32, or two bf16
  // to[k * width + i] = word k of line i, zeros beyond the lines; writes up to 16 words too many.
  void (*pack)(const Lines& lines, int width, std::uint32_t* to);
  // c[i * stride + j] = the sum over k of a[k * rows + i] b[k * columns + j], added to c if `add`.
  void (*tile)(const std::uint32_t* a, const std::uint32_t* b, std::int64_t words, float* c, std::int64_t stride,
               bool add);
};

struct ProductKernels {
  ProductForm wide;    // fp32
  ProductForm narrow;  // bf16 by dot products of pairs, summed in fp32; without functions where there is no such thing
};
const ProductKernels& product_kernels();

}  // namespace gramcore::optim
