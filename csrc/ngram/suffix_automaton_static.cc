// What needs a pass over all states (occurrence counts and positions, integrity) and the file form.
#include <algorithm>
#include <array>
#include <cstring>
#include <queue>

#include "core/file.h"
#include "ngram/suffix_automaton.h"

namespace gramcore::ngram {
namespace {

// The file holds the text alone: the automaton is a function of it, and replaying is safe on hostile input.
struct Header {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t reserved;
  std::uint64_t num_tokens;
  std::uint64_t checksum;
};
constexpr std::array<char, 8> kMagic{'G', 'C', 'S', 'U', 'F', 'A', 'U', 'T'};
constexpr std::uint32_t kVersion = 1;

std::uint64_t checksum_of(Span<const std::int32_t> tokens) {
  std::uint64_t h = 0xcbf29ce484222325ull;  // FNV-1a over 32-bit words
  for (const std::int32_t t : tokens) h = (h ^ static_cast<std::uint32_t>(t)) * 0x100000001b3ull;
  return h;
}

void require(bool condition, const char* what, std::int64_t at) {
  if (!condition) throw std::logic_error(cat("suffix automaton: ", what, " (state or position ", at, ")"));
}

}  // namespace

// All states, shortest first (counting sort).
std::vector<SuffixAutomaton::Id> SuffixAutomaton::by_length() const {
  std::vector<std::uint32_t> starts(text_.size() + 2, 0);
  for (const Clone& c : clones_) ++starts[c.len + 1];
  for (std::size_t i = 1; i < starts.size(); ++i) starts[i] += starts[i - 1] + 1;  // one prefix state per length
  std::vector<Id> order(text_.size() + 1 + clones_.size());
  for (Id i = 0; i <= last(); ++i) order[starts[i]++] = i;
  for (std::size_t k = 0; k < clones_.size(); ++k) order[starts[clones_[k].len]++] = kCloneBit | static_cast<Id>(k);
  return order;
}

const std::vector<std::uint32_t>& SuffixAutomaton::counts() const {
  if (!counts_.empty()) return counts_;
  const std::vector<Id> order = by_length();
  std::vector<std::uint32_t> counts(order.size(), 0);
  for (std::size_t i = 1; i <= text_.size(); ++i) counts[i] = 1;
  for (std::size_t i = order.size(); i-- > 1;) counts[index_of(link(order[i]))] += counts[index_of(order[i])];
  counts_ = std::move(counts);
  return counts_;
}

std::int64_t SuffixAutomaton::count(Id state) const {
  return state == root() ? num_tokens() + 1 : counts()[index_of(state)];
}

void SuffixAutomaton::frequent_tree(Id state, std::int64_t max_nodes, std::int64_t width,
                                    std::vector<std::int32_t>& tokens, std::vector<std::int32_t>& parents) const {
  GC_CHECK(max_nodes >= 0 && width >= 1, "max_nodes must be >= 0 and width >= 1, got ", max_nodes, " and ", width);
  struct Candidate {
    double share;
    std::int32_t token, parent;
    std::size_t depth;
    Id state;
    bool operator<(const Candidate& b) const { return share != b.share ? share < b.share : token > b.token; }
  };
  const auto& all = counts();
  std::priority_queue<Candidate> open;
  std::vector<std::int64_t> at_depth;
  const auto expand = [&](Id from, double share, std::int32_t node, std::size_t depth) {
    std::vector<Candidate> next;
    const auto add = [&](std::int32_t token, Id target) {
      if (token == kBoundary) return;
      const double part = static_cast<double>(all[index_of(target)]) / static_cast<double>(count(from));
      next.push_back({share * part, token, node, depth, target});
    };
    if (!is_clone(from) && from < text_.size()) add(text_[from], from + 1);
    pool_.for_each(edges(from), add);
    const std::size_t kept = std::min(next.size(), static_cast<std::size_t>(width));
    std::partial_sort(next.begin(), next.begin() + static_cast<std::ptrdiff_t>(kept), next.end(),
                      [](const Candidate& a, const Candidate& b) { return b < a; });
    for (std::size_t i = 0; i < kept; ++i) open.push(next[i]);
  };
  tokens.clear();
  parents.clear();
  expand(state, 1.0, -1, 0);
  while (!open.empty() && static_cast<std::int64_t>(tokens.size()) < max_nodes) {
    const Candidate best = open.top();
    open.pop();
    if (at_depth.size() <= best.depth) at_depth.resize(best.depth + 1, 0);
    if (at_depth[best.depth] == width) continue;
    ++at_depth[best.depth];
    tokens.push_back(best.token);
    parents.push_back(best.parent);
    expand(best.state, best.share, static_cast<std::int32_t>(tokens.size()) - 1, best.depth + 1);
  }
}

void SuffixAutomaton::occurrences(Id state, std::vector<std::int64_t>& ends) const {
  ends.clear();
  std::vector<bool> below(text_.size() + 1 + clones_.size(), false);
  for (const Id s : by_length()) {
    below[index_of(s)] = s == state || (s != root() && below[index_of(link(s))]);
  }
  for (std::size_t i = 0; i <= text_.size(); ++i) {
    if (below[i]) ends.push_back(static_cast<std::int64_t>(i));
  }
}

void SuffixAutomaton::save(const std::string& path) const {
  AtomicFile file(path);
  const Header header{kMagic, kVersion, 0, text_.size(), checksum_of(text_)};
  file.write(&header, sizeof(header));
  file.write(Span<const std::int32_t>(text_));
  file.commit();
}

SuffixAutomaton SuffixAutomaton::load(const std::string& path) {
  const MappedFile file(path, Access::sequential);
  Header header{};
  GC_CHECK_AS(FormatError, file.size() >= sizeof(header), path, ": must hold a suffix automaton, got ", file.size(),
              " bytes; write it with save()");
  std::memcpy(&header, file.bytes().data(), sizeof(header));
  GC_CHECK_AS(FormatError, header.magic == kMagic, path, ": must hold a suffix automaton, got another kind of file");
  GC_CHECK_AS(FormatError, header.version == kVersion, path, ": format version must be ", kVersion, ", got ",
              header.version, "; save it again with this version of gramcore");
  GC_CHECK_AS(FormatError, header.num_tokens == (file.size() - sizeof(header)) / 4 && file.size() % 4 == 0, path,
              ": must hold ", header.num_tokens, " tokens as its header says, got ", file.size(),
              " bytes; the file is truncated or overlong");
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(header.num_tokens));
  if (!tokens.empty()) std::memcpy(tokens.data(), file.bytes().data() + sizeof(header), tokens.size() * 4);
  GC_CHECK_AS(FormatError, header.checksum == checksum_of(tokens), path, ": checksum does not match; it is damaged");
  for (const std::int32_t t : tokens) {
    GC_CHECK_AS(FormatError, t >= kBoundary, path, ": token ids must be >= -1, got ", t);
  }
  SuffixAutomaton automaton;
  automaton.extend(tokens);
  return automaton;
}

