#include "spec/ngram_draft.h"

#include <algorithm>
#include <limits>
#include <queue>

namespace gramcore::spec {
namespace {

std::uint64_t mix(std::uint64_t hash, std::int32_t token) {
  hash ^= static_cast<std::uint32_t>(token) + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2);
  hash *= 0xff51afd7ed558ccdull;
  return hash ^ (hash >> 33);
}

}  // namespace

NgramTable::NgramTable(int min_order, int max_order, Pick pick)
    : min_order_(min_order), max_order_(max_order), pick_(pick) {
  GC_CHECK(min_order >= 1, "min_order must be >= 1, got ", min_order);
  GC_CHECK(max_order >= min_order && max_order <= 64, "max_order must be in [min_order, 64], got ", max_order,
           " (min_order ", min_order, ")");
  tables_.resize(static_cast<std::size_t>(max_order - min_order + 1));
}

std::uint64_t NgramTable::key(const std::int32_t* last, int order) const {
  std::uint64_t hash = static_cast<std::uint64_t>(order);
  for (int i = 0; i < order; ++i) hash = mix(hash, last[-i]);
  return hash;
}

void NgramTable::extend(Span<const std::int32_t> tokens) {
  GC_CHECK_AS(LimitError,
              text_.size() + tokens.size() < static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()),
              "history must stay below 2^31 tokens, got ", text_.size() + tokens.size());
  for (std::int32_t token : tokens) {
    const auto position = static_cast<std::int32_t>(text_.size());
    for (int order = min_order_; order <= max_order_ && order <= position; ++order) {
      Row& row = tables_[static_cast<std::size_t>(order - min_order_)][key(&text_.back(), order)];
      const auto found = std::find_if(row.begin(), row.end(), [&](const Continuation& c) { return c.token == token; });
      if (found != row.end()) {
        found->positions.push_back(position);
      } else {
        row.push_back(Continuation{token, {position}});
      }
    }
    text_.push_back(token);
  }
}

void NgramTable::rollback(std::int64_t n) {
  GC_CHECK(n >= 0 && n <= num_tokens(), "n must be in [0, ", num_tokens(), "], got ", n);
  for (; n > 0; --n) {
    const std::int32_t token = text_.back();
    text_.pop_back();
    for (int order = min_order_; order <= max_order_ && order <= static_cast<int>(text_.size()); ++order) {
      auto& table = tables_[static_cast<std::size_t>(order - min_order_)];
      const auto entry = table.find(key(&text_.back(), order));
      Row& row = entry->second;
      const auto found = std::find_if(row.begin(), row.end(), [&](const Continuation& c) { return c.token == token; });
      found->positions.pop_back();
      if (found->positions.empty()) row.erase(found);
      if (row.empty()) table.erase(entry);
    }
  }
}

const NgramTable::Continuation* NgramTable::lookup(const std::vector<std::int32_t>& context) const {
  const int longest = std::min<int>(max_order_, static_cast<int>(context.size()));
  for (int order = longest; order >= min_order_; --order) {
    const auto& table = tables_[static_cast<std::size_t>(order - min_order_)];
    const auto entry = table.find(key(&context.back(), order));
    if (entry == table.end()) continue;
    const auto better = [&](const Continuation& a, const Continuation& b) {
      if (pick_ == Pick::most_frequent && a.positions.size() != b.positions.size()) {
        return a.positions.size() < b.positions.size();
      }
      return a.positions.back() < b.positions.back();
    };
    return &*std::max_element(entry->second.begin(), entry->second.end(), better);
  }
  return nullptr;
}

std::vector<std::int32_t> NgramTable::propose(std::int64_t max_tokens) const {
  const std::size_t keep = std::min<std::size_t>(text_.size(), static_cast<std::size_t>(max_order_));
  std::vector<std::int32_t> context(text_.end() - static_cast<std::ptrdiff_t>(keep), text_.end()), draft;
  while (static_cast<std::int64_t>(draft.size()) < max_tokens) {
    const Continuation* next = lookup(context);
    if (!next) break;
    draft.push_back(next->token);
    context.push_back(next->token);
  }
  return draft;
}

