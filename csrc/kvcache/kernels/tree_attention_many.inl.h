// fp32 products of many rows: scores with rows as lanes, keys read where they lie (or widened, never transposed);
// weighted sums with dimensions as lanes.  Each sum has the order of attend_few, so its bits.  Included by
// tree_attention.inl.h inside its namespace.
#pragma once

constexpr std::int64_t kMostLanes = kMostVecs * kLanes;  // rows of a group, which shares a block of the product

// What a block keeps in its scratch: rows in groups of kMostLanes, the last one shorter.
struct LaneScratch {
  std::int64_t rows, dim;  // rounded up to whole vectors
  float *scores, *acc, *most, *sums, *weights, *query, *tile;

  explicit LaneScratch(const AttentionBlock& b) : rows(round_up(b.rows, kLanes)), dim(padded_dim(b.head_dim)) {
    scores = b.scratch;  // [group][slot][row]
    acc = scores + rows * b.num_keys;
    most = acc + rows * dim;
    sums = most + rows;
    weights = sums + rows;                     // [slot][row] of a tile
    query = weights + kTileKeys * kMostLanes;  // [group][dimension][row]
    tile = query + rows * b.head_dim;
  }
  static std::int64_t floats(const AttentionBlock& b) {
    const std::int64_t rows = round_up(b.rows, kLanes), dim = padded_dim(b.head_dim);
    return rows * (b.num_keys + dim + 2 + b.head_dim) + kTileKeys * (kMostLanes + dim);
  }
  std::int64_t lanes(std::int64_t row) const { return rows - row < kMostLanes ? rows - row : kMostLanes; }
};

// The tile's keys as a matrix of a row per key.
template <class T>
static Matrix key_matrix(const AttentionBlock& b, const LaneScratch& t, std::int64_t first, int count) {
  auto* tile = reinterpret_cast<std::int32_t*>(t.tile);
  if (b.key_tiles) {
    if constexpr (sizeof(T) == 4) return {bits_at(static_cast<const T*>(b.key) + first * b.head_dim), 1, kTileKeys};
    widen_keys<T>(tile, b, first, static_cast<int>(b.head_dim));
    return {tile, 1, kTileKeys};
  }
  if constexpr (sizeof(T) == 4) return {bits_at(static_cast<const T*>(b.key) + first * b.key_step), b.key_step, 1};
  widen_rows<T>(tile, b.key, b.key_step, b.key_scale, b.head_dim, first, count, t.dim);
  return {tile, t.dim, 1};
}

// Scores of slots [first, first + count) for `lanes` rows from `row`: those of unseen slots become -inf.
static void mask_lanes(float* scores, const AttentionBlock& b, std::int64_t row, std::int64_t lanes, std::int64_t first,
                       int count) {
  const std::int64_t last = row + lanes < b.rows ? row + lanes : b.rows, last_slot = first + count - b.context;
  for (std::int64_t node = b.first_node + row / b.group; row < last; ++node) {
    const std::int64_t end = (node + 1 - b.first_node) * b.group, to = end < last ? end : last;
    // Among new slots, which count from the context on; a chain's node sees those up to its own.
    std::int64_t t = b.ancestors ? 0 : node + 1;
    for (t = t > first - b.context ? t : first - b.context; t < last_slot; ++t) {
      if (b.ancestors && ((b.ancestors[node * b.words + (t >> 6)] >> (t & 63)) & 1u)) continue;
      float* const slot = scores + (t + b.context - first) * lanes;
      for (std::int64_t r = row; r < to; ++r) slot[r % kMostLanes] = -__builtin_inff();
    }
    row = to;
  }
}

static void raise_most(float* most, const float* scores, std::int64_t lanes, int count) {
  for (std::int64_t l = 0; l < lanes; l += kLanes) {
    Vf m = load(most + l);
    for (int j = 0; j < count; ++j) m = max(load(scores + j * lanes + l), m);
    store(most + l, m);
  }
}

// weights = 2^(scores - most), and their sums in the order of slots.
static void weigh(float* weights, float* sums, const float* most, const float* scores, std::int64_t lanes, int count) {
  for (std::int64_t l = 0; l < lanes; l += kLanes) {
    const Vf m = load(most + l), offset = m == -__builtin_inff() ? Vf{} : m;
    Vf sum = load(sums + l);
    for (int j = 0; j < count; ++j) {
      const Vf w = numerator(load(scores + j * lanes + l) - offset);
      sum = sum + w;
      store(weights + j * lanes + l, w);
    }
    store(sums + l, sum);
  }
}

template <class T>
static void attend_many(const AttentionBlock& b) {
  const LaneScratch t(b);
  for (std::int64_t r = 0; r < t.rows; ++r) {
    const std::int64_t row = r - r % kMostLanes;
    for (std::int64_t d = 0; d < b.head_dim; ++d) {
      t.query[row * b.head_dim + d * t.lanes(row) + r - row] = r < b.rows ? b.query[r * b.head_dim + d] : 0.0f;
    }
    t.most[r] = -__builtin_inff();
    t.sums[r] = 0.0f;
  }
  for (std::int64_t k = 0; k < b.num_keys; k += kTileKeys) {
    const int count = static_cast<int>(b.num_keys - k < kTileKeys ? b.num_keys - k : kTileKeys);
    const Matrix keys = key_matrix<T>(b, t, k, count);
    Fetch next(b, b.key, sizeof(T), b.key_step, keys.step == 1 && sizeof(T) == 4 ? k + kTileKeys : b.num_keys,
               kTileKeys, Fetch::calls(t.lanes(0) * count, b.head_dim));
    for (std::int64_t row = 0; row < t.rows; row += kMostLanes) {
      const std::int64_t lanes = t.lanes(row);
      float* scores = t.scores + row * b.num_keys + k * lanes;
      multiply_all<F32Products>(scores, lanes, false, keys, count, bits_at(t.query + row * b.head_dim), lanes, lanes,
                                b.head_dim, &next);
      mask_lanes(scores, b, row, lanes, k, count);
      raise_most(t.most + row, scores, lanes, count);
    }
  }
  const bool direct = sizeof(T) == 4 && b.head_dim == t.dim;
  for (std::int64_t k = 0; k < b.num_keys; k += kTileKeys) {
    const int count = static_cast<int>(b.num_keys - k < kTileKeys ? b.num_keys - k : kTileKeys);
    if (!direct)
      widen_rows<T>(reinterpret_cast<std::int32_t*>(t.tile), b.value, b.value_step, b.value_scale, b.head_dim, k, count,
                    t.dim);
    const void* values = direct ? static_cast<const void*>(static_cast<const T*>(b.value) + k * b.value_step) : t.tile;
    Fetch next(b, b.value, sizeof(T), b.value_step, direct ? k + kTileKeys : b.num_keys, kTileKeys,
               Fetch::calls(t.lanes(0) * t.dim, count));
    for (std::int64_t row = 0; row < t.rows; row += kMostLanes) {
      const std::int64_t lanes = t.lanes(row), rows = b.rows - row < lanes ? b.rows - row : lanes;
      weigh(t.weights, t.sums + row, t.most + row, t.scores + row * b.num_keys + k * lanes, lanes, count);
      multiply_all<F32Products>(t.acc + row * t.dim, t.dim, k > 0, {bits_at(t.weights), 1, lanes}, rows,
                                bits_at(values), direct ? b.value_step : t.dim, t.dim, count, &next);
    }
  }
  for (std::int64_t r = 0; r < b.rows; ++r) {
    write_row(b.out + r * b.head_dim, t.acc + r * t.dim, t.sums[r], b.head_dim);
  }
}
