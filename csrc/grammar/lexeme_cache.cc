// What grammars of one vocabulary share.
#include <algorithm>
#include <cstring>

#include "grammar/lexeme.h"

namespace gramcore::grammar {
namespace {

constexpr std::size_t kMaxCacheBytes = std::size_t{256} << 20;
constexpr std::size_t kMaxPieces = 256;

// Equal masks have equal hashes; others are told apart by their bits.
std::uint64_t hash_of(const std::vector<std::int32_t>& bits) {
  std::array<std::uint64_t, 8> lanes{1, 2, 3, 4, 5, 6, 7, 8};  // side by side, since a product is long under way
  std::size_t w = 0;
  for (; w + 16 <= bits.size(); w += 16) {
    std::array<std::uint64_t, 8> block;
    std::memcpy(block.data(), bits.data() + w, sizeof(block));
    for (std::size_t i = 0; i < 8; ++i) lanes[i] = (lanes[i] ^ block[i]) * 0x9E3779B97F4A7C15ull;
  }
  std::uint64_t hash = 0;
  for (; w < bits.size(); ++w) hash = mix(hash, static_cast<std::uint32_t>(bits[w]));
  for (const std::uint64_t lane : lanes) hash = mix(hash, lane);
  return hash;
}

}  // namespace

std::shared_ptr<const Lexeme> LexemeCache::find(const ExprPool::Hash& hash) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = lexemes_.find(hash);
  return it == lexemes_.end() ? nullptr : it->second;
}

std::shared_ptr<const Pieces> LexemeCache::find_pieces(const ExprPool::Hash& hash) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto it = pieces_.find(hash);
  return it == pieces_.end() ? nullptr : it->second;
}

void LexemeCache::add_pieces(const ExprPool::Hash& hash, std::shared_ptr<const Pieces> pieces) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (pieces_.size() >= kMaxPieces) pieces_.clear();  // start over; grammars keep the ones they use
  pieces_.emplace(hash, std::move(pieces));
}

void LexemeCache::add(const ExprPool::Hash& hash, std::shared_ptr<const Lexeme> lexeme) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (bytes_ > kMaxCacheBytes) {  // start over; grammars keep the ones they use
    lexemes_.clear();
    bytes_ = 0;
  }
  bytes_ += lexeme->bytes();
  lexemes_.emplace(hash, std::move(lexeme));
}

void LexemeCache::grow(std::size_t bytes) {
  const std::lock_guard<std::mutex> lock(mutex_);
  bytes_ += bytes;
}

std::shared_ptr<const Mask> LexemeCache::mask(const std::vector<std::int32_t>& bits, std::size_t num_tokens,
                                              std::size_t* grown) {
  const std::uint64_t hash = hash_of(bits);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto [from, to] = masks_.equal_range(hash);
  for (auto it = from; it != to; ++it) {
    if (it->second->bits == bits) return it->second;
  }
  const bool all = std::all_of(bits.begin(), bits.end() - 1, [](std::int32_t w) { return w == -1; });
  const std::size_t rest = num_tokens - 32 * (bits.size() - 1);  // tokens of the last word
  const bool full = all && static_cast<std::uint32_t>(bits.back()) == 0xFFFFFFFFu >> (32 - rest);
  if (mask_bytes_ > kMaxCacheBytes) {  // start over; grammars keep the ones they use
    masks_.clear();
    mask_bytes_ = 0;
  }
  const std::size_t size = sizeof(Mask) + bits.size() * sizeof(std::int32_t);
  mask_bytes_ += size;
  *grown += size;
  return masks_.emplace(hash, std::make_shared<const Mask>(Mask{bits, full}))->second;
}

}  // namespace gramcore::grammar
