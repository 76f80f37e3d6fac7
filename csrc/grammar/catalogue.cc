#include "grammar/catalogue.h"

#include <algorithm>

#include "core/check.h"
#include "grammar/intern.h"

namespace gramcore::grammar {

Catalogue::Catalogue(const std::vector<std::string_view>& strings) {
  GC_CHECK(!strings.empty(), "catalogue must hold at least one text, got none");
  std::vector<std::pair<std::string_view, std::uint32_t>> all;
  all.reserve(strings.size());
  for (std::size_t i = 0; i < strings.size(); ++i) {
    GC_CHECK(strings[i].size() < 65535, "text must have fewer than 65535 bytes, got ", strings[i].size(), " (number ",
             i, ")");
    all.push_back({strings[i], static_cast<std::uint32_t>(i)});
  }
  trie_ = build_trie(&all);
  std::string_view last;
  for (std::size_t i = 0; i < all.size(); ++i) {  // sorted now
    if (i > 0 && all[i].first == last) continue;
    last = all[i].first;
    ++size_;
    for (std::uint64_t k = 0; k < 2; ++k) {
      std::uint64_t h = mix(hash_[k], last.size() + k);
      for (const char c : last) h = mix(h, static_cast<std::uint8_t>(c) + 1);
      hash_[k] = h;
    }
  }
}

}  // namespace gramcore::grammar
