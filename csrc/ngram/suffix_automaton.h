// Suffix automaton of a growing token sequence: the smallest automaton that accepts every substring, extended one
// token at a time (Blumer et al. 1985), with the tokens last added removable again.
//
// State i <= num_tokens is "the whole first i tokens"; states with the top bit set are clones.  A prefix state needs
// no length, no position and no transition to its successor (the text holds it).  Other transitions and a latest
// occurrence are news only of a prefix that occurred again, as a link's target; those are the shortest prefixes, few in
// text, so a prefix state is its link and the token before it.  `recent` of a state is the end of its latest
// occurrence; it is brought up to date along the suffix links when the next token arrives, at most kMaxWalk links up,
// so on text whose links are deeper than that (long runs of one token) it may name an older occurrence.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/span.h"
#include "ngram/edge_pool.h"

namespace gramcore::ngram {

class SuffixAutomaton {
 public:
  using Id = std::uint32_t;
  static constexpr Id kNone = 0xffffffffu;
  static constexpr Id kCloneBit = 0x80000000u;
  static constexpr int kMaxWalk = 64;
  static constexpr std::int32_t kBoundary = -1;  // between sequences; never part of a draft

  SuffixAutomaton() { clear(); }

  void extend(std::int32_t token);
  void extend(Span<const std::int32_t> tokens);
  // Removes the last n tokens: states, transitions and links are exactly those before they were added.  `recent` is
  // restored for the last kJournalSteps tokens; beyond that it falls back to the first occurrence.
  void rollback(std::int64_t n);
  void clear();

  std::int64_t num_tokens() const { return static_cast<std::int64_t>(text_.size()); }
  std::int64_t num_states() const { return num_tokens() + 1 + static_cast<std::int64_t>(clones_.size()); }
  std::int64_t num_transitions() const { return num_tokens() + static_cast<std::int64_t>(pool_.num_edges()); }
  std::uint64_t bytes() const;
  Span<const std::int32_t> tokens() const { return text_; }

  // The longest suffix of the text that also ends earlier, and where (one past its end) it was seen.
  Id match_state() const { return link(last()); }
  std::int64_t match_len() const { return num_tokens() > 0 ? len(match_state()) : 0; }
  std::int64_t recent_end(Id state) const;
  std::int64_t first_end(Id state) const { return is_clone(state) ? clone(state).first_end : state; }

  // Up to max_tokens tokens that followed position `end`; stops at a boundary.  Where the draft is to follow the text
  // itself (`own`), reading goes on into the draft past the end of the text, so a period continues.
  void copy_from(std::int64_t end, std::int64_t max_tokens, bool own, std::vector<std::int32_t>& out) const;
  // Greedy walk along the most frequent continuation of `state`; ties go to the smaller token.
  void most_frequent(Id state, std::int64_t max_tokens, std::vector<std::int32_t>& out) const;

  // The max_nodes continuations of `state` with the largest product of count shares, best first, as a tree: children of
  // a node are its `width` most frequent tokens, and a depth holds at most `width` nodes.  Parents: -1 = `state`.
  void frequent_tree(Id state, std::int64_t max_nodes, std::int64_t width, std::vector<std::int32_t>& tokens,
                     std::vector<std::int32_t>& parents) const;

  Id root() const { return 0; }
  std::int64_t len(Id state) const { return is_clone(state) ? clone(state).len : state; }
  Id link(Id state) const { return is_clone(state) ? clone(state).link : links_[state]; }
  Id step(Id state, std::int32_t token) const {  // the transition, or kNone
    if (!is_clone(state) && state < text_.size() && text_[state] == token) return state + 1;
    return pool_.find(edges(state), token);
  }
  // State of the substring `ids`, or kNone when it does not occur.
  Id locate(Span<const std::int32_t> ids) const;
  // Occurrences of a state's strings: exact, from one pass over all states after each change of the text.
  std::int64_t count(Id state) const;
  void occurrences(Id state, std::vector<std::int64_t>& ends) const;  // ascending ends; one pass per call

  void save(const std::string& path) const;
  static SuffixAutomaton load(const std::string& path);
  void check_integrity() const;  // throws std::logic_error naming what is wrong

 private:
  static constexpr std::size_t kJournalSteps = 4096;

  struct Repeated {  // a prefix that occurred again
    std::uint32_t recent;
    EdgeRef edges;
  };
  struct Clone {
    std::uint32_t len, link, recent, edge_offset;
    std::uint32_t first_end;  // end of the first occurrence
  };

  static bool is_clone(Id state) { return (state & kCloneBit) != 0; }
  Clone& clone(Id state) { return clones_[state & ~kCloneBit]; }
  const Clone& clone(Id state) const { return clones_[state & ~kCloneBit]; }
  Id last() const { return static_cast<Id>(text_.size()); }
  Id& link_ref(Id state) { return is_clone(state) ? clone(state).link : links_[state]; }
  std::uint32_t& recent_ref(Id state) { return is_clone(state) ? clone(state).recent : repeated_[state].recent; }
  EdgeRef edges(Id state) const {
    if (is_clone(state)) return {clone(state).edge_offset, clone_cls_[state & ~kCloneBit]};
    return state < repeated_.size() ? repeated_[state].edges : EdgeRef{};
  }
  void set_edges(Id state, EdgeRef ref);
  void add_edge(Id state, std::int32_t token, Id target);
  Id make_clone(Id original, std::int64_t length);
  void mark_recent();
  void undo_recent();
  void undo_token();
  const std::vector<std::uint32_t>& counts() const;
  std::size_t index_of(Id state) const {  // dense numbering of the states: prefixes, then clones
    return is_clone(state) ? text_.size() + 1 + (state & ~kCloneBit) : state;
  }
  std::vector<Id> by_length() const;

  std::vector<std::int32_t> text_;
  std::vector<Id> links_;           // of prefixes: text_.size() + 1
  std::vector<Repeated> repeated_;  // of prefixes 0, 1, ... up to the longest that occurred again
  std::vector<Clone> clones_;
  std::vector<std::uint8_t> clone_cls_;
  std::vector<bool> made_clone_;  // per token: whether adding it made a clone, which is its link then
  EdgePool pool_;

  struct OldRecent {
    Id state;
    std::uint32_t recent;
  };
  std::vector<OldRecent> journal_;        // what mark_recent overwrote, oldest first
  std::vector<std::uint8_t> walk_sizes_;  // entries of journal_ per token, oldest first

  mutable std::vector<std::uint32_t> counts_;  // by index_of; empty when stale
};

// Position of a foreign sequence in an automaton: the longest suffix of what was fed that occurs in the text.
class SuffixMatcher {
 public:
  explicit SuffixMatcher(const SuffixAutomaton& automaton) : automaton_(&automaton) {}
  void advance(std::int32_t token);
  void reset() { state_ = 0, match_len_ = 0; }
  SuffixAutomaton::Id state() const { return state_; }
  std::int64_t match_len() const { return match_len_; }

 private:
  const SuffixAutomaton* automaton_;
  SuffixAutomaton::Id state_ = 0;
  std::int64_t match_len_ = 0;
};

}  // namespace gramcore::ngram
