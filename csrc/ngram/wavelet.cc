#include "ngram/wavelet.h"

#include <queue>
#include <utility>

namespace gramcore::ngram {

WaveletTree::WaveletTree(std::vector<std::uint32_t> sequence, std::uint32_t k) : codes_(k, WaveletCode{0, 0}) {
  if (k > 1) {
    std::vector<std::uint64_t> counts(k, 0);
    for (const std::uint32_t s : sequence) ++counts[s];
    make_codes(counts);
    assign_codes();
    fill(std::move(sequence));
  }
  bits_.finish();
}

// Huffman's tree; nodes are then numbered from the root.
void WaveletTree::make_codes(const std::vector<std::uint64_t>& counts) {
  using Item = std::pair<std::uint64_t, std::int32_t>;  // weight, child reference
  std::priority_queue<Item, std::vector<Item>, std::greater<Item>> queue;
  for (std::size_t s = 0; s < counts.size(); ++s) queue.push({counts[s], ~static_cast<std::int32_t>(s)});
  std::vector<WaveletNode> made;
  while (queue.size() > 1) {
    const Item a = queue.top();
    queue.pop();
    const Item b = queue.top();
    queue.pop();
    made.push_back({0, 0, {a.second, b.second}});
    queue.push({a.first + b.first, static_cast<std::int32_t>(made.size() - 1)});
  }
  const auto last = static_cast<std::int32_t>(made.size()) - 1;
  for (std::size_t i = made.size(); i-- > 0;) {
    WaveletNode n = made[i];
    for (std::int32_t& c : n.child) c = c < 0 ? c : last - c;
    nodes_.push_back(n);
  }
}

void WaveletTree::assign_codes() {
  std::vector<WaveletCode> of(nodes_.size(), WaveletCode{0, 0});
  for (std::size_t i = 0; i < nodes_.size(); ++i) {  // parents come first
    for (unsigned bit = 0; bit < 2; ++bit) {
      const std::int32_t c = nodes_[i].child[bit];
      const WaveletCode code{of[i].bits | std::uint64_t{bit} << of[i].length, of[i].length + 1};
      if (c >= 0) {
        of[static_cast<std::size_t>(c)] = code;
      } else {
        codes_[static_cast<std::size_t>(~c)] = code;
      }
    }
  }
}

// Level by level: each node writes the next bit of its symbols' codes and deals them to its children.
void WaveletTree::fill(std::vector<std::uint32_t> sequence) {
  struct Segment {
    std::int32_t node;
    std::size_t begin, end;
  };
  std::vector<std::uint32_t> next(sequence.size()), zeros;
  std::vector<Segment> level{{0, 0, sequence.size()}}, below;
  std::uint64_t written = 0, ones = 0;
  for (unsigned depth = 0; !level.empty(); ++depth) {
    std::size_t out = 0;
    below.clear();
    for (const Segment& s : level) {
      WaveletNode& node = nodes_[static_cast<std::size_t>(s.node)];
      node.begin = written;
      node.ones = ones;
      for (unsigned side = 0; side < 2; ++side) {
        const std::int32_t child = node.child[side];
        const std::size_t begin = out;
        for (std::size_t i = s.begin; i < s.end; ++i) {
          const bool bit = (codes_[sequence[i]].bits >> depth) & 1u;
          if (side == 0) bits_.push(bit), ones += bit;
          if (child >= 0 && bit == (side == 1)) next[out++] = sequence[i];
        }
        if (child >= 0) below.push_back({child, begin, out});
      }
      written += s.end - s.begin;
    }
    sequence.swap(next);
    level.swap(below);
  }
}

void WaveletTree::rank(std::uint32_t symbol, std::uint64_t* begin, std::uint64_t* end) const {
  wavelet_walk_kernels().descend(bits_.view(), nodes_.data(), codes_[symbol], begin, end);
}

std::uint32_t WaveletTree::access(std::uint64_t at, std::uint64_t* before) const {
  *before = at;
  return nodes_.empty() ? 0 : wavelet_walk_kernels().access(bits_.view(), nodes_.data(), at, before);
}

void WaveletTree::distinct(std::uint64_t begin, std::uint64_t end, std::vector<Found>* found) const {
  struct Part {
    std::int32_t node;
    std::uint64_t begin, end;
  };
  found->clear();
  if (codes_.empty()) return;
  const WaveletWalkKernels& walk = wavelet_walk_kernels();
  std::vector<Part> stack{{nodes_.empty() ? ~0 : 0, begin, end}};
  while (!stack.empty()) {
    const Part p = stack.back();
    stack.pop_back();
    if (p.begin == p.end) continue;
    if (p.node < 0) {
      found->push_back({static_cast<std::uint32_t>(~p.node), p.end - p.begin});
      continue;
    }
    const WaveletNode& node = nodes_[static_cast<std::size_t>(p.node)];
    std::uint64_t left, right;
    walk.rank1_pair(bits_.view(), node.begin + p.begin, node.begin + p.end, &left, &right);
    left -= node.ones;
    right -= node.ones;
    stack.push_back({node.child[1], left, right});
    stack.push_back({node.child[0], p.begin - left, p.end - right});
  }
}

std::uint64_t WaveletTree::bytes() const {
  return bits_.bytes() + nodes_.size() * sizeof(WaveletNode) + codes_.size() * sizeof(WaveletCode);
}

void WaveletTree::save(SectionWriter& file) const {
  file.add(Span<const WaveletNode>(nodes_));
  bits_.save(file);
}

WaveletTree WaveletTree::map(SectionReader& file, std::uint64_t n, std::uint32_t k, const Facts& facts,
                             std::vector<std::uint64_t>* counts) {
  WaveletTree tree;
  const auto nodes = file.take<WaveletNode>(k > 1 ? k - 1 : 0);
  tree.nodes_.assign(nodes.begin(), nodes.end());
  tree.codes_.assign(k, WaveletCode{0, 0});
  tree.bits_ = HybridBits::map(file, facts.bits, facts.data_bytes);
  counts->assign(k, 0);
  if (k == 1) (*counts)[0] = n;
  if (k > 1) tree.check(file, n, counts);
  tree.assign_codes();
  return tree;
}

// Nodes form one tree, each after its parent, with every symbol at one leaf; each node's bits lie inside the sequence.
void WaveletTree::check(const SectionReader& file, std::uint64_t n, std::vector<std::uint64_t>* counts) const {
  struct Part {
    std::uint64_t size;
    unsigned depth;
  };
  std::vector<Part> parts(nodes_.size(), Part{0, 0});  // size 0: no parent yet; no node is empty
  parts[0] = {n, 1};
  const std::uint64_t bits = bits_.size();
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const WaveletNode& node = nodes_[i];
    const Part part = parts[i];
    file.require(part.size > 0, "every node must have a parent before it");
    file.require(part.depth <= 64, "codes must have at most 64 bits");
    file.require(node.begin <= bits && part.size <= bits - node.begin, "a node's bits must lie inside the sequence");
    file.require(node.ones == bits_.rank1(node.begin, nullptr), "a node must know the ones before it");
    const std::uint64_t right = bits_.rank1(node.begin + part.size, nullptr) - node.ones;
    for (unsigned side = 0; side < 2; ++side) {
      const std::uint64_t size = side == 1 ? right : part.size - right;
      const std::int32_t child = node.child[side];
      const auto at = static_cast<std::size_t>(child < 0 ? ~child : child);
      file.require(size > 0, "every node and every symbol must occur");
      if (child < 0) {
        file.require(at < counts->size() && (*counts)[at] == 0, "every symbol must be at one leaf");
        (*counts)[at] = size;
      } else {
        file.require(at > i && at < nodes_.size() && parts[at].size == 0, "every node must have one parent before it");
        parts[at] = {size, part.depth + 1};
      }
    }
  }
}

}  // namespace gramcore::ngram
