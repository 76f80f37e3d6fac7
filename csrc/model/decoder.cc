#include "model/decoder.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace gramcore::model {

void Config::validate() const {
  const std::pair<const char*, std::int64_t> sizes[] = {
      {"layers", layers}, {"hidden", hidden},     {"feed_forward", feed_forward},
      {"heads", heads},   {"kv_heads", kv_heads}, {"head_dim", head_dim},
      {"vocab", vocab}};
  for (const auto& [name, size] : sizes) {
    GC_CHECK(size >= 1 && size <= (std::int64_t{1} << 24), name, " must be in [1, 2^24], got ", size);
  }
  GC_CHECK(heads % kv_heads == 0, "heads must be a multiple of kv_heads, got ", heads, " and ", kv_heads);
  GC_CHECK(head_dim % 2 == 0, "head_dim must be even, got ", head_dim);
  GC_CHECK(rms_eps >= 0.0f && std::isfinite(rms_eps), "rms_eps must be >= 0, got ", rms_eps);
  GC_CHECK(inverse_frequency.size() == static_cast<std::size_t>(head_dim / 2), "inverse_frequency must have ",
           head_dim / 2, " entries, got ", inverse_frequency.size());
}

NormedInput::NormedInput(const std::vector<float>& norm, std::initializer_list<const Matrix*> readers) {
  const auto columns = static_cast<std::int64_t>(norm.size());
  const auto alike = [&](const float* a, const float* b) {
    return a == b || (a && b && std::equal(a, a + columns, b));
  };
  std::vector<const float*> scales;  // of every copy
  for (const Matrix* reader : readers) {
    const float* const scale = reader->column_scale;
    std::size_t at = 0;
    while (at < scales.size() && !alike(scales[at], scale)) ++at;
    copy.push_back(at);
    if (at < scales.size()) continue;
    scales.push_back(scale);
    norms.push_back(norm);
    for (std::int64_t i = 0; scale && i < columns; ++i) norms.back()[static_cast<std::size_t>(i)] *= scale[i];
  }
}

Decoder::Decoder(Config config) : config_(std::move(config)) {
  config_.validate();
  layers_.resize(static_cast<std::size_t>(config_.layers));
}

Matrix& Decoder::matrix(const std::string& name, std::int64_t layer) {
  if (name == "embed") return embed_;
  if (name == "head") return head_;
  GC_CHECK(layer >= 0 && layer < config_.layers, "layer must be in [0, ", config_.layers, "), got ", layer);
  Layer& l = layers_[static_cast<std::size_t>(layer)];
  const std::pair<const char*, Matrix*> known[] = {{"q", &l.q},       {"k", &l.k},   {"v", &l.v},      {"o", &l.o},
                                                   {"gate", &l.gate}, {"up", &l.up}, {"down", &l.down}};
  for (const auto& [known_name, m] : known) {
    if (name == known_name) return *m;
  }
  throw InvalidArgument(cat("matrix must be embed, head, q, k, v, o, gate, up or down, got '", name, "'"));
}

void Decoder::check_shape(const std::string& name, const Matrix& m) const {
  const std::int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
  std::int64_t rows = config_.vocab, cols = config_.hidden;
  if (name == "q") rows = q;
  if (name == "k" || name == "v") rows = kv;
  if (name == "gate" || name == "up") rows = config_.feed_forward;
  if (name == "o") rows = config_.hidden, cols = q;
  if (name == "down") rows = config_.hidden, cols = config_.feed_forward;
  GC_CHECK(m.rows == rows && m.cols == cols, name, " must have shape (", rows, ", ", cols, "), got (", m.rows, ", ",
           m.cols, ")");
}

void Decoder::set_dense(const std::string& name, std::int64_t layer, const TensorView& weights) {
  Matrix& to = matrix(name, layer);
  check_cpu(weights, name.c_str());
  const Matrix m = dense_matrix(weights, &arena_);
  check_shape(name, m);
  to = m;
  finished_ = false;
}

void Decoder::set_packed(const std::string& name, std::int64_t layer, const PackedWeights& weights) {
  Matrix& to = matrix(name, layer);
  const Matrix m = packed_matrix(weights, &arena_);
  check_shape(name, m);
  to = m;
  finished_ = false;
}

void Decoder::set_vector(const std::string& name, std::int64_t layer, Span<const float> values) {
  std::vector<float>* to = &final_norm_;
  std::int64_t size = config_.hidden;
  if (name != "final_norm") {
    GC_CHECK(layer >= 0 && layer < config_.layers, "layer must be in [0, ", config_.layers, "), got ", layer);
    Layer& l = layers_[static_cast<std::size_t>(layer)];
    const std::int64_t q = config_.heads * config_.head_dim, kv = config_.kv_heads * config_.head_dim;
    const std::tuple<const char*, std::vector<float>*, std::int64_t> known[] = {
        {"attention_norm", &l.attention_norm, config_.hidden},
        {"ffn_norm", &l.ffn_norm, config_.hidden},
        {"q_bias", &l.q_bias, q},
        {"k_bias", &l.k_bias, kv},
        {"v_bias", &l.v_bias, kv},
        {"q_norm", &l.q_norm, config_.head_dim},
        {"k_norm", &l.k_norm, config_.head_dim}};
    to = nullptr;
    for (const auto& [known_name, vector, known_size] : known) {
      if (name == known_name) to = vector, size = known_size;
    }
    GC_CHECK(to, "vector must be final_norm, attention_norm, ffn_norm, q_bias, k_bias, v_bias, q_norm or k_norm, got '",
             name, "'");
  }
  GC_CHECK(static_cast<std::int64_t>(values.size()) == size, name, " must have ", size, " entries, got ",
           values.size());
  to->assign(values.begin(), values.end());
  finished_ = false;
}

void Decoder::finish() {
  GC_CHECK(embed_.kind != Matrix::Kind::none, "embed must be set, got no such matrix");
  if (head_.kind == Matrix::Kind::none) head_ = embed_;
  GC_CHECK(!final_norm_.empty(), "final_norm must be set, got no such vector");
  for (std::int64_t i = 0; i < config_.layers; ++i) {
    for (const char* name : {"q", "k", "v", "o", "gate", "up", "down"}) {
      GC_CHECK(matrix(name, i).kind != Matrix::Kind::none, name, " of layer ", i, " must be set, got no such matrix");
    }
    Layer& l = layers_[static_cast<std::size_t>(i)];
    GC_CHECK(!l.attention_norm.empty() && !l.ffn_norm.empty(), "norms of layer ", i, " must be set, got none");
    l.attention_input = {l.attention_norm, {&l.q, &l.k, &l.v}};
    l.ffn_input = {l.ffn_norm, {&l.gate, &l.up}};
  }
  head_input_ = {final_norm_, {&head_}};
  finished_ = true;
}

std::int64_t Decoder::weight_bytes() const {
  return arena_.bytes();
}

}  // namespace gramcore::model
