#include "ngram/suffix_automaton.h"

#include <algorithm>

namespace gramcore::ngram {

static_assert(SuffixAutomaton::kMaxWalk < 256, "walk sizes are kept in bytes");

void SuffixAutomaton::clear() {
  text_.clear();
  links_.assign(1, kNone);
  repeated_.assign(1, Repeated{0, {}});
  clones_.clear();
  made_clone_.clear();
  clone_cls_.clear();
  pool_.clear();
  journal_.clear();
  walk_sizes_.clear();
  counts_.clear();
}

void SuffixAutomaton::set_edges(Id state, EdgeRef ref) {
  if (is_clone(state)) {
    clone(state).edge_offset = ref.offset;
    clone_cls_[state & ~kCloneBit] = ref.cls;
  } else {
    repeated_[state].edges = ref;
  }
}

void SuffixAutomaton::add_edge(Id state, std::int32_t token, Id target) {
  EdgeRef ref = edges(state);
  pool_.insert(ref, token, target);
  set_edges(state, ref);
}

// Records, before a token is added, that the strings of the current suffix links were seen to end here.
void SuffixAutomaton::mark_recent() {
  const auto now = static_cast<std::uint32_t>(text_.size());
  std::uint8_t walked = 0;
  if (now > 0) {
    for (Id s = link(now); s != 0 && walked < kMaxWalk; s = link(s), ++walked) {
      std::uint32_t& recent = recent_ref(s);
      journal_.push_back({s, recent});
      recent = now;
    }
  }
  walk_sizes_.push_back(walked);
  if (walk_sizes_.size() >= 2 * kJournalSteps) {  // forget the older half
    std::size_t entries = 0;
    for (std::size_t i = 0; i < kJournalSteps; ++i) entries += walk_sizes_[i];
    journal_.erase(journal_.begin(), journal_.begin() + static_cast<std::ptrdiff_t>(entries));
    walk_sizes_.erase(walk_sizes_.begin(), walk_sizes_.begin() + static_cast<std::ptrdiff_t>(kJournalSteps));
  }
}

void SuffixAutomaton::undo_recent() {
  if (walk_sizes_.empty()) return;  // older than the journal: recent_end falls back
  for (int i = walk_sizes_.back(); i > 0; --i) {
    recent_ref(journal_.back().state) = journal_.back().recent;
    journal_.pop_back();
  }
  walk_sizes_.pop_back();
}

SuffixAutomaton::Id SuffixAutomaton::make_clone(Id original, std::int64_t length) {
  const Id id = kCloneBit | static_cast<Id>(clones_.size());
  EdgeRef ref = pool_.copy(edges(original));
  Clone made{};
  made.len = static_cast<std::uint32_t>(length);
  made.link = link(original);
  made.recent = static_cast<std::uint32_t>(recent_end(original));
  made.first_end = static_cast<std::uint32_t>(first_end(original));
  if (!is_clone(original) && original < text_.size()) pool_.insert(ref, text_[original], original + 1);
  made.edge_offset = ref.offset;
  push_tight(clones_, made);
  push_tight(clone_cls_, ref.cls);
  return id;
}

void SuffixAutomaton::extend(std::int32_t token) {
  GC_CHECK_AS(LimitError, text_.size() + 2 < kCloneBit, "a suffix automaton must hold < 2^31 tokens, got ",
              text_.size(), "; split the corpus into several automata");
  counts_.clear();
  mark_recent();
  const Id before = last(), added = before + 1;
  push_tight(text_, token);
  push_tight(links_, Id{0});
  made_clone_.push_back(false);
  Id p = link(before), q = kNone;
  while (p != kNone && (q = step(p, token)) == kNone) {
    add_edge(p, token, added);
    p = link(p);
  }
  if (p == kNone) return;  // a token never seen: its link is the root
  if (len(p) + 1 == len(q)) {
    links_[added] = q;
    if (q == repeated_.size()) push_tight(repeated_, Repeated{q, {}});  // prefix q - 1 occurred again before
    return;
  }
  const Id twin = make_clone(q, len(p) + 1);
  made_clone_.back() = true;
  while (p != kNone && step(p, token) == q) {
    pool_.retarget(edges(p), token, twin);
    p = link(p);
  }
  link_ref(q) = twin;
  links_[added] = twin;
}

void SuffixAutomaton::extend(Span<const std::int32_t> tokens) {
  for (const std::int32_t t : tokens) {
    GC_CHECK(t >= kBoundary, "token ids must be >= 0 (or -1 for a boundary), got ", t);
  }
  for (const std::int32_t t : tokens) extend(t);
}

void SuffixAutomaton::undo_token() {
  const Id added = last(), before = added - 1, suffix = links_[added];
  const std::int32_t token = text_.back();
  Id p = link(before);
  while (p != kNone && step(p, token) == added) {
    EdgeRef ref = edges(p);
    pool_.erase(ref, token);
    set_edges(p, ref);
    p = link(p);
  }
  if (made_clone_.back()) {
    GC_DCHECK((suffix & ~kCloneBit) + 1 == clones_.size());
    // The state it was cloned from has the same first occurrence and hangs directly below it.
    Id original = clone(suffix).first_end;
    while (link(original) != suffix) original = link(original);
    while (p != kNone && step(p, token) == suffix) {
      pool_.retarget(edges(p), token, original);
      p = link(p);
    }
    link_ref(original) = clone(suffix).link;
    EdgeRef ref = edges(suffix);
    pool_.release(ref);
    clones_.pop_back();
    clone_cls_.pop_back();
  }
  GC_DCHECK(edges(added).cls == 0);
  if (added < repeated_.size()) repeated_.pop_back();
  text_.pop_back();
  links_.pop_back();
  made_clone_.pop_back();
  undo_recent();
}

void SuffixAutomaton::rollback(std::int64_t n) {
  GC_CHECK(n >= 0 && n <= num_tokens(), "rollback must be in [0, ", num_tokens(), "] (the tokens held), got ", n);
  counts_.clear();
  for (; n > 0; --n) undo_token();
}

std::int64_t SuffixAutomaton::recent_end(Id state) const {
  if (!is_clone(state) && state >= repeated_.size()) return state;
  const std::int64_t recent = is_clone(state) ? clone(state).recent : repeated_[state].recent;
  return recent <= num_tokens() ? recent : first_end(state);
}

void SuffixAutomaton::copy_from(std::int64_t end, std::int64_t max_tokens, bool own,
                                std::vector<std::int32_t>& out) const {
  out.clear();
  const std::int64_t size = num_tokens();
  for (std::int64_t j = 0; j < max_tokens; ++j) {
    const std::int64_t from = end + j;
    if (from >= size && !own) return;
    const std::int32_t token =
        from < size ? text_[static_cast<std::size_t>(from)] : out[static_cast<std::size_t>(from - size)];
    if (token == kBoundary) return;
    out.push_back(token);
  }
}

void SuffixAutomaton::most_frequent(Id state, std::int64_t max_tokens, std::vector<std::int32_t>& out) const {
  out.clear();
  const auto& all = counts();
  while (static_cast<std::int64_t>(out.size()) < max_tokens) {
    std::int32_t best_token = kBoundary;
    Id best = kNone;
    const auto consider = [&](std::int32_t token, Id target) {
      if (token == kBoundary) return;
      const auto n = all[index_of(target)], most = best == kNone ? 0 : all[index_of(best)];
      if (best == kNone || n > most || (n == most && token < best_token)) best = target, best_token = token;
    };
    if (!is_clone(state) && state < text_.size()) consider(text_[state], state + 1);
    pool_.for_each(edges(state), consider);
    if (best == kNone) return;
    out.push_back(best_token);
    state = best;
  }
}

SuffixAutomaton::Id SuffixAutomaton::locate(Span<const std::int32_t> ids) const {
  Id state = root();
  for (const std::int32_t token : ids) {
    state = step(state, token);
    if (state == kNone) return kNone;
  }
  return state;
}

std::uint64_t SuffixAutomaton::bytes() const {
  return text_.capacity() * sizeof(std::int32_t) + links_.capacity() * sizeof(Id) +
         repeated_.capacity() * sizeof(Repeated) + clones_.capacity() * sizeof(Clone) + clone_cls_.capacity() +
         made_clone_.capacity() / 8 + pool_.bytes() + journal_.capacity() * sizeof(OldRecent) + walk_sizes_.capacity() +
         counts_.capacity() * sizeof(std::uint32_t);
}

void SuffixMatcher::advance(std::int32_t token) {
  using Id = SuffixAutomaton::Id;
  Id next = automaton_->step(state_, token);
  while (next == SuffixAutomaton::kNone && state_ != automaton_->root()) {
    state_ = automaton_->link(state_);
    match_len_ = automaton_->len(state_);
    next = automaton_->step(state_, token);
  }
  if (next != SuffixAutomaton::kNone) {
    state_ = next;
    ++match_len_;
  }
}

}  // namespace gramcore::ngram
