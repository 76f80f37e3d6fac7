// Cores measured without Python: what is left when the cost of a call is taken away.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <vector>

#include "bench/native/harness.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "grammar/kernels/apply_bitmask.h"
#include "ngram/suffix_automaton.h"
#include "quant/linear.h"

namespace gramcore::bench {
namespace {

// Tokens that repeat as text does: half of them copy what stood a while ago.
std::vector<std::int32_t> text(std::int64_t n) {
  std::vector<std::int32_t> ids(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const Philox4 r = philox4x32(1, i / 16, 0), s = philox4x32(2, i, 0);
    const bool copy = i > 4096 && r.v[0] % 2 == 0;
    ids[i] = copy ? ids[i - 16 - r.v[1] % 4000] : static_cast<std::int32_t>(s.v[0] % 49152);
  }
  return ids;
}

void automaton() {
  for (const std::int64_t n : {std::int64_t{1'000}, std::int64_t{1'000'000}}) {
    const auto ids = text(n + 64);
    ngram::SuffixAutomaton sam;
    for (std::int64_t i = 0; i < n; ++i) sam.extend(ids[static_cast<std::size_t>(i)]);
    Case c("suffix automaton after " + std::to_string(n) + " tokens: extend and undo 64, per token", 64);
    c.add(
        "gramcore",
        [&] {
          for (std::int64_t i = n; i < n + 64; ++i) sam.extend(ids[static_cast<std::size_t>(i)]);
          sam.rollback(64);
        },
        [&] { return sam.num_tokens() == n; });
    c.print();
    std::vector<std::int32_t> draft;
    Case d("the same: draft of 10 tokens");
    d.add(
        "gramcore",
        [&] {
          draft.clear();
          sam.copy_from(sam.recent_end(sam.match_state()), 10, true, draft);
        },
        [&] { return draft.size() == 10; });
    d.print();
  }
}

void dispatch() {
  std::atomic<int> done{0};
  Case c("one dispatch of " + std::to_string(num_threads()) + " empty chunks");
  c.add(
      "gramcore", [&] { parallel_chunks(num_threads(), [&](std::int64_t) { done.fetch_add(1); }); },
      [&] { return done.load() > 0; });
  c.print();
}

void bitmask() {
  constexpr std::int64_t kVocab = 131072;
  std::vector<std::uint32_t> logits(kVocab, 0x3f800000u);
  const std::vector<std::int32_t> mask(kVocab / 32, 0x55555555);
  Case c("bitmask over 131072 fp32 logits in cache", 1, kVocab * 4.0);
  c.add(
      "gramcore", [&] { grammar::apply_bitmask_kernels().mask32(logits.data(), mask.data(), kVocab); },
      [&] { return logits[0] == 0x3f800000u && logits[1] == 0xff800000u; });
  c.print();
}

// One row times 4096x4096: the same weight again and again, and eight of them in turn, more than caches hold.
void products() {
  for (const int bits : {8, 4, 1}) {
    quant::PackSpec spec;
    spec.n = spec.k = 4096;
    spec.bits = bits;
    spec.zero = bits == 8 ? 128 : bits == 1 ? 1 : 8;
    const std::vector<std::uint8_t> codes(static_cast<std::size_t>(spec.n * spec.k), 1);
    const std::vector<float> scales(static_cast<std::size_t>(spec.n * spec.groups()), 0.5f);
    const std::size_t size = static_cast<std::size_t>(spec.packed_bytes());
    std::vector<std::vector<std::uint8_t>> weights(8, std::vector<std::uint8_t>(size));
    for (auto& packed : weights) quant::pack(spec, codes, {scales, {}}, packed);
    const std::vector<float> x(4096, 1.0f);
    std::vector<float> y(4096);
    const float expected = 0.5f * 4096.0f * static_cast<float>(bits == 1 ? 1 : 1 - spec.zero);
    std::size_t turn = 0;
    const auto multiply = [&](const std::vector<std::uint8_t>& packed) {
      quant::linear(quant::PackedLinear{spec, packed, nullptr}, quant::RowsView{x.data(), DType::f32, 1, 4096, 4096},
                    quant::MutableRowsView{y.data(), DType::f32, 1, 4096, 4096});
    };
    const auto right = [&] { return std::fabs(y[0] - expected) <= 1e-3f * std::fabs(expected); };
    Case c(std::to_string(bits) + " bits g32, 4096x4096 times one row", 1, static_cast<double>(size));
    c.add("from memory", [&] { multiply(weights[turn++ % weights.size()]); }, right);
    c.add("in cache, as far as it fits", [&] { multiply(weights[0]); }, right);
    c.print();
  }
}

}  // namespace
}  // namespace gramcore::bench

int main() {
  gramcore::bench::dispatch();
  gramcore::bench::automaton();
  gramcore::bench::bitmask();
  gramcore::bench::products();
}
