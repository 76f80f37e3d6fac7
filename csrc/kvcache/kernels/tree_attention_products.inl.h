// What the ways to compute attention share: how packed elements multiply, caches brought into 32-bit form, and one
// product of a matrix that is read where it lies with packed vectors.  Included by tree_attention.inl.h inside its
// namespace.
#pragma once

constexpr int kMostVecs = kLanes == 16 ? 4 : 2;  // vectors of a block of the product
constexpr int kBlockSums = kLanes == 16 ? 24 : 12;

// How 32-bit elements of the packed tiles multiply: one fp32 number, or a pair of bf16.
struct F32Products {
  static constexpr int kPer = 1;  // reduced elements in one 32-bit lane
  GC_INLINE Vf madd(Vf acc, Vi vector, std::int32_t scalar) {
    return acc + reinterpret_cast<Vf>(vector) * reinterpret_cast<Vf>(splat(scalar));
  }
};

#if defined(__AVX512BF16__)
struct Bf16Products {
  static constexpr int kPer = 2;
  GC_INLINE Vf madd(Vf acc, Vi vector, std::int32_t scalar) {
    return reinterpret_cast<Vf>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(acc), reinterpret_cast<__m512bh>(vector),
                                                 reinterpret_cast<__m512bh>(splat(scalar))));
  }
};
#endif

GC_INLINE Vi load_bits(const void* p) {
  Vi v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
GC_INLINE void store_bits(std::int32_t* p, Vi v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
GC_INLINE const std::int32_t* bits_at(const void* p) {
  return static_cast<const std::int32_t*>(p);
}
GC_INLINE Vf as_floats(Vi v) {
  return reinterpret_cast<Vf>(v);
}
GC_INLINE Vi as_bits(Vf v) {
  return reinterpret_cast<Vi>(v);
}

// kLanes elements from row + d as fp32, zeros past head_dim.
template <class T>
GC_INLINE Vf row_lanes(const T* row, std::int64_t d, std::int64_t head_dim) {
  if (d + kLanes <= head_dim) return load_f32(row + d);
  return load_partial(row + d, head_dim > d ? static_cast<int>(head_dim - d) : 0);
}

// 4 * kLanes bytes from row + 4 d, zeros past `bytes`.
GC_INLINE Vi raw_lanes(const char* row, std::int64_t d, std::int64_t bytes) {
  if (4 * (d + kLanes) <= bytes) return load_bits(row + 4 * d);
  char part[4 * kLanes] = {};
  for (std::int64_t i = 0; 4 * d + i < bytes && i < 4 * kLanes; ++i) part[i] = row[4 * d + i];
  return load_bits(part);
}

// rows[i]: 32-bit element d + i of kLanes rows that are `step` bytes apart.
GC_INLINE void transpose_whole(Vi* rows, const char* from, std::int64_t step) {
#if defined(__AVX512F__)
  // Quarters are put in place as they are loaded; two rounds of exchanges are left.
#pragma GCC unroll 4
  for (int column = 0; column < 4; ++column) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const auto quarter = [&](int j) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + (4 * j + i) * step + 16 * column));
      };
      __m512i v = _mm512_castsi128_si512(quarter(0));
      v = _mm512_inserti32x4(v, quarter(1), 1);
      v = _mm512_inserti32x4(v, quarter(2), 2);
      rows[4 * column + i] = reinterpret_cast<Vi>(_mm512_inserti32x4(v, quarter(3), 3));
    }
  }
  swap_blocks<2>(rows);
  swap_blocks<1>(rows);
#else
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) rows[i] = load_bits(from + i * step);
  transpose(rows);
#endif
}

// The same of keys in a cache: those from `here` on and elements past `bytes` are zero.
GC_INLINE void transpose_keys(Vi* rows, const char* from, std::int64_t step, int here, std::int64_t d,
                              std::int64_t bytes) {
  if (here >= kLanes && 4 * (d + kLanes) <= bytes) {
    transpose_whole(rows, from + 4 * d, step);
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) rows[i] = i < here ? raw_lanes(from + i * step, d, bytes) : Vi{};
    transpose(rows);
  }
}

// The lower halves of 32-bit elements as fp32; the second argument says what they are.
template <class T>
GC_INLINE Vf widen_halves(Vi elements, const T*) {
  const Vh halves = __builtin_convertvector(reinterpret_cast<Vu>(elements), Vh);
  T stored[kLanes];
  __builtin_memcpy(stored, &halves, sizeof(halves));
  return load_f32(stored);
}
GC_INLINE Vf widen_halves(Vi elements, const bf16*) {
  return as_floats(elements << 16);
}

