#include "grammar/mass_trie.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/bitset.h"

namespace gramcore::grammar {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();
constexpr char kMagic[8] = {'G', 'C', 'M', 'A', 'S', 'S', '0', '1'};

double log_add(double a, double b) {
  const double high = std::max(a, b), low = std::min(a, b);
  return low == kNever ? high : high + std::log1p(std::exp(low - high));
}

// log(exp(a) - exp(b)), never below zero mass: a difference within rounding of a counts as nothing.
double log_sub(double a, double b) {
  if (b == kNever) return a;
  const double rest = -std::expm1(b - a);
  return a == kNever || rest < 1e-13 ? kNever : a + std::log(rest);
}

constexpr std::size_t kBlock = 256;
constexpr std::size_t kLanes = 8;  // independent sums, so that the compiler can use vectors

// exp(x) for x <= 0, relative error below 3e-7; 0 below the normal floats.  exp(x) = 2^n 2^f, |f| <= 1/2.
float exp_below_one(float x) {
  const float y = (x < -87.0f ? -87.0f : x) * 1.44269504f;
  const auto n = static_cast<std::int32_t>(y - 0.5f);
  const float f = y - static_cast<float>(n);
  float p = 1.540353e-4f;
  p = p * f + 1.3333558e-3f;
  p = p * f + 9.6181291e-3f;
  p = p * f + 5.5504109e-2f;
  p = p * f + 2.4022651e-1f;
  p = p * f + 6.9314718e-1f;
  p = p * f + 1.0f;
  const std::int32_t bits = (n + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return x < -87.0f ? 0.0f : p * scale;
}

double sum(const float* values, std::size_t n) {
  float lanes[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] += values[i + k];
  }
  double total = 0.0;
  for (const float x : lanes) total += x;
  for (; i < n; ++i) total += values[i];
  return total;
}

float greatest(Span<const float> values) {
  float lanes[kLanes];
  std::fill(lanes, lanes + kLanes, -std::numeric_limits<float>::infinity());
  std::int32_t nans = 0;
  for (const float x : values) nans += x != x;
  GC_CHECK(nans == 0, "logits must not hold NaN, got ", nans, " of ", values.size());
  std::size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (std::size_t k = 0; k < kLanes; ++k) lanes[k] = lanes[k] < values[i + k] ? values[i + k] : lanes[k];
  }
  float high = *std::max_element(lanes, lanes + kLanes);
  for (; i < values.size(); ++i) high = std::max(high, values[i]);
  GC_CHECK(std::isfinite(high), "logits must have a finite maximum, got ", high);
  return high;
}

// Sets forbidden logits to -inf; returns the mass of the others.
double keep_allowed(float* logits, const float* mass, std::size_t n, const std::int32_t* words) {
  double allowed = 0.0;
  for (std::size_t begin = 0; begin < n; begin += 32) {
    const std::size_t m = std::min<std::size_t>(32, n - begin);
    const auto word = static_cast<std::uint32_t>(words[begin / 32]);
    if (word == 0xFFFFFFFFu) {
      allowed += sum(mass + begin, m);
      continue;
    }
    float kept[32];
    std::copy(logits + begin, logits + begin + m, kept);
    std::fill(logits + begin, logits + begin + m, -std::numeric_limits<float>::infinity());
    const std::uint32_t real = m == 32 ? word : word & ((1u << m) - 1);
    for (std::uint32_t rest = real; rest; rest &= rest - 1) {
      const auto i = static_cast<std::size_t>(__builtin_ctz(rest));
      logits[begin + i] = kept[i];
      allowed += mass[begin + i];
    }
  }
  return allowed;
}

}  // namespace

MassTrie::MassTrie(std::int64_t vocab_size) : vocab_size_(vocab_size) {
  GC_CHECK(vocab_size >= 1 && vocab_size <= 0x7fffffff, "vocab_size must be in [1, 2^31), got ", vocab_size);
  nodes_.push_back({kNone, kNone, kNone, -1, 0, 0, 0.0, 0.0, 0.0});
}

MassTrie::Node& MassTrie::at(NodeId node) {
  return const_cast<Node&>(static_cast<const MassTrie&>(*this).at(node));
}

