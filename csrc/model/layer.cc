// The phases of a layer.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/thread_pool.h"
#include "model/decoder.h"
#include "model/kernels/layers.h"

namespace gramcore::model {
namespace {

constexpr std::int64_t kBlock = quant::kBlock;
constexpr std::int64_t kChunkRows = 128;  // of an item: what the products multiply at once
constexpr std::int64_t kMostPanels = 16;  // of an item with many rows: its results stay in the second-level cache
constexpr std::int64_t kFewRows = 2;      // are brought into form sooner than another thread joins
constexpr std::int64_t kTileRows = 16;    // of a tile of quant::QuantizedRows: tiles share no cache lines

std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Items of a product: enough to share out evenly, few enough that taking one costs nothing beside it.
std::int64_t wanted_items() {
  return std::int64_t{num_threads()} * 6;
}

// Whether columns are better brought into their next form by who computes them, in parts of `step`, than in a phase of
// their own: not if parts are so few that threads would wait for the last.
bool fusable(std::int64_t rows, std::int64_t cols, std::int64_t step) {
  const int threads = num_threads();
  return threads == 1 || ceil_div(cols, step) * ceil_div(rows, kChunkRows) >= 4 * threads;
}

}  // namespace

void Decoder::add_cuts(std::int64_t rows, std::vector<Panels> products, RunCut run) {
  std::int64_t panels = 0;
  for (const Panels& p : products) panels += p.w->num_panels();
  const std::int64_t chunks = ceil_div(rows, kChunkRows);
  std::int64_t each = std::max<std::int64_t>(1, panels / ceil_div(wanted_items(), chunks));
  if (rows > kTileRows) each = std::min(each, kMostPanels);
  std::vector<Cut> cuts;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const auto& [w, unit] = products[i];
    const std::int64_t step = std::max(unit, each / unit * unit), end = w->num_panels();
    for (std::int64_t p = 0; p < end; p += step) cuts.push_back({i, p, std::min(end, p + step)});
  }
  const auto per_chunk = static_cast<std::int64_t>(cuts.size());
  program_.add(per_chunk * chunks, [cuts = std::move(cuts), products = std::move(products), run = std::move(run),
                                    per_chunk, rows](std::int64_t item) {
    const Cut& cut = cuts[static_cast<std::size_t>(item % per_chunk)];
    const std::int64_t r0 = item / per_chunk * kChunkRows;
    run(cut, {r0, std::min(rows, r0 + kChunkRows), cut.p0 * 16, std::min(products[cut.product].w->rows, cut.p1 * 16)});
  });
}

// A phase over (rows, cols) in parts for any thread: columns of a few rows, multiples of `step`; rows of many; one part
// where others would cost more than they save.
void Decoder::add_parts(std::int64_t rows, std::int64_t cols, std::int64_t step, std::function<void(const Rect&)> run) {
  if (rows > kTileRows) {
    program_.add(ceil_div(rows, kTileRows), [rows, cols, run = std::move(run)](std::int64_t item) {
      run({item * kTileRows, std::min(rows, (item + 1) * kTileRows), 0, cols});
    });
    return;
  }
  const std::int64_t steps = ceil_div(cols, step);
  const std::int64_t parts = rows <= kFewRows ? 1 : std::min<std::int64_t>(num_threads(), steps);
  const std::int64_t each = ceil_div(steps, parts) * step;
  program_.add(ceil_div(cols, each), [rows, cols, each, run = std::move(run)](std::int64_t item) {
    run({0, rows, item * each, std::min(cols, (item + 1) * each)});
  });
}

std::int64_t Decoder::column_step(const NormedInput& input) const {
  std::int64_t step = 1;
  for (std::size_t copy = 0; copy < input.norms.size(); ++copy) step = std::lcm(step, x_[copy].column_step());
  return step;
}

// The copies of a part of the residual stream that the readers need, and its sums of squares.
void Decoder::weigh(const NormedInput& input, const Rect& part) {
  const std::int64_t stride = row_stride(config_.hidden), rows = x_[0].rows();
  const auto kernel = layers_kernels().weigh;
  for (std::size_t copy = 0; copy < input.norms.size(); ++copy) {
    Activations& x = x_[copy];
    const float* const norm = input.norms[copy].data();
    for (std::int64_t r = part.r0; r < part.r1; ++r) {
      for (std::int64_t c = part.c0; c < part.c1; c += kBlock) {
        const std::int64_t width = std::min(kBlock, part.c1 - c);
        squares_[static_cast<std::size_t>(c / kBlock * rows + r)] =
            kernel(h_.data() + r * stride + c, norm + c, width, x.row(r) + c);
      }
    }
    x.finish(part);
  }
}

