// The phases of a forward.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "core/thread_pool.h"
#include "model/decoder.h"
#include "model/kernels/layers.h"

namespace gramcore::model {
namespace {

// Panels of a piece of a product: enough pieces to share out evenly, few enough that taking one costs nothing beside
// it.
std::int64_t panels_each(std::int64_t panels) {
  const std::int64_t pieces = std::min(panels, std::int64_t{num_threads()} * 6);
  return (panels + pieces - 1) / pieces;
}

void grow(std::vector<float>* buffer, std::int64_t size) {
  if (buffer->size() < static_cast<std::size_t>(size)) buffer->resize(static_cast<std::size_t>(size));
}

}  // namespace

void Decoder::check(const ForwardRequest& r) const {
  GC_CHECK(finished_, "decoder must be finished before use, got weights still being set");
  const auto extra = static_cast<std::int64_t>(r.extra.size());
  GC_CHECK(extra % config_.hidden == 0, "extra must have rows of ", config_.hidden, " values, got ", extra, " values");
  const std::int64_t num_ids = config_.vocab + extra / config_.hidden;
  std::vector<std::pair<const Cache*, std::size_t>> caches;
  for (std::size_t s = 0; s < r.sequences.size(); ++s) {
    const SequenceRows& rows = r.sequences[s];
    const Cache& cache = *rows.cache;
    caches.emplace_back(&cache, s);
    GC_CHECK(cache.layers() == config_.layers && cache.kv_heads() == config_.kv_heads &&
                 cache.head_dim() == config_.head_dim,
             "cache must be made for this model, got ", cache.layers(), " layers of ", cache.kv_heads(), " x ",
             cache.head_dim(), " (sequence ", s, ")");
    GC_CHECK(rows.n <= cache.capacity() - cache.length(), "ids must fit the cache, got ", rows.n, " tokens (",
             cache.length(), " of ", cache.capacity(), " slots used, sequence ", s,
             "); make the cache or the decoder with more slots");
    GC_CHECK(!rows.parents || rows.n <= kMaxRows, "tree must have at most ", kMaxRows, " nodes, got ", rows.n,
             " (sequence ", s, ")");
    for (std::int64_t i = 0; i < rows.n; ++i) {
      GC_CHECK_AS(OutOfRange, rows.ids[i] >= 0 && rows.ids[i] < num_ids, "ids must be in [0, ", num_ids, "), got ",
                  rows.ids[i], " at position ", i, " (sequence ", s, ")");
      GC_CHECK(!rows.parents || (rows.parents[i] >= -1 && rows.parents[i] < i),
               "parents must be -1 or an earlier node, got ", rows.parents[i], " at node ", i, " (sequence ", s, ")");
    }
  }
  std::sort(caches.begin(), caches.end());
  for (std::size_t i = 1; i < caches.size(); ++i) {
    GC_CHECK(caches[i].first != caches[i - 1].first, "caches must differ, got one for sequences ", caches[i - 1].second,
             " and ", caches[i].second);
  }
}

Decoder::Tree Decoder::read_tree(const SequenceRows& rows) {
  Tree tree;
  if (!rows.parents) return tree;
  const std::int64_t words = tree.words = (rows.n + 63) / 64;
  tree.ancestors.resize(static_cast<std::size_t>(rows.n * words), 0);
  tree.depths.resize(static_cast<std::size_t>(rows.n));
  for (std::int64_t i = 0; i < rows.n; ++i) {
    const std::int64_t parent = rows.parents[i];
    std::uint64_t* row = tree.ancestors.data() + i * words;
    if (parent >= 0) std::memcpy(row, tree.ancestors.data() + parent * words, static_cast<std::size_t>(words) * 8);
    row[i / 64] |= std::uint64_t{1} << (i % 64);
    tree.depths[static_cast<std::size_t>(i)] = parent < 0 ? 0 : tree.depths[static_cast<std::size_t>(parent)] + 1;
  }
  return tree;
}

// All rows in order, cut into passes; a tree stays whole.
void Decoder::forward(const ForwardRequest& r) {
  const std::lock_guard<std::mutex> lock(mutex_);
  check(r);
  std::vector<Tree> trees;
  for (const SequenceRows& rows : r.sequences) {
    trees.push_back(read_tree(rows));
    if (rows.n == 0) continue;
    ensure_rotations(rows.cache->length() + rows.n);
    rows.cache->set_pending(0);
  }
  std::int64_t outputs = 0, done = 0;  // done: rows of the current sequence
  for (std::size_t s = 0; s < r.sequences.size();) {
    Pass pass;
    while (s < r.sequences.size() && pass.n() < kMaxRows) {
      const SequenceRows& rows = r.sequences[s];
      const std::int64_t left = rows.n - done, room = kMaxRows - pass.n();
      if (rows.parents && left > room) break;
      const std::int64_t count = std::min(left, room);
      if (count > 0) add_rows(&pass, rows, rows.parents ? &trees[s] : nullptr, done, count);
      const std::int64_t end = pass.n();
      const std::int64_t first_out = r.all_rows ? end - count : (count == left && count > 0 ? end - 1 : end);
      for (std::int64_t row = first_out; row < end; ++row) pass.out_rows.push_back(row);
      done = count == left ? 0 : done + count;
      if (count == left) ++s;
    }
    pass.extra = r.extra.data();
    pass.logits = r.logits ? r.logits + outputs * config_.vocab : nullptr;
    pass.hidden = r.hidden ? r.hidden + outputs * config_.hidden : nullptr;
    outputs += static_cast<std::int64_t>(pass.out_rows.size());
    if (pass.n() > 0) run_pass(pass);
  }
}

void Decoder::add_rows(Pass* pass, const SequenceRows& rows, const Tree* tree, std::int64_t done, std::int64_t count) {
  Part part;
  part.cache = rows.cache;
  part.ids = rows.ids + done;
  part.first = pass->n();
  part.n = count;
  part.length = rows.cache->length();
  part.tree = tree;
  const auto index = static_cast<std::int64_t>(pass->parts.size());
  pass->parts.push_back(part);
  pass->part_of.insert(pass->part_of.end(), static_cast<std::size_t>(count), index);
}

void Decoder::ensure_rotations(std::int64_t positions) {
  const std::int64_t half = config_.head_dim / 2;
  auto have = static_cast<std::int64_t>(cos_.size()) / half;
  if (positions <= have) return;
  positions = std::max(positions, 2 * have);
  cos_.resize(static_cast<std::size_t>(positions * half));
  sin_.resize(cos_.size());
  for (; have < positions; ++have) {
    for (std::int64_t i = 0; i < half; ++i) {
      const float angle = static_cast<float>(have) * config_.inverse_frequency[static_cast<std::size_t>(i)];
      cos_[static_cast<std::size_t>(have * half + i)] = std::cos(angle) * config_.rope_scale;
      sin_[static_cast<std::size_t>(have * half + i)] = std::sin(angle) * config_.rope_scale;
    }
  }
}

void Decoder::run_pass(const Pass& pass) {
  const std::int64_t n = pass.n(), q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
  grow(&h_, n * config_.hidden);
  grow(&q_, n * q);
  grow(&k_, n * kv);
  grow(&v_, n * kv);
  grow(&up_, n * config_.feed_forward);
  for (Activations& x : x_) x.resize(n, config_.hidden);
  attended_.resize(n, q);
  act_.resize(n, config_.feed_forward);
  build(pass);
  program_.run();
  for (const Part& part : pass.parts) {
    if (part.tree) {
      part.cache->set_pending(part.n);
    } else {
      part.cache->commit(part.n);
    }
  }
}

void Decoder::build(const Pass& pass) {
  program_.clear();
  const std::int64_t n = pass.n(), step = std::min<std::int64_t>(n, 16);
  program_.add((n + step - 1) / step, [this, pass = &pass, n, step](std::int64_t item) {
    for (std::int64_t r = item * step; r < std::min(n, (item + 1) * step); ++r) embed(*pass, r);
  });
  for (std::int64_t i = 0; i < config_.layers; ++i) add_layer(pass, i);
  if (!pass.out_rows.empty() && (pass.logits || pass.hidden)) add_head(pass);
}

void Decoder::embed(const Pass& pass, std::int64_t row) {
  const Part& part = pass.part(row);
  const std::int32_t id = part.ids[row - part.first];
  float* const to = h_.data() + row * config_.hidden;
  if (id < config_.vocab) {
    copy_row(embed_, id, to);
  } else {
    const float* const from = pass.extra + (id - config_.vocab) * config_.hidden;
    std::copy(from, from + config_.hidden, to);
  }
}

// Columns [c0, c1) of the norm of a row of the residual stream.
void Decoder::normalise(const float* row, const float* norm, std::int64_t c0, std::int64_t c1, float* to) const {
  const float factor = layers_kernels().rms_factor(row, config_.rms_eps, config_.hidden);
  if (c0 < c1) layers_kernels().normalise(row + c0, factor, norm + c0, c1 - c0, to + c0);
}

// Every piece of x: its values by fill, which may be empty, then their form for the readers x expects.
void Decoder::add_prepare(Activations* x, std::function<void(const Activations::Piece&)> fill) {
  const std::int64_t pieces = x->num_pieces();
  program_.add(pieces, [x, pieces, fill = std::move(fill)](std::int64_t item) {
    const Activations::Piece piece = x->piece(item, pieces);
    if (fill) fill(piece);
    x->finish(piece);
  });
}

// The copies of the normalised stream that the readers need.
void Decoder::add_normed(const NormedInput& input, std::initializer_list<const Matrix*> readers) {
  for (std::size_t copy = 0; copy < input.norms.size(); ++copy) {
    Activations& x = x_[copy];
    for (std::size_t i = 0; i < readers.size(); ++i) {
      if (input.copy[i] == copy) x.expect(*readers.begin()[i]);
    }
    add_prepare(&x, [this, &x, norm = input.norms[copy].data()](const Activations::Piece& piece) {
      const std::int64_t c0 = piece.block0 * quant::kBlock, c1 = std::min(x.cols(), piece.block1 * quant::kBlock);
      for (std::int64_t r = piece.row0; r < piece.row1; ++r) {
        normalise(h_.data() + r * x.cols(), norm, c0, c1, x.row(r));
      }
    });
  }
}

// x, which holds its values already, times the column scale of its reader.
void Decoder::add_scaled(Activations* x, const Matrix* reader) {
  x->expect(*reader);
  const float* const scale = reader->column_scale;
  if (!scale) return add_prepare(x, nullptr);
  add_prepare(x, [x, scale](const Activations::Piece& piece) {
    const std::int64_t c0 = piece.block0 * quant::kBlock, c1 = std::min(x->cols(), piece.block1 * quant::kBlock);
    for (std::int64_t r = piece.row0; c0 < c1 && r < piece.row1; ++r) {
      layers_kernels().normalise(x->row(r) + c0, 1.0f, scale + c0, c1 - c0, x->row(r) + c0);
    }
  });
}

// The segments' products, cut into pieces over all their panels.
void Decoder::add_linear(std::vector<Segment> segments) {
  std::int64_t panels = 0;
  for (const Segment& s : segments) panels += s.w->num_panels();
  const std::int64_t each = panels_each(panels);
  program_.add((panels + each - 1) / each, [segments = std::move(segments), each](std::int64_t item) {
    std::int64_t begin = item * each, end = begin + each;
    for (const Segment& s : segments) {
      const std::int64_t size = s.w->num_panels();
      const std::int64_t p0 = std::max<std::int64_t>(0, begin), p1 = std::min(size, end);
      if (p0 < p1) {
        columns(*s.w, *s.x, p0, p1, s.y, s.w->rows, s.add);
        const std::int64_t c0 = p0 * 16, c1 = std::min(p1 * 16, s.w->rows);
        for (std::int64_t r = 0; s.bias && r < s.x->rows(); ++r) {
          for (std::int64_t c = c0; c < c1; ++c) s.y[r * s.w->rows + c] += s.bias[c];
        }
      }
      begin -= size;
      end -= size;
    }
  });
}

// Query heads of one key head's group (`keys` false), or the key head, which is stored with its value.
void Decoder::rotate_head(const Pass& pass, std::int64_t layer, std::int64_t row, std::int64_t kv_head, bool keys) {
  const Layer& l = layers_[static_cast<std::size_t>(layer)];
  const auto& kernels = layers_kernels();
  const std::int64_t dim = config_.head_dim, half = dim / 2;
  const Part& part = pass.part(row);
  const std::int64_t node = row - part.first;
  const std::int64_t position = part.length + (part.tree ? part.tree->depths[static_cast<std::size_t>(node)] : node);
  const float *cos = cos_.data() + position * half, *sin = sin_.data() + position * half;
  const std::int64_t group = config_.heads / config_.kv_heads, at = (row * config_.kv_heads + kv_head) * dim;
  float* const x = keys ? k_.data() + at : q_.data() + at * group;
  const std::vector<float>& norm = keys ? l.k_norm : l.q_norm;
  for (std::int64_t h = 0; h < (keys ? 1 : group); ++h) {
    float* head = x + h * dim;
    if (!norm.empty()) {
      kernels.normalise(head, kernels.rms_factor(head, config_.rms_eps, dim), norm.data(), dim, head);
    }
    kernels.rotate(head, cos, sin, half);
  }
  if (keys) part.cache->store(layer, kv_head, part.length + node, x, v_.data() + at);
}

kvcache::AttentionProblem Decoder::attention(const Part& part, std::int64_t layer) {
  Cache& cache = *part.cache;
  const std::int64_t dim = config_.head_dim;
  kvcache::AttentionProblem p;
  p.heads = config_.heads;
  p.kv_heads = config_.kv_heads;
  p.nodes = part.n;
  p.head_dim = dim;
  p.capacity = cache.capacity();
  p.query = q_.data() + part.first * config_.heads * dim;
  p.query_head = dim;
  p.query_node = config_.heads * dim;
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

void Decoder::add_layer(const Pass& pass, std::int64_t index) {
  const Layer& l = layers_[static_cast<std::size_t>(index)];
  const auto bias = [](const std::vector<float>& b) { return b.empty() ? nullptr : b.data(); };
  const std::int64_t width = config_.feed_forward, n = pass.n();
  const std::vector<std::size_t>& copy = l.attention_input.copy;
  add_normed(l.attention_input, {&l.q, &l.k, &l.v});
  add_linear({{&l.q, &x_[copy[0]], q_.data(), bias(l.q_bias)},
              {&l.k, &x_[copy[1]], k_.data(), bias(l.k_bias)},
              {&l.v, &x_[copy[2]], v_.data(), bias(l.v_bias)}});
  add_rotations(pass, index);
  kvcache::AttentionItems attend;
  for (const Part& part : pass.parts) attend.add(attention(part, index));
  const std::int64_t items = attend.size();
  program_.add(items, [attend = std::move(attend)](std::int64_t item) { attend.run(item); });
  add_scaled(&attended_, &l.o);
  add_linear({{&l.o, &attended_, h_.data(), nullptr, true}});
  add_normed(l.ffn_input, {&l.gate, &l.up});
  const Matrix *gate = &l.gate, *up = &l.up;
  const Activations &gate_x = x_[l.ffn_input.copy[0]], &up_x = x_[l.ffn_input.copy[1]];
  const std::int64_t panels = gate->num_panels(), each = panels_each(panels);
  program_.add((panels + each - 1) / each, [this, gate, up, &gate_x, &up_x, each, panels, width, n](std::int64_t item) {
    const std::int64_t p0 = item * each, p1 = std::min(panels, p0 + each), c0 = p0 * 16, c1 = std::min(width, p1 * 16);
    columns(*gate, gate_x, p0, p1, act_.row(0), width);
    columns(*up, up_x, p0, p1, up_.data(), width);
    const auto swiglu = layers_kernels().swiglu;
    for (std::int64_t r = 0; r < n; ++r) {
      float* to = act_.row(r) + c0;
      swiglu(to, up_.data() + r * width + c0, c1 - c0, to);
    }
  });
  add_scaled(&act_, &l.down);
  add_linear({{&l.down, &act_, h_.data(), nullptr, true}});
}

// Of a few rows by head, so that threads write different lines of the cache; one item for one or two rows.
void Decoder::add_rotations(const Pass& pass, std::int64_t index) {
  constexpr std::int64_t kRows = 64;
  const std::int64_t n = pass.n(), parts = 2 * config_.kv_heads, each = n <= 2 ? parts : 1, pieces = parts / each;
  program_.add((n + kRows - 1) / kRows * pieces, [this, pass = &pass, index, n, each, pieces](std::int64_t item) {
    const std::int64_t row0 = item / pieces * kRows, part0 = item % pieces * each;
    for (std::int64_t part = part0; part < part0 + each; ++part) {
      for (std::int64_t r = row0; r < std::min(n, row0 + kRows); ++r) {
        rotate_head(*pass, index, r, part / 2, part % 2 != 0);
      }
    }
  });
}

void Decoder::add_head(const Pass& pass) {
  const auto rows = static_cast<std::int64_t>(pass.out_rows.size());
  const std::int64_t hidden = config_.hidden;
  const auto normed = [this, hidden, from = pass.out_rows.data()](std::int64_t r, const float* norm, std::int64_t c0,
                                                                  std::int64_t c1, float* to) {
    normalise(h_.data() + from[r] * hidden, norm, c0, c1, to);
  };
  if (pass.hidden) {
    program_.add(rows, [this, normed, hidden, to = pass.hidden](std::int64_t r) {
      normed(r, final_norm_.data(), 0, hidden, to + r * hidden);
    });
  }
  if (!pass.logits) return;
  out_.resize(rows, hidden);
  out_.expect(head_);
  add_prepare(&out_, [this, normed, hidden, norm = head_input_.norms[0].data()](const Activations::Piece& piece) {
    const std::int64_t c0 = piece.block0 * quant::kBlock, c1 = std::min(hidden, piece.block1 * quant::kBlock);
    for (std::int64_t r = piece.row0; r < piece.row1; ++r) normed(r, norm, c0, c1, out_.row(r));
  });
  add_linear({{&head_, &out_, pass.logits}});
}

}  // namespace gramcore::model
