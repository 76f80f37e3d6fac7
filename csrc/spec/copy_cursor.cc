#include "spec/copy_cursor.h"

#include <algorithm>
#include <cstdlib>
#include <limits>

namespace gramcore::spec {
namespace {

std::size_t at(std::int64_t i) {
  return static_cast<std::size_t>(i);
}

}  // namespace

void CopyCursor::extend(Span<const std::int32_t> tokens) {
  GC_CHECK_AS(LimitError, text_.size() + tokens.size() < at(std::numeric_limits<std::int32_t>::max()),
              "history must stay below 2^31 tokens, got ", text_.size() + tokens.size());
  for (const std::int32_t token : tokens) append(token);
}

void CopyCursor::append(std::int32_t token) {
  const std::int64_t here = num_tokens();
  text_.push_back(token);
  if (place_ >= 0) {
    if (text_[at(place_)] == token && place_ < here) {
      ++place_, lost_ = 0;
    } else if (++lost_ > kLost) {
      place_ = -1;
    } else if (const Source best = nearby(); best.agreement >= kSure) {
      place_ = best.place, lost_ = 0;
    }
  }
  if (num_tokens() < kSeed) return;
  if (2 * text_.size() > ends_.size()) grow();
  std::uint32_t& end = ends_[slot(num_tokens())];
  if ((place_ < 0 || lost_ > 0) && end > 0) place_ = end, lost_ = 0;
  end = static_cast<std::uint32_t>(num_tokens());
}

void CopyCursor::rollback(std::int64_t n) {
  GC_CHECK(n >= 0 && n <= num_tokens(), "n must be in [0, ", num_tokens(), "], got ", n);
  std::vector<std::int32_t> kept(text_.begin(), text_.end() - static_cast<std::ptrdiff_t>(n));
  *this = CopyCursor();
  extend(kept);
}

CopyCursor::Source CopyCursor::source() const {
  if (place_ < 0) return {};
  if (lost_ == 0) return {place_, agreement(place_)};
  const Source best = nearby();
  if (best.agreement > 0) return best;
  // Nothing agrees: as many tokens were replaced as differ, if it is few.
  return lost_ <= 2 && place_ + lost_ < num_tokens() ? Source{place_ + lost_, 0} : Source{};
}

std::vector<std::int32_t> CopyCursor::propose(std::int64_t max_tokens) const {
  const Source from = source();
  std::vector<std::int32_t> draft;
  if (from.place < 0) return draft;
  for (std::int64_t i = from.place; static_cast<std::int64_t>(draft.size()) < max_tokens; ++i) {
    draft.push_back(i < num_tokens() ? text_[at(i)] : draft[at(i - num_tokens())]);
  }
  return draft;
}

std::int64_t CopyCursor::agreement(std::int64_t place) const {
  const std::int64_t most = std::min<std::int64_t>(kCap, place);
  std::int64_t n = 0;
  while (n < most && text_[at(num_tokens() - 1 - n)] == text_[at(place - 1 - n)]) ++n;
  return n;
}

CopyCursor::Source CopyCursor::nearby() const {
  Source best;
  std::int64_t distance = 0;
  const std::int64_t last = std::min<std::int64_t>(place_ + kAhead, num_tokens());
  for (std::int64_t place = std::max<std::int64_t>(1, place_ - 1); place < last; ++place) {
    const std::int64_t n = agreement(place), off = std::abs(place - place_ - lost_);
    if (n > best.agreement || (n == best.agreement && n > 0 && off < distance)) best = {place, n}, distance = off;
  }
  return best;
}

std::size_t CopyCursor::slot(std::int64_t end) const {
  std::uint64_t hash = 0;
  for (std::int64_t i = end - kSeed; i < end; ++i) {
    hash = (hash ^ static_cast<std::uint32_t>(text_[at(i)])) * 0x9e3779b97f4a7c15ull;
    hash ^= hash >> 32;
  }
  const std::int32_t* seed = text_.data() + end - kSeed;
  for (std::size_t i = hash & (ends_.size() - 1);; i = (i + 1) & (ends_.size() - 1)) {
    if (ends_[i] == 0 || std::equal(seed, seed + kSeed, text_.data() + ends_[i] - kSeed)) return i;
  }
}

void CopyCursor::grow() {
  ends_.assign(std::max<std::size_t>(1024, 2 * ends_.size()), 0);
  for (std::int64_t end = kSeed; end < num_tokens(); ++end) ends_[slot(end)] = static_cast<std::uint32_t>(end);
}

}  // namespace gramcore::spec
