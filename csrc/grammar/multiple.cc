// Multiples of a decimal fraction p / 10^k, as a leaf whose state is the remainder of the digits read so far.
#include "grammar/expr.h"

namespace gramcore::grammar {
namespace {

// Phases: before the first digit; behind a leading zero; behind other digits; behind the point and j digits.
constexpr std::uint32_t kFirst = 0, kZero = 1, kWhole = 2, kPoint = 3;
constexpr std::uint32_t kNoPoint = 1u << 31;  // added to the number of places

std::uint32_t append(std::uint32_t remainder, std::uint32_t digit, std::uint32_t divisor) {
  return static_cast<std::uint32_t>((std::uint64_t{10} * remainder + digit) % divisor);
}

}  // namespace

bool ExprPool::is_multiple(const Node& n) {
  const std::uint32_t places = n.max & ~kNoPoint;
  return n.a >= 1 && n.a <= kMaxDivisor && n.b < n.a && places <= 400 && n.min <= kPoint + (places > 1 ? places : 1);
}

ExprId ExprPool::multiple(std::uint32_t divisor, std::uint32_t places, bool point) {
  return multiple_at(divisor, 0, kFirst, places | (point ? 0 : kNoPoint));
}

ExprId ExprPool::multiple_at(std::uint32_t divisor, std::uint32_t remainder, std::uint32_t phase,
                             std::uint32_t places) {
  const std::uint32_t count = places & ~kNoPoint, read = phase <= kPoint ? 0 : phase - kPoint;
  std::uint32_t rest = remainder;
  std::uint64_t free = 1;  // values of the digits that may still count behind the point
  for (std::uint32_t j = read; j < count; ++j) {
    rest = append(rest, 0, divisor);
    if (free < divisor) free *= 10;
  }
  if (phase >= kPoint && rest != 0 && divisor - rest >= free) return kEmpty;
  const bool ends = phase != kFirst && phase != kPoint && rest == 0;
  return intern({Kind::kMultiple, ends, false, false, divisor, remainder, phase, places}, {});
}

std::vector<Piece> ExprPool::multiple_pieces(const Node& n) {
  const std::uint32_t count = n.max & ~kNoPoint;
  std::vector<Piece> out;
  const auto digit = [&](std::uint32_t c, std::uint32_t remainder, std::uint32_t phase) {
    const ExprId target = multiple_at(n.a, remainder, phase, n.max);
    if (target != kEmpty) out.push_back({ByteSet::range('0' + c, '0' + c), target});
  };
  if (n.min == kFirst) digit(0, 0, kZero);
  if (n.min == kFirst || n.min == kWhole) {
    for (std::uint32_t c = n.min == kFirst ? 1 : 0; c < 10; ++c) digit(c, append(n.b, c, n.a), kWhole);
  }
  if ((n.min == kZero || n.min == kWhole) && !(n.max & kNoPoint)) {
    const ExprId target = multiple_at(n.a, n.b, kPoint, n.max);
    if (target != kEmpty) out.push_back({ByteSet::range('.', '.'), target});
  }
  if (n.min < kPoint) return out;
  const std::uint32_t read = n.min - kPoint;
  if (read < count) {
    for (std::uint32_t c = 0; c < 10; ++c) digit(c, append(n.b, c, n.a), n.min + 1);
  } else {  // digits that no longer count are zeros
    digit(0, n.b, kPoint + (count > 0 ? count : 1));
  }
  return out;
}

}  // namespace gramcore::grammar