// tile[step][key]: kKeys keys from `first`, transposed, the first `count` of them; the others are zero.  Where
// products take one element, two of a 16-bit cache are transposed as one and taken apart.
template <class Products, class T, int kKeys>
static void pack_keys(std::int32_t* tile, const AttentionBlock& b, std::int64_t first, int count, int steps) {
  constexpr bool kRaw = Products::kPer * sizeof(T) == 4;  // elements are moved, not converted
  const std::int64_t step = b.key_step * static_cast<std::int64_t>(sizeof(T));
  const std::int64_t bytes = b.head_dim * static_cast<std::int64_t>(sizeof(T));
  const char* keys = static_cast<const char*>(b.key) + first * step;
  for (int k = 0; k < kKeys; k += kLanes) {
    for (int d = 0; d < (kRaw ? steps : steps / 2); d += kLanes) {
      Vi rows[kLanes];
      transpose_keys(rows, keys + k * step, step, count - k, d, bytes);
      std::int32_t* to = tile + (kRaw ? d : 2 * d) * kKeys + k;
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        if constexpr (kRaw) {
          store_bits(to + i * kKeys, rows[i]);
        } else {
          const T* const kind = nullptr;
          const auto upper = reinterpret_cast<Vi>(reinterpret_cast<Vu>(rows[i]) >> 16);
          store_bits(to + 2 * i * kKeys, as_bits(widen_halves(rows[i], kind)));
          store_bits(to + (2 * i + 1) * kKeys, as_bits(widen_halves(upper, kind)));
        }
      }
    }
  }
}

// The same from an int8 cache: four dimensions are transposed as one element, taken apart and multiplied by the
// factors of the slots.
template <int kKeys>
static void pack_short_keys(std::int32_t* tile, const AttentionBlock& b, std::int64_t first, int count, int steps) {
  const char* keys = static_cast<const char*>(b.key) + first * b.key_step;
  for (int k = 0; k < kKeys; k += kLanes) {
    const int here = count - k < kLanes ? count - k : kLanes;
    const Vf factors =
        here == kLanes ? load(b.key_scale + first + k) : load_partial(b.key_scale + first + k, here > 0 ? here : 0);
    for (int d = 0; d < steps; d += 4 * kLanes) {
      Vi rows[kLanes];
      transpose_keys(rows, keys + k * b.key_step, b.key_step, here, d / 4, b.head_dim);
      for (int i = 0; i < kLanes && d + 4 * i < steps; ++i) {
        std::int32_t* to = tile + (d + 4 * i) * kKeys + k;
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const Vi code = (rows[i] << (24 - 8 * j)) >> 24;
          store_bits(to + j * kKeys, as_bits(__builtin_convertvector(code, Vf) * factors));
        }
      }
    }
  }
}

// The same from keys that are stored transposed: widening, and zero rows past head_dim.
template <class T>
static void widen_keys(std::int32_t* tile, const AttentionBlock& b, std::int64_t first, int steps) {
  const T* keys = static_cast<const T*>(b.key) + first * b.head_dim;
  for (int d = 0; d < steps; ++d) {
    for (int k = 0; k < static_cast<int>(kTileKeys); k += kLanes) {
      Vf lanes = d < b.head_dim ? load_f32(keys + d * kTileKeys + k) : Vf{};
      if constexpr (sizeof(T) == 1) lanes = lanes * load(b.key_scale + first + k);
      store(reinterpret_cast<float*>(tile) + d * kTileKeys + k, lanes);
    }
  }
}

// tile[slot][dim]: `count` rows of a cache as fp32, zeros past head_dim.  Fetches the tile behind it.
template <class T>
static void widen_rows(std::int32_t* tile, const void* cache, std::int64_t cache_step, const float* factors,
                       std::int64_t head_dim, std::int64_t first, int count, std::int64_t dim) {
  for (int k = 0; k < count; ++k) {
    const T* row = static_cast<const T*>(cache) + (first + k) * cache_step;
    for (std::int64_t d = 0; d < head_dim * static_cast<int>(sizeof(T)); d += 64) {
      __builtin_prefetch(reinterpret_cast<const char*>(row + kTileKeys * cache_step) + d);
    }
    for (std::int64_t d = 0; d < dim; d += kLanes) {
      Vf lanes = row_lanes(row, d, head_dim);
      if constexpr (sizeof(T) == 1) lanes = lanes * factors[first + k];
      store(reinterpret_cast<float*>(tile) + k * dim + d, lanes);
    }
  }
}

// A matrix of 32-bit elements where it lies; steps count elements.
struct Matrix {
  const std::int32_t* data;
  std::int64_t row, step;
};

