// A Llama-family decoder: weights, and one forward over the new tokens (a chain or a draft tree) of some sequences.
//
// All operators of a forward are phases of one Program: one dispatch of the thread pool per forward.  A layer has five:
// q, k and v with their rotation; attention; its output; gate and up; down.  Who computes columns of a result also
// brings them into the form of the next product, so nothing waits for it.  Every operator
// computes a row the same way whatever rows go with it, so logits of a tree node equal, bit for bit, those of plain
// decoding along its path (fp32 cache products; see kvcache).
#pragma once

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/line_vector.h"
#include "kvcache/tree_attention.h"
#include "model/cache.h"
#include "model/program.h"
#include "model/weights.h"

namespace gramcore::model {

struct Config {
  std::int64_t layers = 0, hidden = 0, feed_forward = 0, heads = 0, kv_heads = 0, head_dim = 0, vocab = 0;
  float rms_eps = 1e-5f;
  float rope_scale = 1.0f;               // multiplies cos and sin
  std::vector<float> inverse_frequency;  // head_dim / 2, scaling already applied

  void validate() const;
};

// Rows of the residual stream times their norm's weights as some matrices read them: readers whose columns are scaled
// alike share a copy, whose norm is already multiplied by the scale.  The factor of a row is left to the results.
struct NormedInput {
  std::vector<std::vector<float>> norms;  // of every copy
  std::vector<std::size_t> copy;          // of every reader

  static constexpr std::size_t kMaxCopies = 3;  // q, k and v
  NormedInput() = default;
  NormedInput(const std::vector<float>& norm, std::initializer_list<const Matrix*> readers);
};

// Rows are rotated by halves (transformers' layout), not by neighbouring pairs.
struct Layer {
  Matrix q, k, v, o, gate, up, down;
  NormedInput attention_input, ffn_input;       // made by Decoder::finish
  std::vector<float> attention_norm, ffn_norm;  // hidden
  std::vector<float> q_bias, k_bias, v_bias;    // empty: none
  std::vector<float> q_norm, k_norm;            // head_dim, empty: none
};

// New tokens of one sequence.
struct SequenceRows {
  Cache* cache = nullptr;
  const std::int32_t* ids = nullptr;
  std::int64_t n = 0;
  const std::int32_t* parents = nullptr;  // n entries, -1: child of the context; null: a chain, committed at the end
};

struct ForwardRequest {
  Span<const SequenceRows> sequences;  // with a cache each
  Span<const float> extra;             // (E, hidden) embedding rows of the ids vocab .. vocab + E - 1
  bool all_rows = true;                // outputs of every row, or each sequence's last one, if it has rows
  float* logits = nullptr;             // (rows, vocab), sequence after sequence, or null
  float* hidden = nullptr;             // (rows, hidden) after the final norm, or null
};

class Decoder {
 public:
  static constexpr std::int64_t kMaxRows = 512;  // rows of one pass; more go in several

  explicit Decoder(Config config);
  const Config& config() const { return config_; }

  // name: embed, head, q, k, v, o, gate, up, down; layer is ignored for the first two.
  void set_dense(const std::string& name, std::int64_t layer, const TensorView& weights);
  void set_packed(const std::string& name, std::int64_t layer, const PackedWeights& weights);
  // name: attention_norm, ffn_norm, q_bias, k_bias, v_bias, q_norm, k_norm, final_norm.
  void set_vector(const std::string& name, std::int64_t layer, Span<const float> values);
  void finish();  // checks that everything is there; a missing head is tied to the embedding
  std::int64_t weight_bytes() const;

  // Rows of all sequences share each read of the weights; a sequence without rows is left alone.  Nothing is changed
  // when the request is refused.
  void forward(const ForwardRequest& request);

 private:
  // Ancestor bits (n x words) and depths of a tree.
  struct Tree {
    std::vector<std::uint64_t> ancestors;
    std::vector<std::int64_t> depths;
    std::int64_t words = 0;
  };
  struct Part {  // rows [first, first + n) of a pass, new tokens of one sequence
    Cache* cache = nullptr;
    const std::int32_t* ids = nullptr;
    std::int64_t first = 0, n = 0, length = 0;
    const Tree* tree = nullptr;  // null: a chain
  };
  struct Pass {  // what the phases of one pass read
    std::vector<Part> parts;
    std::vector<std::int64_t> part_of;   // of every row
    std::vector<std::int64_t> out_rows;  // rows whose logits are wanted
    const float* extra = nullptr;        // embedding rows of ids from vocab on
    float *logits = nullptr, *hidden = nullptr;
    std::int64_t n() const { return static_cast<std::int64_t>(part_of.size()); }
    const Part& part(std::int64_t row) const {
      return parts[static_cast<std::size_t>(part_of[static_cast<std::size_t>(row)])];
    }
  };
  struct Cut {  // panels [p0, p1) of one of some products
    std::size_t product;
    std::int64_t p0, p1;
  };
  struct Panels {  // of a product; `unit` of them stay together
    const Matrix* w;
    std::int64_t unit;
  };
  using RunCut = std::function<void(const Cut&, const Rect&)>;

  Matrix& matrix(const std::string& name, std::int64_t layer);
  void check_shape(const std::string& name, const Matrix& m) const;
  void check(const ForwardRequest& request) const;
  static Tree read_tree(const SequenceRows& rows);
  static void add_rows(Pass* pass, const SequenceRows& rows, const Tree* tree, std::int64_t done, std::int64_t count);
  void run_pass(const Pass& pass);
  void expect_readers(std::int64_t rows);
  void build(const Pass& pass);
  void embed(const Pass& pass, std::int64_t row);
  void add_head(const Pass& pass);
  void ensure_rotations(std::int64_t positions);

  // layer.cc
  void add_layer(const Pass& pass, std::int64_t index);
  void add_cuts(std::int64_t rows, std::vector<Panels> products, RunCut run);
  void add_heads(const Pass& pass, std::int64_t index);
  void rotate_head(const Pass& pass, const std::vector<float>& norm, std::int64_t row, float* head) const;
  void add_attention(const Pass& pass, std::int64_t index);
  kvcache::AttentionProblem attention(const Part& part, std::int64_t layer);
  void add_residual(const Matrix& w, const Activations& x, const NormedInput* next);
  void add_gated(const Layer& layer);
  void add_parts(std::int64_t rows, std::int64_t cols, std::int64_t step, std::function<void(const Rect&)> run);
  std::int64_t column_step(const NormedInput& input) const;
  void weigh(const NormedInput& input, const Rect& part);
  void scale(Activations* x, const Matrix& reader, const Rect& part) const;
  void add_factors(std::int64_t rows);

  Config config_;
  Arena arena_;
  Matrix embed_, head_;
  std::vector<Layer> layers_;
  std::vector<float> final_norm_;
  NormedInput head_input_;
  bool finished_ = false;

  std::mutex mutex_;  // one forward at a time: the buffers below
  Program program_;
  LineVector<float> h_, q_, k_, v_;  // rows of row_stride(columns)
  Activations x_[NormedInput::kMaxCopies], attended_, act_, out_;
  LineVector<float> squares_;  // [block of 32 columns][row]: sums of h^2
  LineVector<float> factors_;  // of rows: 1 / sqrt(mean(h^2) + eps), what x_ lacks of being normalised
  std::vector<float> cos_, sin_;
};

}  // namespace gramcore::model