// A short serial phase: the factors of all rows, from sums that are added in the order of columns.
void Decoder::add_factors(std::int64_t rows) {
  program_.add(1, [this, rows](std::int64_t) {
    const auto width = static_cast<float>(config_.hidden);
    float* const to = factors_.data();
    std::fill(to, to + rows, 0.0f);
    for (std::int64_t b = 0; b < ceil_div(config_.hidden, kBlock); ++b) {
      for (std::int64_t r = 0; r < rows; ++r) to[r] += squares_[static_cast<std::size_t>(b * rows + r)];
    }
    for (std::int64_t r = 0; r < rows; ++r) to[r] = 1.0f / std::sqrt(to[r] / width + config_.rms_eps);
  });
}

// A part of x, which holds its values already, times the column scale of its reader, in the reader's form.
void Decoder::scale(Activations* x, const Matrix& reader, const Rect& part) const {
  if (const float* const scale = reader.column_scale) {
    for (std::int64_t r = part.r0; r < part.r1; ++r) {
      float* const row = x->row(r) + part.c0;
      layers_kernels().normalise(row, 1.0f, scale + part.c0, part.c1 - part.c0, row);
    }
  }
  x->finish(part);
}

void Decoder::rotate_head(const Pass& pass, const std::vector<float>& norm, std::int64_t row, float* head) const {
  const auto& kernels = layers_kernels();
  const std::int64_t dim = config_.head_dim, half = dim / 2;
  const Part& part = pass.part(row);
  const std::int64_t node = row - part.first;
  const std::int64_t position = part.length + (part.tree ? part.tree->depths[static_cast<std::size_t>(node)] : node);
  if (!norm.empty()) {
    kernels.normalise(head, kernels.rms_factor(head, config_.rms_eps, dim), norm.data(), dim, head);
  }
  kernels.rotate(head, cos_.data() + position * half, sin_.data() + position * half, half);
}

// Queries, keys and values in whole heads, rotated and stored by who computes them.
void Decoder::add_heads(const Pass& pass, std::int64_t index) {
  const Layer& l = layers_[static_cast<std::size_t>(index)];
  const std::int64_t dim = config_.head_dim, unit = std::lcm(dim, std::int64_t{16}) / 16;
  const auto run = [this, pass = &pass, l = &l, index, dim](const Cut& cut, const Rect& part) {
    const Matrix* const matrices[] = {&l->q, &l->k, &l->v};
    const std::vector<float>* const biases[] = {&l->q_bias, &l->k_bias, &l->v_bias};
    float* const results[] = {q_.data(), k_.data(), v_.data()};
    const Matrix& w = *matrices[cut.product];
    const std::vector<float>& bias = *biases[cut.product];
    const std::int64_t stride = row_stride(w.rows);
    float* const y = results[cut.product];
    columns(w, x_[l->attention_input.copy[cut.product]], {part.r0, part.r1}, cut.p0, cut.p1, y, stride);
    for (std::int64_t c = part.c0; c < part.c1; c += dim) {
      for (std::int64_t r = part.r0; r < part.r1; ++r) {
        float* const head = y + r * stride + c;
        layers_kernels().affine(head, factors_[static_cast<std::size_t>(r)], bias.empty() ? nullptr : bias.data() + c,
                                dim);
        if (cut.product < 2) rotate_head(*pass, cut.product == 0 ? l->q_norm : l->k_norm, r, head);
        if (cut.product == 0) continue;
        const Part& of = pass->part(r);
        const std::int64_t slot = of.length + r - of.first;
        if (cut.product == 1) {
          of.cache->store_key(index, c / dim, slot, head);
        } else {
          of.cache->store_value(index, c / dim, slot, head);
        }
      }
    }
  };
  add_cuts(pass.n(), {{&l.q, unit}, {&l.k, unit}, {&l.v, unit}}, run);
}

kvcache::AttentionProblem Decoder::attention(const Part& part, std::int64_t layer) {
  Cache& cache = *part.cache;
  const std::int64_t dim = config_.head_dim, q_stride = row_stride(config_.heads * dim);
  kvcache::AttentionProblem p;
  p.heads = config_.heads;
  p.kv_heads = config_.kv_heads;
  p.nodes = part.n;
  p.head_dim = dim;
  p.capacity = cache.capacity();
  p.query = q_.data() + part.first * q_stride;
  p.query_head = dim;
  p.query_node = q_stride;
  p.key = cache.keys(layer);
  p.value = cache.values(layer);
  p.key_head = p.value_head = cache.head_elements();
  p.key_scale = cache.key_scales(layer);
  p.value_scale = cache.value_scales(layer);
  p.key_scale_head = p.value_scale_head = cache.head_slots();
  p.value_slot = dim;
  p.key_tiles = true;
  p.out = attended_.row(part.first);
  p.kv_dtype = cache.dtype();
  p.lengths = &part.length;
  if (part.tree) {
    p.ancestors = part.tree->ancestors.data();
    p.words = part.tree->words;
  }
  p.scale = 1.0f / std::sqrt(static_cast<float>(dim));
  return p;
}

