// The phases of a forward.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "model/decoder.h"
#include "model/kernels/layers.h"

namespace gramcore::model {
namespace {

void grow(LineVector<float>* buffer, std::int64_t size) {
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
  grow(&h_, n * row_stride(config_.hidden));
  grow(&q_, n * row_stride(q));
  grow(&k_, n * row_stride(kv));
  grow(&v_, n * row_stride(kv));
  grow(&squares_, n * ((config_.hidden + quant::kBlock - 1) / quant::kBlock));
  grow(&factors_, n);
  expect_readers(n);
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

// Before any phase is made: in which parts activations may be finished depends on all their readers.
void Decoder::expect_readers(std::int64_t rows) {
  for (Activations& x : x_) x.resize(rows, config_.hidden);
  attended_.resize(rows, config_.heads * config_.head_dim);
  act_.resize(rows, config_.feed_forward);
  for (const Layer& l : layers_) {
    const Matrix* const attention[] = {&l.q, &l.k, &l.v};
    const Matrix* const ffn[] = {&l.gate, &l.up};
    for (std::size_t i = 0; i < 3; ++i) x_[l.attention_input.copy[i]].expect(*attention[i]);
    for (std::size_t i = 0; i < 2; ++i) x_[l.ffn_input.copy[i]].expect(*ffn[i]);
    attended_.expect(l.o);
    act_.expect(l.down);
  }
}

void Decoder::build(const Pass& pass) {
  program_.clear();
  const std::int64_t n = pass.n(), step = std::min<std::int64_t>(n, 16);
  program_.add((n + step - 1) / step, [this, pass = &pass, n, step](std::int64_t item) {
    const std::int64_t end = std::min(n, (item + 1) * step);
    for (std::int64_t r = item * step; r < end; ++r) embed(*pass, r);
    weigh(layers_[0].attention_input, {item * step, end, 0, config_.hidden});
  });
  add_factors(n);
  for (std::int64_t i = 0; i < config_.layers; ++i) add_layer(pass, i);
  if (!pass.out_rows.empty() && (pass.logits || pass.hidden)) add_head(pass);
}

void Decoder::embed(const Pass& pass, std::int64_t row) {
  const Part& part = pass.part(row);
  const std::int32_t id = part.ids[row - part.first];
  float* const to = h_.data() + row * row_stride(config_.hidden);
  if (id < config_.vocab) {
    copy_row(embed_, id, to);
  } else {
    const float* const from = pass.extra + (id - config_.vocab) * config_.hidden;
    std::copy(from, from + config_.hidden, to);
  }
}

void Decoder::add_head(const Pass& pass) {
  const auto rows = static_cast<std::int64_t>(pass.out_rows.size());
  const std::int64_t hidden = config_.hidden;
  const auto normed = [this, hidden, from = pass.out_rows.data()](std::int64_t r, const float* norm, std::int64_t c0,
                                                                  std::int64_t c1, float* to) {
    const float* const row = h_.data() + from[r] * row_stride(hidden);
    const float factor = layers_kernels().rms_factor(row, config_.rms_eps, hidden);
    layers_kernels().normalise(row + c0, factor, norm + c0, c1 - c0, to + c0);
  };
  if (pass.hidden) {
    program_.add(rows, [this, normed, hidden, to = pass.hidden](std::int64_t r) {
      normed(r, final_norm_.data(), 0, hidden, to + r * hidden);
    });
  }
  if (!pass.logits) return;
  out_.resize(rows, hidden);
  out_.expect(head_);
  add_parts(rows, hidden, out_.column_step(), [this, normed, norm = head_input_.norms[0].data()](const Rect& part) {
    for (std::int64_t r = part.r0; r < part.r1; ++r) normed(r, norm, part.c0, part.c1, out_.row(r));
    out_.finish(part);
  });
  add_cuts(rows, {{&head_, 1}}, [this, to = pass.logits](const Cut& cut, const Rect& part) {
    columns(head_, out_, {part.r0, part.r1}, cut.p0, cut.p1, to, config_.vocab);
  });
}

}  // namespace gramcore::model
