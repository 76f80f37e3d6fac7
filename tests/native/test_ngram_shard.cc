#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "core/rng.h"
#include "native/test.h"
#include "ngram/chunked_sort.h"
#include "ngram/corpus_writer.h"
#include "ngram/index.h"
#include "ngram/shard.h"
#include "ngram/suffix_array.h"

using namespace gramcore;
using namespace gramcore::ngram;

namespace {

struct Directory {
  std::string path = cat("/tmp/gramcore-native-", static_cast<long>(::getpid()), "-shard");
  Directory() { std::filesystem::create_directories(path); }
  ~Directory() { std::filesystem::remove_all(path); }
};

template <class T>
void build(const std::string& directory, Rng& rng) {
  CorpusWriter writer(directory, 0, sizeof(T), false);
  for (int d = 0; d < 5; ++d) {
    std::vector<std::uint32_t> document(rng.next_below(40));
    for (auto& t : document) t = rng.next_below(6);
    writer.add(Span<const std::uint32_t>(document));
  }
  writer.commit();
  build_table(directory + "/tokenized.0", directory + "/table.0", sizeof(T));
}

}  // namespace

GC_TEST(ngram_shard_damaged_files_throw_and_never_crash) {
  const Directory directory;
  Rng rng(21);
  build<std::uint16_t>(directory.path, rng);
  Shard(directory.path, 0, 0).verify();
  for (const char* name : {"/tokenized.0", "/table.0", "/offset.0"}) {
    const std::string path = directory.path + name;
    std::ifstream in(path, std::ios::binary);
    const std::vector<char> whole((std::istreambuf_iterator<char>(in)), {});
    for (int round = 0; round < 400; ++round) {
      std::vector<char> copy = whole;
      if (round % 4 == 0) copy.resize(rng.next_below(static_cast<std::uint32_t>(2 * whole.size())));
      for (int hit = 0; hit < 3 && !copy.empty(); ++hit) {
        copy[rng.next_below(static_cast<std::uint32_t>(copy.size()))] = static_cast<char>(rng.next_u32());
      }
      std::ofstream(path, std::ios::binary).write(copy.data(), static_cast<std::streamsize>(copy.size()));
      try {
        const Shard shard(directory.path, 0, 0);
        for (std::uint32_t a = 0; a < 7; ++a) {
          const std::vector<std::uint32_t> ids{a, a / 2};
          const RankRange found = shard.find(ids);
          for (std::int64_t r = found.begin; r < found.end; ++r) shard.document_of(shard.position(r));
        }
        for (std::int64_t d = 0; d < shard.num_documents(); ++d) shard.document(d);
        shard.verify();
      } catch (const FormatError&) {
        continue;  // what a damaged file should give; text damage may also go unseen
      }
    }
    std::ofstream(path, std::ios::binary).write(whole.data(), static_cast<std::streamsize>(whole.size()));
  }
  Shard(directory.path, 0, 2).verify();
}