void Decoder::add_attention(const Pass& pass, std::int64_t index) {
  const Matrix* const reader = &layers_[static_cast<std::size_t>(index)].o;
  kvcache::AttentionItems attend;
  for (const Part& part : pass.parts) attend.add(attention(part, index), attended_.stride());
  const std::int64_t items = attend.size(), step = attended_.column_step();
  const std::int64_t width = config_.heads / config_.kv_heads * config_.head_dim;  // columns of an item
  const bool fused = width % step == 0;
  program_.add(items, [this, pass = &pass, reader, width, fused, attend = std::move(attend)](std::int64_t item) {
    const auto done = attend.run(item);
    if (!fused) return;
    const std::int64_t row = pass->parts[done.problem].first + done.first, c0 = done.kv_head * width;
    scale(&attended_, *reader, {row, row + done.nodes, c0, c0 + width});
  });
  if (fused) return;
  add_parts(pass.n(), attended_.cols(), step, [this, reader](const Rect& part) { scale(&attended_, *reader, part); });
}

// The stream plus x w^T, and, if something follows, what reads it in its form.
void Decoder::add_residual(const Matrix& w, const Activations& x, const NormedInput* next) {
  const std::int64_t rows = x.rows(), step = next ? column_step(*next) : 1;
  const bool fused = next && fusable(rows, config_.hidden, step);
  const std::int64_t unit = fused ? std::lcm(step, std::int64_t{16}) / 16 : 1;
  add_cuts(rows, {{&w, unit}}, [this, &w, &x, next = fused ? next : nullptr](const Cut& cut, const Rect& part) {
    columns(w, x, {part.r0, part.r1}, cut.p0, cut.p1, h_.data(), row_stride(config_.hidden), true);
    if (next) weigh(*next, part);
  });
  if (!next) return;
  if (!fused) add_parts(rows, config_.hidden, step, [this, next](const Rect& part) { weigh(*next, part); });
  add_factors(rows);
}

// silu(gate) * up in the form of down.
void Decoder::add_gated(const Layer& layer) {
  const std::int64_t rows = act_.rows(), step = act_.column_step();
  const bool fused = fusable(rows, act_.cols(), step);
  add_cuts(rows, {{&layer.gate, fused ? std::lcm(step, std::int64_t{16}) / 16 : 1}},
           [this, l = &layer, rows, fused](const Cut& cut, const Rect& part) {
             static thread_local LineVector<float> memory;  // results that stay in the second-level cache
             const std::int64_t width = part.c1 - part.c0, stride = row_stride(width), half = rows * stride;
             if (memory.size() < static_cast<std::size_t>(2 * half)) memory.resize(static_cast<std::size_t>(2 * half));
             float* const results[] = {memory.data(), memory.data() + half};
             const Matrix* const matrices[] = {&l->gate, &l->up};
             for (std::size_t i = 0; i < 2; ++i) {
               columns(matrices[i]->panels_between(cut.p0, cut.p1), x_[l->ffn_input.copy[i]], {part.r0, part.r1}, 0,
                       cut.p1 - cut.p0, results[i], stride);
             }
             for (std::int64_t r = part.r0; r < part.r1; ++r) {
               layers_kernels().swiglu(results[0] + r * stride, results[1] + r * stride,
                                       factors_[static_cast<std::size_t>(r)], width, act_.row(r) + part.c0);
             }
             if (fused) scale(&act_, l->down, part);
           });
  if (!fused) add_parts(rows, act_.cols(), step, [this, l = &layer](const Rect& part) { scale(&act_, l->down, part); });
}

void Decoder::add_layer(const Pass& pass, std::int64_t index) {
  const Layer& l = layers_[static_cast<std::size_t>(index)];
  const bool last = index + 1 == config_.layers;
  add_heads(pass, index);
  add_attention(pass, index);
  add_residual(l.o, attended_, &l.ffn_input);
  add_gated(l);
  add_residual(l.down, act_, last ? nullptr : &layers_[static_cast<std::size_t>(index) + 1].attention_input);
}

}  // namespace gramcore::model