void SuffixAutomaton::check_integrity() const {
  const std::size_t n = text_.size(), states = n + 1 + clones_.size();
  require(links_.size() == n + 1 && repeated_.size() <= n + 1, "arrays must have one entry per prefix", 0);
  require(clone_cls_.size() == clones_.size() && (n == 0 ? states == 1 : states <= 2 * n), "too many states", 0);
  require(link(0) == kNone, "the root must have no link", 0);
  std::uint64_t edges_seen = 0;
  const auto check_state = [&](Id s) {
    const auto at = static_cast<std::int64_t>(index_of(s));
    const std::int64_t end = first_end(s);
    require(end >= len(s) && end <= num_tokens(), "first end out of range", at);
    require(recent_end(s) >= end && recent_end(s) <= num_tokens(), "recent end out of range", at);
    if (s != root()) {
      const Id up = link(s);
      require(up != kNone && index_of(up) < states && len(up) < len(s), "link must lead to a shorter state", at);
      require(is_clone(up) || up < repeated_.size(), "link must lead to what occurred again", at);
      require(std::equal(text_.begin() + end - len(up), text_.begin() + end, text_.begin() + first_end(up) - len(up)),
              "link must be a suffix", at);
      require(std::equal(text_.begin() + end - len(s), text_.begin() + end, text_.begin() + recent_end(s) - len(s)),
              "recent must be an occurrence", at);
    }
    pool_.for_each(edges(s), [&](std::int32_t token, Id target) {
      ++edges_seen;
      require(target != kNone && index_of(target) < states && len(target) > len(s), "edge must lead forward", at);
      require(text_[static_cast<std::size_t>(first_end(target) - 1)] == token, "edge token must be its target's", at);
      require(pool_.find(edges(s), token) == target, "edge must be found by its token", at);
      require(is_clone(s) || s >= n || text_[s] != token, "edge must not repeat the text's", at);
    });
  };
  for (Id s = 0; s <= last(); ++s) check_state(s);
  for (std::size_t k = 0; k < clones_.size(); ++k) check_state(kCloneBit | static_cast<Id>(k));
  require(edges_seen == pool_.num_edges(), "edge count is wrong", static_cast<std::int64_t>(edges_seen));
}

}  // namespace gramcore::ngram