GC_TEST(ngram_damaged_acceleration_throws_or_misleads_and_never_crashes) {
  const Directory directory;
  Rng rng(23);
  CorpusWriter writer(directory.path, 0, 2, false);
  std::vector<std::uint32_t> document(1500);
  for (auto& t : document) t = rng.next_below(4);
  writer.add(Span<const std::uint32_t>(document));
  writer.commit();
  build_table(directory.path + "/tokenized.0", directory.path + "/table.0", 2);
  const std::string path = directory.path + "/accel.0";
  Accel::build(Shard(directory.path, 0, 2), path);
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> whole((std::istreambuf_iterator<char>(in)), {});
  std::vector<std::uint32_t> ids;
  std::vector<std::int64_t> offsets{0};
  for (std::size_t q = 0; q < 100; ++q) {
    const std::size_t size = 1 + q % 17;
    ids.insert(ids.end(), document.begin() + static_cast<std::ptrdiff_t>(q * 10),
               document.begin() + static_cast<std::ptrdiff_t>(q * 10 + size));
    offsets.push_back(static_cast<std::int64_t>(ids.size()));
  }
  const QueryBatch batch{ids, offsets};
  std::vector<std::int64_t> counts(100);
  const auto opens = [&] {
    std::vector<std::unique_ptr<Shard>> shards;
    shards.push_back(std::make_unique<Shard>(directory.path, 0, 2));
    return shards;
  };
  opens()[0]->verify();
  for (int round = 0; round < 600; ++round) {
    std::vector<char> copy = whole;
    // Many hits behind the header, or one anywhere.
    for (int hit = 0; hit < (round % 2 == 0 ? 40 : 1); ++hit) {
      const auto lead = static_cast<std::uint32_t>(round % 2 == 0 ? 64 : 0);
      const std::size_t at = lead + rng.next_below(static_cast<std::uint32_t>(copy.size()) - lead);
      copy[at] = static_cast<char>(rng.next_u32());
    }
    std::ofstream(path, std::ios::binary).write(copy.data(), static_cast<std::streamsize>(copy.size()));
    std::vector<std::unique_ptr<Shard>> shards;
    bool accepted = false;
    try {
      shards = opens();
      shards[0]->verify();
      accepted = true;
    } catch (const FormatError&) {
    }
    EXPECT_EQ(accepted, copy == whole);
    if (shards.empty()) continue;
    const Index index(std::move(shards));
    for (std::int64_t q = 0; q < batch.size(); ++q) {
      try {
        EXPECT(index.count(batch.query(q)) >= 0);
        index.next_tokens(batch.query(q), 0);
      } catch (const FormatError&) {
        continue;
      }
    }
    try {
      index.count_batch(batch, counts);
    } catch (const FormatError&) {
      continue;
    }
  }
}

GC_TEST(ngram_shard_every_width) {
  Rng rng(22);
  const auto check = [&](auto t) {
    const Directory directory;
    build<decltype(t)>(directory.path, rng);
    const Shard shard(directory.path, 0, 0);
    shard.verify();
    EXPECT_EQ(shard.token_bytes(), static_cast<int>(sizeof(t)));
    for (std::uint32_t a = 0; a < 6; ++a) {
      std::int64_t expected = 0;
      for (std::int64_t p = 0; p < shard.num_tokens(); ++p) expected += shard.token(p) == a;
      const std::vector<std::uint32_t> ids{a};
      EXPECT_EQ(shard.find(ids).size(), expected);
    }
  };
  check(std::uint8_t{});
  check(std::uint16_t{});
  check(std::uint32_t{});
}

// Long enough behind the first block for several walks, with a repetition longer than any comparison of theirs.
GC_TEST(ngram_sorting_in_blocks_gives_the_same_table) {
  const Directory d;
  Rng rng(5);
  std::vector<std::uint16_t> text(30'000);
  for (auto& t : text) t = static_cast<std::uint16_t>(rng.next_below(4));
  text.insert(text.end(), text.begin(), text.begin() + 20'000);
  text.insert(text.end(), 100'000, 7);
  std::ofstream(d.path + "/tokenized.0", std::ios::binary)
      .write(reinterpret_cast<const char*>(text.data()), static_cast<std::streamsize>(text.size() * 2));
  build_table(d.path + "/tokenized.0", d.path + "/whole", 2);
  for (const std::int64_t block : {std::int64_t{7'000}, std::int64_t{60'000}}) {
    ChunkedSort sort(d.path + "/tokenized.0", d.path + "/table.0", 2, block);
    while (sort.num_done() < sort.num_blocks()) sort.sort_next();
    sort.merge();
    const auto bytes = [&](const char* name) {
      std::ifstream file(d.path + name, std::ios::binary);
      return std::string(std::istreambuf_iterator<char>(file), {});
    };
    EXPECT(bytes("/whole") == bytes("/table.0"));
  }
}
