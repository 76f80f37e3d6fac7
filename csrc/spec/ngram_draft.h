// Drafts from the request's own text by counted n-grams (ANPD): for each order n = 1..N a table from the last n tokens
// to the continuations seen after them, each with its count and last position.  Adding a token costs O(N), a draft of k
// tokens O(k N), whatever the length of the text.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/span.h"

namespace gramcore::spec {

class NgramTable {
 public:
  enum class Pick { most_frequent, most_recent };

  NgramTable(int min_order, int max_order, Pick pick);

  void extend(Span<const std::int32_t> tokens);
  void rollback(std::int64_t n);  // forgets the last n tokens
  std::int64_t num_tokens() const { return static_cast<std::int64_t>(text_.size()); }

  // Longest order first, lower orders as fallback, one token at a time; the draft itself extends the context.
  std::vector<std::int32_t> propose(std::int64_t max_tokens) const;
  // The max_nodes most probable continuations as a tree (best first, parents before children).  Probabilities blend the
  // orders with escape: at order n a token has count / (total + distinct) of what the longer orders left.  `chain` is a
  // continuation from elsewhere whose first token is given probability `share`, later ones at least kOnChain.
  void propose_tree(std::int64_t max_nodes, Span<const std::int32_t> chain, double share,
                    std::vector<std::int32_t>* tokens, std::vector<std::int32_t>* parents) const;
  // Order of the longest context that has a continuation now (0: none).
  int match_order() const;

 private:
  struct Continuation {
    std::int32_t token;
    std::vector<std::int32_t> positions;  // where it was seen, ascending
  };
  using Row = std::vector<Continuation>;
  struct Share {
    std::int32_t token;
    double probability;
  };
  static constexpr std::size_t kWidest = 16;  // continuations looked at per order
  static constexpr double kOnChain = 0.85;

  std::uint64_t key(const std::int32_t* last, int order) const;  // of the tokens last[-order+1 .. 0]
  const Continuation* lookup(const std::vector<std::int32_t>& context) const;
  std::vector<Share> law(const std::vector<std::int32_t>& context) const;  // unordered

  int min_order_, max_order_;
  Pick pick_;
  std::vector<std::int32_t> text_;
  std::vector<std::unordered_map<std::uint64_t, Row>> tables_;  // by order - min_order
};

}  // namespace gramcore::spec