const MassTrie::Node& MassTrie::at(NodeId node) const {
  GC_CHECK_AS(OutOfRange, node >= 0 && static_cast<std::size_t>(node) < nodes_.size(), "node must be in [0, ",
              nodes_.size(), "), got ", node);
  return nodes_[static_cast<std::size_t>(node)];
}

MassTrie::NodeId MassTrie::child(NodeId node, std::int32_t token) const {
  const auto it = children_.find(key(node, token));
  return it == children_.end() ? kNone : it->second;
}

double MassTrie::log_weight(NodeId node) const {
  for (NodeId n = node; n != kNone; n = at(n).parent) {
    if (at(n).excluded) return kNever;
  }
  return at(node).log_weight;
}

MassTrie::NodeId MassTrie::enter(NodeId node, std::int32_t token, double log_prob) {
  at(node);
  GC_CHECK(token >= 0 && token < vocab_size_, "token must be in [0, ", vocab_size_, "), got ", token);
  GC_CHECK(log_prob <= 1e-6 && !std::isnan(log_prob), "log_prob must be <= 0, got ", log_prob, " (token ", token, ")");
  if (const NodeId known = child(node, token); known != kNone) return known;
  GC_CHECK_AS(LimitError, nodes_.size() < 0x7ffffff0, "trie must have fewer than 2^31 nodes, got ", nodes_.size());
  const auto made = static_cast<NodeId>(nodes_.size());
  nodes_.push_back({node, kNone, at(node).first_child, token, 0, 0, std::min(log_prob, 0.0), 0.0, 0.0});
  at(node).first_child = made;
  at(node).log_open = log_sub(at(node).log_open, std::min(log_prob, 0.0));
  children_.emplace(key(node, token), made);
  return made;
}

void MassTrie::restrict(NodeId node, double log_allowed) {
  Node& n = at(node);
  GC_CHECK(log_allowed <= 1e-6 && !std::isnan(log_allowed), "log_allowed must be <= 0, got ", log_allowed);
  if (n.restricted) return;
  n.restricted = 1;
  n.log_open = std::min(log_allowed, 0.0);
  for (NodeId c = n.first_child; c != kNone; c = at(c).next_sibling) n.log_open = log_sub(n.log_open, at(c).log_prob);
  update(node);
}

void MassTrie::exclude(NodeId node) {
  at(node).excluded = 1;
  update(node);
}

void MassTrie::update(NodeId node) {
  for (at(node); node != kNone; node = at(node).parent) {
    Node& n = at(node);
    double sum = n.excluded ? kNever : n.log_open;
    for (NodeId c = n.excluded ? kNone : n.first_child; c != kNone; c = at(c).next_sibling)
      sum = log_add(sum, at(c).log_prob + at(c).log_weight);
    n.log_weight = std::min(sum, 0.0);
  }
}

double MassTrie::edit(NodeId node, Span<float> logits, const std::int32_t* bitmask) {
  GC_CHECK(static_cast<std::int64_t>(logits.size()) == vocab_size_, "logits must have ", vocab_size_, " entries, got ",
           logits.size());
  at(node);
  const float high = greatest(logits);
  double all = 0.0, allowed = 0.0;
  float mass[kBlock];
  for (std::size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const std::size_t n = std::min(kBlock, logits.size() - begin);
    for (std::size_t i = 0; i < n; ++i) mass[i] = exp_below_one(logits[begin + i] - high);
    all += sum(mass, n);
    if (bitmask != nullptr) allowed += keep_allowed(logits.data() + begin, mass, n, bitmask + begin / 32);
  }
  if (bitmask != nullptr) restrict(node, allowed > 0.0 ? std::log(allowed / all) : kNever);
  for (NodeId c = at(node).first_child; c != kNone; c = at(c).next_sibling) {
    logits[static_cast<std::size_t>(at(c).token)] += static_cast<float>(at(c).log_weight);
  }
  return high + std::log(all);
}

