#include "ngram/accel.h"

#include <cstring>
#include <vector>

#include "ngram/shard.h"
#include "ngram/shard_view.h"

namespace gramcore::ngram {
namespace {

constexpr char kMagic[8] = {'G', 'C', 'N', 'G', 'A', 'C', 'C', 'L'};
constexpr std::uint32_t kVersion = 2;
constexpr std::uint32_t kMaxDirectIds = 1u << 24;

std::uint64_t mix(std::uint64_t h, std::uint64_t value) {
  return (h ^ value) * 0x100000001b3ull;
}

// Calls fn(first, second, begin, end) for each pair of adjacent tokens in rank order; second is kNoSecond when the text
// ends after first.
constexpr std::uint64_t kNoSecond = ~std::uint64_t{0};
template <class T, class F>
void for_each_pair(const ShardView<T>& view, F&& fn) {
  constexpr std::int64_t kAhead = 32;
  std::uint64_t first = 0, second = 0;
  std::int64_t begin = 0;
  for (std::int64_t r = 0; r < view.num_tokens; ++r) {
    if (r + kAhead < view.num_tokens) __builtin_prefetch(view.text + view.pointer_unchecked(r + kAhead));
    const std::uint64_t at = view.pointer(r);
    const std::uint64_t a = view.token_at(at);
    const std::uint64_t b = at + sizeof(T) < view.text_bytes ? view.token_at(at + sizeof(T)) : kNoSecond;
    if (r > 0 && (a != first || b != second)) {
      fn(static_cast<std::uint32_t>(first), second, begin, r);
      begin = r;
    }
    first = a;
    second = b;
  }
  fn(static_cast<std::uint32_t>(first), second, begin, view.num_tokens);
}

template <class T>
std::vector<std::uint64_t> sample(const ShardView<T>& view) {
  std::vector<std::uint64_t> samples;
  for (std::int64_t r = 0; r < view.num_tokens; r += Accel::kStride) {
    const std::uint64_t from = view.pointer(r) + 2 * sizeof(T);
    const std::size_t have = from < view.text_bytes ? (view.text_bytes - from) / sizeof(T) : 0;
    samples.push_back(sample_key<T>(have, [&](std::size_t i) { return view.token_at(from + i * sizeof(T)); }));
  }
  return samples;
}

}  // namespace

std::uint64_t Accel::fingerprint(const Shard& shard) {
  std::uint64_t h = mix(0xcbf29ce484222325ull, static_cast<std::uint64_t>(shard.num_tokens()));
  h = mix(h, static_cast<std::uint64_t>(shard.token_bytes()));
  constexpr std::int64_t kSamples = 512;
  for (std::int64_t i = 0; i < kSamples; ++i) {
    const std::int64_t rank = shard.num_tokens() * i / kSamples, position = shard.position(rank);
    h = mix(mix(h, static_cast<std::uint64_t>(position)), shard.token(position));
  }
  return h;
}

void Accel::build(const Shard& shard, const std::string& path) {
  GC_CHECK_AS(LimitError, shard.num_tokens() < (std::int64_t{1} << 32), shard.name(),
              ": acceleration needs shards of < 2^32 tokens, got ", shard.num_tokens(), "; build more shards");
  with_token_type(shard.token_bytes(), [&](auto t) {
    using T = decltype(t);
    const auto view = shard.view<T>();
    std::uint64_t pairs = 0, num_runs = 0;
    std::uint32_t ids = 0;
    for_each_pair(view, [&](std::uint32_t a, std::uint64_t b, std::int64_t, std::int64_t) {
      pairs += b != kNoSecond;
      ++num_runs;
      if (a < kMaxDirectIds && a >= ids) ids = a + 1;
    });
    std::vector<Single> singles(ids, Single{0, 0});
    std::vector<Slot> slots(pairs + pairs / 2 + 1, Slot{0, 0, 0, 0});
    std::vector<Run> runs;
    runs.reserve(num_runs);
    for_each_pair(view, [&](std::uint32_t a, std::uint64_t b, std::int64_t begin, std::int64_t end) {
      const auto count = static_cast<std::uint32_t>(end - begin);
      if (a < ids) {
        if (singles[a].count == 0) singles[a].begin = static_cast<std::uint32_t>(begin);
        singles[a].count += count;
      }
      runs.push_back({b == kNoSecond ? 0 : static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(begin)});
      if (b == kNoSecond) return;
      const auto second = static_cast<std::uint32_t>(b);
      std::uint64_t i = scale(hash(a, second), slots.size());
      while (slots[i].count != 0) i = i + 1 < slots.size() ? i + 1 : 0;
      slots[i] = {a, second, static_cast<std::uint32_t>(begin), count};
    });
    Header header{};
    std::memcpy(header.magic, kMagic, sizeof(kMagic));
    header.version = kVersion;
    header.num_ids = ids;
    header.num_tokens = static_cast<std::uint64_t>(shard.num_tokens());
    header.fingerprint = fingerprint(shard);
    header.num_slots = slots.size();
    header.num_runs = runs.size();
    AtomicFile file(path);
    file.write(&header, sizeof(header));
    file.write(Span<const std::uint64_t>(sample(view)));
    file.write(Span<const Slot>(slots));
    file.write(Span<const Single>(singles));
    file.write(Span<const Run>(runs));
    file.commit();
  });
}

Accel::Accel(const std::string& path, const Shard& shard) : file_(path, Access::random) {
  Header header{};
  GC_CHECK_AS(FormatError, file_.size() >= sizeof(header), path, ": must be an acceleration file, got ", file_.size(),
              " bytes; rebuild it with gramcore index accelerate");
  std::memcpy(&header, file_.bytes().data(), sizeof(header));
  GC_CHECK_AS(FormatError, std::memcmp(header.magic, kMagic, sizeof(kMagic)) == 0 && header.version == kVersion, path,
              ": must be an acceleration file of version ", kVersion, "; rebuild it with gramcore index accelerate");
  const std::uint64_t body = file_.size() - sizeof(header), singles = std::uint64_t{header.num_ids} * sizeof(Single),
                      samples = num_samples(shard.num_tokens()) * sizeof(std::uint64_t);
  const bool plausible = header.num_slots > 0 && header.num_slots <= body && header.num_runs <= body;
  GC_CHECK_AS(FormatError,
              plausible && samples + singles + header.num_slots * sizeof(Slot) + header.num_runs * sizeof(Run) == body,
              path, ": size must be what its header says, got ", file_.size(), " bytes; it is truncated");
  GC_CHECK_AS(
      FormatError,
      header.num_tokens == static_cast<std::uint64_t>(shard.num_tokens()) && header.fingerprint == fingerprint(shard),
      path, ": must be made for this index, got one of another; rebuild it with gramcore index accelerate");
  num_slots_ = header.num_slots;
  num_runs_ = header.num_runs;
  num_ids_ = header.num_ids;
  num_tokens_ = shard.num_tokens();
  locate();
  // A probe ends at an empty slot; a damaged file without one would be probed forever.
  std::uint64_t empty = 0;
  for (std::uint64_t i = 0; i < num_slots_ && empty == 0; ++i) empty += slots_[i].count == 0;
  if (empty == 0) bad();
}

void Accel::locate() {
  samples_ = reinterpret_cast<const std::uint64_t*>(file_.bytes().data() + sizeof(Header));
  slots_ = reinterpret_cast<const Slot*>(samples_ + num_samples(num_tokens_));
  singles_ = reinterpret_cast<const Single*>(slots_ + num_slots_);
  runs_ = reinterpret_cast<const Run*>(singles_ + num_ids_);
}

void Accel::bad() const {
  throw FormatError(cat(file_.path(), ": holds a range outside the table; rebuild it with gramcore index accelerate"));
}

}  // namespace gramcore::ngram