std::vector<NgramTable::Share> NgramTable::law(const std::vector<std::int32_t>& context) const {
  std::vector<Share> shares;
  double left = 1;
  const int longest = std::min<int>(max_order_, static_cast<int>(context.size()));
  for (int order = longest; order >= min_order_; --order) {
    const auto& table = tables_[static_cast<std::size_t>(order - min_order_)];
    const auto entry = table.find(key(&context.back(), order));
    if (entry == table.end()) continue;
    std::vector<const Continuation*> fresh;
    double total = 0;
    for (const Continuation& c : entry->second) {
      const bool known = std::any_of(shares.begin(), shares.end(), [&](const Share& s) { return s.token == c.token; });
      if (!known) fresh.push_back(&c), total += static_cast<double>(c.positions.size());
    }
    if (fresh.empty()) continue;
    const double distinct = static_cast<double>(fresh.size()), whole = total + distinct;
    const std::size_t width = std::min(fresh.size(), kWidest);
    std::partial_sort(fresh.begin(), fresh.begin() + static_cast<std::ptrdiff_t>(width), fresh.end(),
                      [](const Continuation* a, const Continuation* b) {
                        if (a->positions.size() != b->positions.size())
                          return a->positions.size() > b->positions.size();
                        return a->positions.back() > b->positions.back();
                      });
    for (std::size_t i = 0; i < width; ++i) {
      shares.push_back({fresh[i]->token, left * static_cast<double>(fresh[i]->positions.size()) / whole});
    }
    left *= distinct / whole;
  }
  return shares;
}

void NgramTable::propose_tree(std::int64_t max_nodes, Span<const std::int32_t> chain, double share,
                              std::vector<std::int32_t>* tokens, std::vector<std::int32_t>* parents) const {
  GC_CHECK(share >= 0 && share < 1, "share must be in [0, 1), got ", share);
  struct Candidate {
    double probability;
    std::int64_t order;  // of insertion; the earlier one first among equals
    std::int32_t token, parent;
    std::int64_t on_chain;  // tokens of the chain down to here, or -1
    bool operator<(const Candidate& b) const {
      return probability != b.probability ? probability < b.probability : order > b.order;
    }
  };
  std::priority_queue<Candidate> open;
  std::int64_t made = 0;
  const auto expand = [&](double probability, std::int32_t node, std::int64_t on_chain) {
    std::vector<std::int32_t> context;
    for (std::int32_t i = node; i >= 0; i = (*parents)[static_cast<std::size_t>(i)]) {
      context.push_back((*tokens)[static_cast<std::size_t>(i)]);
    }
    for (std::size_t i = text_.size(); i > 0 && context.size() < static_cast<std::size_t>(max_order_); --i) {
      context.push_back(text_[i - 1]);
    }
    std::reverse(context.begin(), context.end());
    std::vector<Share> shares = context.empty() ? std::vector<Share>() : law(context);
    const bool follows = on_chain >= 0 && on_chain < static_cast<std::int64_t>(chain.size());
    if (follows) {
      const double sure = on_chain == 0 ? share : std::max(share, kOnChain);
      const std::int32_t next = chain[static_cast<std::size_t>(on_chain)];
      for (Share& s : shares) s.probability *= 1 - sure;
      const auto same = std::find_if(shares.begin(), shares.end(), [&](const Share& s) { return s.token == next; });
      if (same != shares.end()) {
        same->probability += sure;
      } else {
        shares.push_back({next, sure});
      }
    }
    for (const Share& s : shares) {
      const bool along = follows && s.token == chain[static_cast<std::size_t>(on_chain)];
      open.push({probability * s.probability, made++, s.token, node, along ? on_chain + 1 : -1});
    }
  };
  tokens->clear();
  parents->clear();
  if (max_nodes <= 0) return;
  expand(1.0, -1, 0);
  while (!open.empty()) {
    const Candidate best = open.top();
    open.pop();
    tokens->push_back(best.token);
    parents->push_back(best.parent);
    if (static_cast<std::int64_t>(tokens->size()) >= max_nodes) return;
    expand(best.probability, static_cast<std::int32_t>(tokens->size()) - 1, best.on_chain);
  }
}

int NgramTable::match_order() const {
  for (int order = std::min<int>(max_order_, static_cast<int>(text_.size())); order >= min_order_; --order) {
    if (tables_[static_cast<std::size_t>(order - min_order_)].count(key(&text_.back(), order))) return order;
  }
  return 0;
}

}  // namespace gramcore::spec
