// How much of a language model's probability stays inside a constraint, as far as it has been seen.
//
// A node is a prefix; log_weight is the log of the estimated probability that the model, continuing from there, stays
// inside: 0 until something below was excluded.  Of a node's children only those that were entered or excluded are
// stored; the rest is one number, log_open (the allowed mass of all others).  So
//   weight(n) = open(n) + sum over stored children c of p(c | n) * weight(c).
// The model conditioned on what is known is  p'(t | n) = p(t | n) * weight(child t) / weight(n).
// Everything is kept in log space.  ASAp (Park et al. 2024) and AprAD (2024) are two drivers of this structure.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "core/span.h"

namespace gramcore::grammar {

class MassTrie {
 public:
  using NodeId = std::int32_t;
  static constexpr NodeId kNone = -1;

  explicit MassTrie(std::int64_t vocab_size);

  std::int64_t vocab_size() const { return vocab_size_; }
  std::int64_t num_nodes() const { return static_cast<std::int64_t>(nodes_.size()); }
  NodeId child(NodeId node, std::int32_t token) const;
  NodeId parent(NodeId node) const { return at(node).parent; }
  double log_weight(NodeId node) const;  // -inf below an excluded prefix

  // The child by `token`, made with the model's log-probability if it is new.
  NodeId enter(NodeId node, std::int32_t token, double log_prob);
  // First visit with a mask: only exp(log_allowed) of the node's mass is allowed.  Later calls change nothing.
  void restrict(NodeId node, double log_allowed);
  // Excludes the prefix and carries the loss up to the root.
  void exclude(NodeId node);
  // Recomputes the weights from the node up to the root.
  void update(NodeId node);

  // One row: restricts the node to the mask on the first visit, then logits += log weight of each child (forbidden
  // tokens: -inf).  Returns the log of the normaliser of the unedited logits.
  double edit(NodeId node, Span<float> logits, const std::int32_t* bitmask);

  // AprAD: excludes `bad` and says how many of the tokens on its path from the root (at least `first`) are kept:
  // token i is kept while uniforms[i] < p_new / p_old.
  std::int64_t backtrack(NodeId bad, std::int64_t first, Span<const double> uniforms);

  std::string to_bytes() const;
  // Throws FormatError with the reason where the bytes are not a saved trie.
  static MassTrie from_bytes(std::string_view bytes);
  void check_integrity() const;

 private:
  struct Node {
    NodeId parent, first_child, next_sibling;
    std::int32_t token;
    std::int32_t restricted;  // 0: no mask was seen here, 1: it was
    std::int32_t excluded;    // 1: no text may start so
    double log_prob;          // of this token behind the parent
    double log_weight;
    double log_open;
  };
  Node& at(NodeId node);
  const Node& at(NodeId node) const;
  std::uint64_t key(NodeId node, std::int32_t token) const {
    return static_cast<std::uint64_t>(static_cast<std::uint32_t>(node)) << 32 | static_cast<std::uint32_t>(token);
  }

  std::int64_t vocab_size_;
  std::vector<Node> nodes_;
  std::unordered_map<std::uint64_t, NodeId> children_;
};

}  // namespace gramcore::grammar
