#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "core/rng.h"
#include "native/test.h"
#include "ngram/fm_index.h"
#include "ngram/section_file.h"

using namespace gramcore;
using namespace gramcore::ngram;

GC_TEST(ngram_fm_index_counts_locates_and_extracts) {
  Rng rng(31);
  for (int round = 0; round < 60; ++round) {
    std::vector<std::uint16_t> text(rng.next_below(90));
    const std::uint32_t k = 1 + rng.next_below(9);
    for (auto& t : text) t = static_cast<std::uint16_t>(rng.next_below(k) * 700);
    const FmIndex fm = FmIndex::build(Span<const std::uint16_t>(text), 1 + round % 7);
    const auto all = fm.extract(0, text.size());
    EXPECT(std::equal(all.begin(), all.end(), text.begin(), text.end()));
    for (int query = 0; query < 10; ++query) {
      std::vector<std::uint32_t> ids(1 + rng.next_below(3));
      for (auto& t : ids) t = rng.next_below(k + 1) * 700;
      std::vector<std::int64_t> expected, found;
      for (std::size_t i = 0; i + ids.size() <= text.size(); ++i) {
        if (std::equal(ids.begin(), ids.end(), text.begin() + static_cast<std::ptrdiff_t>(i))) {
          expected.push_back(static_cast<std::int64_t>(i));
        }
      }
      fm.locate(fm.find(ids), ids.size(), found);
      EXPECT(found == expected);
    }
  }
  const std::vector<std::uint16_t> none;
  EXPECT_EQ(FmIndex::build(Span<const std::uint16_t>(none), 4).all().size(), 1u);
}

namespace {

std::vector<char> read_all(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return std::vector<char>((std::istreambuf_iterator<char>(in)), {});
}

// Bytes of an index with the checksum made right for them.
void write_forged(const std::string& path, std::vector<char> bytes) {
  SectionLead lead;
  std::memcpy(&lead, bytes.data(), sizeof(lead));
  lead.checksum = section_checksum(
      {reinterpret_cast<const unsigned char*>(bytes.data()) + sizeof(lead), bytes.size() - sizeof(lead)});
  std::memcpy(bytes.data(), &lead, sizeof(lead));
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

// Every query there is; answers may be wrong when the file was forged, reads may not.
void query_everything(const FmIndex& fm) {
  fm.extract(0, fm.size());
  fm.extract(fm.size() / 3, fm.size() / 2);
  std::vector<std::uint32_t> ids;
  std::vector<std::int64_t> counts, positions;
  fm.successors(fm.all(), ids, counts);
  for (const std::uint32_t id : ids) {
    const FmIndex::Rows rows = fm.extend(fm.all(), id);
    fm.locate(rows, 1, positions);
    std::vector<std::uint32_t> after;
    fm.successors(rows, after, counts);
    for (const std::uint32_t next : after) fm.locate(fm.extend(rows, next), 2, positions);
  }
}

}  // namespace

// Damage behind the checksum, which is made right again: only the checks of what the file says are left.
GC_TEST(ngram_fm_index_forged_files_throw_and_never_crash) {
  const std::string path = cat("/tmp/gramcore-native-", static_cast<long>(::getpid()), "-fm");
  Rng rng(32);
  int opened = 0, refused = 0;
  for (int text_kind = 0; text_kind < 4; ++text_kind) {
    std::vector<std::uint16_t> text(text_kind == 3 ? 1 : 1500);
    for (std::size_t i = 0; i < text.size(); ++i) {
      const std::uint32_t noise = rng.next_below(text_kind == 0 ? 300 : 2);
      text[i] = static_cast<std::uint16_t>(text_kind == 2 ? i / 400 : noise);
    }
    FmIndex::build(Span<const std::uint16_t>(text), 3).save(path);
    query_everything(FmIndex::load(path));
    const std::vector<char> whole = read_all(path);
    for (int round = 0; round < 1500; ++round) {
      std::vector<char> copy = whole;
      for (std::uint32_t hit = 0; hit <= rng.next_below(3); ++hit) {
        const std::uint32_t reach = round % 2 == 0 ? 512 : static_cast<std::uint32_t>(copy.size());
        const std::size_t at = 64 + rng.next_below(std::min(reach, static_cast<std::uint32_t>(copy.size())) - 64);
        copy[at] = static_cast<char>(round % 3 == 0 ? copy[at] ^ (1 << rng.next_below(8)) : rng.next_below(256));
      }
      write_forged(path, std::move(copy));
      try {
        const FmIndex fm = FmIndex::load(path);
        ++opened;
        query_everything(fm);
      } catch (const FormatError&) {
        ++refused;
      }
    }
  }
  EXPECT(opened > 0 && refused > 0);
  std::filesystem::remove(path);
}

GC_TEST(ngram_fm_index_symbols_must_ascend) {
  const std::string path = cat("/tmp/gramcore-native-", static_cast<long>(::getpid()), "-fm-symbols");
  const std::vector<std::uint16_t> text{1000, 2000, 1000};
  FmIndex::build(Span<const std::uint16_t>(text), 1).save(path);
  std::vector<char> bytes = read_all(path);
  const std::uint32_t symbols[] = {1000, 2000};
  char wanted[sizeof(symbols)];
  std::memcpy(wanted, symbols, sizeof(symbols));
  const auto at = std::search(bytes.begin(), bytes.end(), std::begin(wanted), std::end(wanted));
  EXPECT(at != bytes.end());
  std::copy(wanted, wanted + 4, at + 4);
  write_forged(path, bytes);
  std::string refused;
  try {
    FmIndex::load(path);
  } catch (const FormatError& error) {
    refused = error.what();
  }
  EXPECT(refused.find("symbols must ascend") != std::string::npos);
  std::filesystem::remove(path);
}