std::int64_t MassTrie::backtrack(NodeId bad, std::int64_t first, Span<const double> uniforms) {
  std::vector<NodeId> path;
  for (NodeId n = bad; n != kNone; n = at(n).parent) path.push_back(n);
  std::reverse(path.begin(), path.end());
  const auto length = static_cast<std::int64_t>(path.size()) - 1;
  GC_CHECK(first >= 0 && first <= length, "first must be in [0, ", length, "], got ", first);
  GC_CHECK(static_cast<std::int64_t>(uniforms.size()) == length, "uniforms must have ", length, " entries, got ",
           uniforms.size());
  std::vector<double> before;
  for (const NodeId n : path) before.push_back(at(n).log_weight);
  exclude(bad);
  for (std::int64_t i = first; i < length; ++i) {
    const auto n = static_cast<std::size_t>(i), c = n + 1;
    const double now = at(path[c]).log_weight, here = at(path[n]).log_weight;
    const double log_ratio = now == kNever ? kNever : (now - before[c]) + (before[n] - here);
    if (std::log(uniforms[n]) >= log_ratio) return i;
  }
  return length;
}

std::string MassTrie::to_bytes() const {
  std::string out(kMagic, sizeof kMagic);
  const std::int64_t counts[2] = {vocab_size_, num_nodes()};
  out.append(reinterpret_cast<const char*>(counts), sizeof counts);
  out.append(reinterpret_cast<const char*>(nodes_.data()), nodes_.size() * sizeof(Node));
  return out;
}

MassTrie MassTrie::from_bytes(std::string_view bytes) {
  std::int64_t counts[2];
  const std::size_t head = sizeof kMagic + sizeof counts;
  GC_CHECK_AS(FormatError, bytes.size() >= head && std::memcmp(bytes.data(), kMagic, sizeof kMagic) == 0,
              "trie file must start with its mark, got ", bytes.size(), " bytes of something else");
  std::memcpy(counts, bytes.data() + sizeof kMagic, sizeof counts);
  GC_CHECK_AS(FormatError, counts[0] >= 1 && counts[0] <= 0x7fffffff && counts[1] >= 1 && counts[1] < 0x7fffffff,
              "trie file must have sizes in range, got a vocabulary of ", counts[0], " and ", counts[1], " nodes");
  const auto num = static_cast<std::size_t>(counts[1]);
  GC_CHECK_AS(FormatError, bytes.size() - head == num * sizeof(Node), "trie file must hold ", num, " nodes, got ",
              bytes.size() - head, " bytes; it may be cut");
  MassTrie trie(counts[0]);
  trie.nodes_.resize(num);
  std::memcpy(static_cast<void*>(trie.nodes_.data()), bytes.data() + head, num * sizeof(Node));
  trie.check_integrity();
  for (std::size_t i = 1; i < num; ++i) {
    const Node& n = trie.nodes_[i];
    const bool fresh = trie.children_.emplace(trie.key(n.parent, n.token), static_cast<NodeId>(i)).second;
    GC_CHECK_AS(FormatError, fresh, "trie file must have distinct children, got token ", n.token, " twice below node ",
                n.parent);
  }
  return trie;
}

// Every node but the root is in its parent's list exactly once, parents and older siblings come first, weights are <=
// 0.
void MassTrie::check_integrity() const {
  const auto num = static_cast<NodeId>(nodes_.size());
  std::vector<bool> listed(nodes_.size(), false);
  for (NodeId i = 0; i < num; ++i) {
    const Node& n = nodes_[static_cast<std::size_t>(i)];
    const bool parent = i == 0 ? n.parent == kNone : n.parent >= 0 && n.parent < i;
    const bool token = i == 0 ? n.token == -1 : n.token >= 0 && n.token < vocab_size_;
    const bool masses = n.log_prob <= 0.0 && n.log_weight <= 0.0 && n.log_open <= 0.0;
    GC_CHECK_AS(FormatError, parent && token && masses,
                "trie node must have a parent, a token and masses <= 1, got node ", i);
  }
  for (NodeId i = 0; i < num; ++i) {
    NodeId last = num;
    for (NodeId c = nodes_[static_cast<std::size_t>(i)].first_child; c != kNone;
         c = nodes_[static_cast<std::size_t>(c)].next_sibling) {
      const bool good = c > i && c < last && nodes_[static_cast<std::size_t>(c)].parent == i;
      GC_CHECK_AS(FormatError, good, "trie node must list its own children, newest first, got node ", c, " below ", i);
      listed[static_cast<std::size_t>(c)] = true;
      last = c;
    }
  }
  for (NodeId i = 1; i < num; ++i) {
    GC_CHECK_AS(FormatError, listed[static_cast<std::size_t>(i)], "trie node must be listed by its parent, got node ",
                i);
  }
}

}  // namespace gramcore::grammar
