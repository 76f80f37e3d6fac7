#include "ngram/accel.h"

#include <cstring>
#include <vector>

#include "core/thread_pool.h"
#include "ngram/shard.h"
#include "ngram/shard_view.h"

namespace gramcore::ngram {
namespace {

constexpr char kMagic[8] = {'G', 'C', 'N', 'G', 'A', 'C', 'C', 'L'};
constexpr std::uint32_t kVersion = 3;
constexpr std::uint32_t kMaxDirectIds = 1u << 24;

std::uint64_t mix(std::uint64_t h, std::uint64_t value) {
  return (h ^ value) * 0x100000001b3ull;
}

// Samples of a table whose pairs are read off them later.
template <class T>
std::vector<Accel::Sample> sample(const ShardView<T>& view) {
  constexpr std::int64_t kStride = Accel::kStride, kAhead = 32;
  std::vector<Accel::Sample> samples(static_cast<std::size_t>((view.num_tokens + kStride - 1) / kStride));
  const auto shared = [&](std::uint64_t a, std::uint64_t b) {
    const std::size_t have = std::min<std::uint64_t>(Accel::kMaxShared, (view.text_bytes - std::max(a, b)) / sizeof(T));
    std::size_t i = 0;
    while (i < have && view.token_at(a + i * sizeof(T)) == view.token_at(b + i * sizeof(T))) ++i;
    return std::uint64_t{i};
  };
  parallel_for(static_cast<std::int64_t>(samples.size()), 1024, [&](std::int64_t begin, std::int64_t end) {
    std::uint64_t before = begin > 0 ? view.pointer(begin * kStride - 1) : 0;
    for (std::int64_t group = begin; group < end; ++group) {
      Accel::Sample& made = samples[static_cast<std::size_t>(group)];
      for (int i = 0; i < kStride && group * kStride + i < view.num_tokens; ++i) {
        const std::int64_t rank = group * kStride + i;
        if (rank + kAhead < view.num_tokens) __builtin_prefetch(view.text + view.pointer_unchecked(rank + kAhead));
        const std::uint64_t at = view.pointer(rank);
        if (rank > 0) made.shared |= shared(before, at) << (i % 8 * 8 + i / 8 * 4);
        before = at;
        if (i > 0) continue;
        const std::uint64_t from = at + 2 * sizeof(T);
        const std::size_t have = from < view.text_bytes ? (view.text_bytes - from) / sizeof(T) : 0;
        made.key = sample_key<T>(have, [&](std::size_t k) { return view.token_at(from + k * sizeof(T)); });
      }
    }
  });
  return samples;
}

// Calls fn(first, second, begin, end) for each pair of adjacent tokens in rank order; second is kNoSecond when the text
// ends after first.
constexpr std::uint64_t kNoSecond = ~std::uint64_t{0};
template <class T, class F>
void for_each_pair(const ShardView<T>& view, const std::vector<Accel::Sample>& samples, F&& fn) {
  std::int64_t begin = 0;
  const auto emit = [&](std::int64_t end) {
    const std::uint64_t at = view.pointer(begin), next = at + sizeof(T);
    const std::uint64_t second = next < view.text_bytes ? view.token_at(next) : kNoSecond;
    fn(static_cast<std::uint32_t>(view.token_at(at)), second, begin, end);
    begin = end;
  };
  for (std::size_t group = 0; group < samples.size(); ++group) {
    for (std::uint32_t heads = samples[group].heads(2); heads != 0; heads &= heads - 1) {
      const std::int64_t rank = static_cast<std::int64_t>(group) * Accel::kStride + __builtin_ctz(heads);
      if (rank > 0 && rank < view.num_tokens) emit(rank);
    }
  }
  emit(view.num_tokens);
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

// What the file holds, in its order.
struct Accel::Contents {
  Header header{};
  std::vector<Sample> samples;
  std::vector<Slot> slots;
  std::vector<Single> singles;
  std::vector<Run> runs;
};

template <class T>
Accel::Contents Accel::contents(const Shard& shard) {
  const auto view = shard.view<T>();
  Contents made;
  made.samples = sample(view);
  std::uint64_t pairs = 0, num_runs = 0;
  std::uint32_t ids = 0;
  for_each_pair(view, made.samples, [&](std::uint32_t a, std::uint64_t b, std::int64_t, std::int64_t) {
    pairs += b != kNoSecond;
    ++num_runs;
    if (a < kMaxDirectIds && a >= ids) ids = a + 1;
  });
  made.singles.assign(ids, Single{0, 0});
  made.slots.assign(pairs + pairs / 2 + 1, Slot{0, 0, 0, 0});
  made.runs.reserve(num_runs);
  for_each_pair(view, made.samples, [&](std::uint32_t a, std::uint64_t b, std::int64_t begin, std::int64_t end) {
    const auto count = static_cast<std::uint32_t>(end - begin);
    if (a < ids) {
      Single& single = made.singles[a];
      if (single.count == 0) single.begin = static_cast<std::uint32_t>(begin);
      single.count += count;
    }
    made.runs.push_back({b == kNoSecond ? 0 : static_cast<std::uint32_t>(b), static_cast<std::uint32_t>(begin)});
    if (b == kNoSecond) return;
    const auto second = static_cast<std::uint32_t>(b);
    std::uint64_t i = scale(hash(a, second), made.slots.size());
    while (made.slots[i].count != 0) i = i + 1 < made.slots.size() ? i + 1 : 0;
    made.slots[i] = {a, second, static_cast<std::uint32_t>(begin), count};
  });
  std::memcpy(made.header.magic, kMagic, sizeof(kMagic));
  made.header.version = kVersion;
  made.header.num_ids = ids;
  made.header.num_tokens = static_cast<std::uint64_t>(shard.num_tokens());
  made.header.fingerprint = fingerprint(shard);
  made.header.num_slots = made.slots.size();
  made.header.num_runs = made.runs.size();
  return made;
}

void Accel::build(const Shard& shard, const std::string& path) {
  GC_CHECK_AS(LimitError, shard.num_tokens() < (std::int64_t{1} << 32), shard.name(),
              ": acceleration needs shards of < 2^32 tokens, got ", shard.num_tokens(), "; build more shards");
  with_token_type(shard.token_bytes(), [&](auto t) {
    const Contents made = contents<decltype(t)>(shard);
    AtomicFile file(path);
    file.write(&made.header, sizeof(made.header));
    file.write(Span<const Sample>(made.samples));
    file.write(Span<const Slot>(made.slots));
    file.write(Span<const Single>(made.singles));
    file.write(Span<const Run>(made.runs));
    file.commit();
  });
}

void Accel::verify(const Shard& shard) const {
  const auto require = [&](bool same, const char* what) {
    GC_CHECK_AS(FormatError, same, file_.path(), ": ", what,
                " must be those of the table; rebuild it with gramcore index accelerate");
  };
  const auto require_same = [&](const auto& made, const auto* found, const char* what) {
    require(made.empty() || std::memcmp(made.data(), found, made.size() * sizeof(made[0])) == 0, what);
  };
  with_token_type(shard.token_bytes(), [&](auto t) {
    const Contents made = contents<decltype(t)>(shard);
    require(std::memcmp(&made.header, file_.bytes().data(), sizeof(made.header)) == 0, "sizes");
    require_same(made.samples, samples_, "samples");
    require_same(made.slots, slots_, "hashed pairs");
    require_same(made.singles, singles_, "ranks of tokens");
    require_same(made.runs, runs_, "ranks of pairs");
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
                      samples = num_samples(shard.num_tokens()) * sizeof(Sample);
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
  samples_ = reinterpret_cast<const Sample*>(file_.bytes().data() + sizeof(Header));
  slots_ = reinterpret_cast<const Slot*>(samples_ + num_samples(num_tokens_));
  singles_ = reinterpret_cast<const Single*>(slots_ + num_slots_);
  runs_ = reinterpret_cast<const Run*>(singles_ + num_ids_);
}

void Accel::bad() const {
  throw FormatError(cat(file_.path(), ": holds a range outside the table; rebuild it with gramcore index accelerate"));
}

}  // namespace gramcore::ngram
