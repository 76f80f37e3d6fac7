#include "spec/ngram_draft.h"

#include <algorithm>
#include <limits>

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

int NgramTable::match_order() const {
  for (int order = std::min<int>(max_order_, static_cast<int>(text_.size())); order >= min_order_; --order) {
    if (tables_[static_cast<std::size_t>(order - min_order_)].count(key(&text_.back(), order))) return order;
  }
  return 0;
}

}  // namespace gramcore::spec