// Brings a tile of a cache near while something else is computed, a few lines at a time.
class Fetch {
 public:
  // `slots` slots from `first`, in `calls` calls of some().
  Fetch(const AttentionBlock& b, const void* cache, std::int64_t element, std::int64_t step, std::int64_t first,
        std::int64_t slots, std::int64_t calls)
      : row_(static_cast<const char*>(cache) + first * step * element),
        bytes_(b.head_dim * element),
        step_(step * element),
        rows_(b.num_keys - first < slots ? b.num_keys - first : slots),
        each_(slots * ((bytes_ + 63) / 64) / calls + 1) {}
  // Calls during a product of `sums` sums with `steps` steps each.
  GC_INLINE std::int64_t calls(std::int64_t sums, std::int64_t steps) {
    return (sums / (kBlockSums * kLanes) + 1) * ((steps + kPart - 1) / kPart);
  }
  static constexpr std::int64_t kPart = 16;  // steps of a product between calls
  GC_INLINE void some(Fetch* fetch) {
    if (!fetch) return;
    for (std::int64_t i = 0; i < fetch->each_ && fetch->rows_ > 0; ++i) {
      __builtin_prefetch(fetch->row_ + fetch->at_, 0, 2);
      fetch->at_ += 64;
      if (fetch->at_ >= fetch->bytes_) {
        fetch->at_ = 0;
        fetch->row_ += fetch->step_;
        --fetch->rows_;
      }
    }
  }

 private:
  const char* row_;
  std::int64_t bytes_, step_, rows_, each_, at_ = 0;
};

// out[m][lane] = or += sum over steps of a(m, step) b[step][lane], for kRows rows and kVecs vectors of lanes; every sum
// in ascending order of steps, whatever the block.
template <class Products, int kRows, int kVecs>
static void multiply_block(float* out, std::int64_t out_row, bool add, Matrix a, const std::int32_t* b,
                           std::int64_t b_step, std::int64_t steps, Fetch* fetch) {
  constexpr int kBases = (kRows + 2) / 3;
  Vf acc[kRows][kVecs];
  const std::int32_t* base[kBases];
#pragma GCC unroll 4
  for (int i = 0; i < kBases; ++i) base[i] = a.data + 3 * i * a.row;
  if (add) {
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (int u = 0; u < kVecs; ++u) acc[m][u] = load(out + m * out_row + u * kLanes);
    }
  } else {
#pragma GCC unroll 12
    for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
      for (int u = 0; u < kVecs; ++u) acc[m][u] = Vf{};
    }
  }
  for (std::int64_t part = 0; part < steps; part += Fetch::kPart) {
    Fetch::some(fetch);
    const std::int64_t end = steps - part < Fetch::kPart ? steps - part : Fetch::kPart;
    for (std::int64_t s = 0; s < end; ++s) {
      Vi vectors[kVecs];
#pragma GCC unroll 4
      for (int u = 0; u < kVecs; ++u) vectors[u] = load_bits(b + u * kLanes);
#pragma GCC unroll 12
      for (int m = 0; m < kRows; ++m) {
        const std::int32_t x = base[m / 3][m % 3 * a.row];
#pragma GCC unroll 4
        for (int u = 0; u < kVecs; ++u) acc[m][u] = Products::madd(acc[m][u], vectors[u], x);
      }
#pragma GCC unroll 4
      for (int i = 0; i < kBases; ++i) base[i] += a.step;
      b += b_step;
    }
  }
#pragma GCC unroll 12
  for (int m = 0; m < kRows; ++m) {
#pragma GCC unroll 4
    for (int u = 0; u < kVecs; ++u) store(out + m * out_row + u * kLanes, acc[m][u]);
  }
}

template <class Products, int kVecs>
static void multiply_rows(float* out, std::int64_t out_row, bool add, Matrix a, std::int64_t rows,
                          const std::int32_t* b, std::int64_t b_step, std::int64_t steps, Fetch* fetch) {
  constexpr int kFull = kBlockSums / kVecs < 12 ? kBlockSums / kVecs : 12;
  const auto block = [&](auto fn, std::int64_t m) {
    fn(out + m * out_row, out_row, add, Matrix{a.data + m * a.row, a.row, a.step}, b, b_step, steps, fetch);
  };
  std::int64_t m = 0;
  for (; m + kFull <= rows; m += kFull) block(multiply_block<Products, kFull, kVecs>, m);
  for (; m + 4 <= rows; m += 4) block(multiply_block<Products, 4, kVecs>, m);
  for (; m + 2 <= rows; m += 2) block(multiply_block<Products, 2, kVecs>, m);
  if (m < rows) block(multiply_block<Products, 1, kVecs>, m);
}

// The same for any number of rows and any multiple of kLanes lanes; `fetch` may be null.
template <class Products>
static void multiply_all(float* out, std::int64_t out_row, bool add, Matrix a, std::int64_t rows, const std::int32_t* b,
                         std::int64_t b_step, std::int64_t lanes, std::int64_t steps, Fetch* fetch) {
  for (std::int64_t l = 0; l < lanes; l += kMostVecs * kLanes) {
    const std::int64_t vecs = (lanes - l) / kLanes;
    const auto with = [&](auto fn) { fn(out + l, out_row, add, a, rows, b + l, b_step, steps, fetch); };
    if (vecs >= kMostVecs) {
      with(multiply_rows<Products, kMostVecs>);
    } else if (vecs == 3) {
      with(multiply_rows < Products, kMostVecs < 3 ? 1 : 3 >);
    } else if (vecs == 2) {
      with(multiply_rows<Products, 2>);
    } else {
      with(multiply_rows<Products, 1>);
    }
  }
}
