#include "ngram/chunked_sort.h"

#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "core/bitset.h"
#include "core/thread_pool.h"
#include "ngram/alphabet.h"
#include "ngram/big_array.h"
#include "ngram/block_rank.h"
#include "ngram/suffix_sort.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {
namespace {

constexpr std::uint64_t kMagic = 0x31746e6b68636767;  // "ggchknt1"
constexpr int kWalks = 32;                            // walks of one thread under way together
constexpr std::int64_t kMinWalk = 4096;               // tokens below which a walk is not worth starting
constexpr std::int64_t kMaxCompare = 1 << 16;  // tokens compared to start a walk; if not enough, it is not started

struct Header {
  std::uint64_t magic, num_tokens, begin, end;
};

// A file of one block, checked to be that block's.
MappedFile open_block(const std::string& path, const Header& expected, std::uint64_t payload_bytes) {
  MappedFile file(path, Access::sequential);
  const bool whole =
      file.size() >= sizeof(Header) && (payload_bytes == 0 || file.size() == sizeof(Header) + payload_bytes);
  GC_CHECK_AS(FormatError, whole && std::memcmp(file.bytes().data(), &expected, sizeof(Header)) == 0, path,
              ": must belong to the block of tokens ", expected.begin, " to ", expected.end, " of ",
              expected.num_tokens, "; remove the unfinished index and build it again");
  return file;
}

class VarintWriter {
 public:
  explicit VarintWriter(AtomicFile* file) : file_(*file) {}
  void write(std::uint64_t value) {
    unsigned char bytes[10];
    std::size_t n = 0;
    for (; value >= 0x80; value >>= 7) bytes[n++] = static_cast<unsigned char>(value | 0x80);
    bytes[n++] = static_cast<unsigned char>(value);
    file_.write(bytes, n);
  }

 private:
  AtomicFile& file_;
};

// How many suffixes right of the block fall before each of its suffixes.
class Gaps {
 public:
  explicit Gaps(std::size_t n) : n_(n), counts_(make_big_array<std::uint32_t>(n)) { std::fill_n(counts_.get(), n, 0u); }
  void touch(std::uint32_t i) const { __builtin_prefetch(&counts_[i], 1); }
  void add(std::uint32_t i) {
    if (__atomic_fetch_add(&counts_[i], 1u, __ATOMIC_RELAXED) == 0xFFFFFFFFu) {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++carries_[i];
    }
  }
  void write(AtomicFile* file) const {
    VarintWriter out(file);
    for (std::size_t i = 0; i < n_; ++i) {
      const auto carry = carries_.find(static_cast<std::uint32_t>(i));
      out.write(counts_[i] + (carry == carries_.end() ? 0 : carry->second << 32));
    }
  }

 private:
  std::size_t n_;
  BigArray<std::uint32_t> counts_;
  std::map<std::uint32_t, std::uint64_t> carries_;  // overflows of counts
  std::mutex mutex_;
};

}  // namespace

template <class T>
class ChunkedSorter {
 public:
  ChunkedSorter(const ChunkedSort& job, std::int64_t block)
      : job_(job),
        block_(block),
        text_(reinterpret_cast<const T*>(job.text_.bytes().data())),
        n_(job.num_tokens_),
        begin_(job.begin(block)),
        end_(std::min(begin_ + job.block_tokens_, n_)),
        m_(static_cast<std::uint32_t>(end_ - begin_)),
        alphabet_({text_, static_cast<std::size_t>(n_)}) {}

  void run() {
    load_behind();
    auto sa = alphabet_.size() + 2 < 65536 ? sort<std::uint16_t>() : sort<std::uint32_t>();
    write_part(sa.get());
    is_greater_ = Bitset(static_cast<std::size_t>(n_ - begin_) + 1);
    for (std::uint32_t r = 0, seen = 0; r < m_; ++r) {
      if (seen) is_greater_.set(static_cast<std::size_t>(sa[r]));
      if (sa[r] == 0) seen = 1, own_rank_ = r;
    }
    const BlockRank rank(sa.get(), m_, alphabet_.size(),
                         [&](std::uint32_t p) { return std::size_t{alphabet_.rank(text_[begin_ + p])}; });
    auto walks = start_walks(sa.get());
    sa.reset();
    Gaps gaps(std::size_t{m_} + 1);
    const auto threads = static_cast<std::int64_t>((walks.size() + kWalks - 1) / kWalks);
    parallel_chunks(threads, [&](std::int64_t t) {
      const std::size_t first = static_cast<std::size_t>(t) * kWalks, last = std::min(first + kWalks, walks.size());
      walk({walks.data() + first, last - first}, rank, &gaps);
    });
    AtomicFile gap_file(job_.file("gap", block_));
    write_header(&gap_file);
    gaps.write(&gap_file);
    gap_file.commit();
    AtomicFile gt_file(job_.file("gt", block_));  // last: it says that the block is done
    write_header(&gt_file);
    gt_file.write(is_greater_.words());
    gt_file.commit();
  }

 private:
  struct Walk {  // over suffixes [low, at), from the last; `next` of the block's are smaller than suffix `at`
    std::int64_t low, at;
    std::uint32_t next;
  };

  Header header(std::int64_t block) const {
    const std::int64_t begin = job_.begin(block), end = std::min(begin + job_.block_tokens_, n_);
    return {kMagic, static_cast<std::uint64_t>(n_), static_cast<std::uint64_t>(begin), static_cast<std::uint64_t>(end)};
  }
  void write_header(AtomicFile* file) const {
    const Header h = header(block_);
    file->write(&h, sizeof(h));
  }
  // Bit j - end: suffix j is greater than suffix `end`, the first behind the block.
  void load_behind() {
    behind_ = Bitset(static_cast<std::size_t>(n_ - end_) + 1);
    if (end_ == n_) return;
    const auto words = behind_.mutable_words();
    const auto file = open_block(job_.file("gt", block_ + 1), header(block_ + 1), words.size() * 8);
    std::memcpy(words.data(), file.bytes().data() + sizeof(Header), words.size() * 8);
  }
  bool behind_greater(std::int64_t j) const { return behind_.test(static_cast<std::size_t>(j - end_)); }

  // Bit k: the block's suffix k is greater than suffix `end`.  Z algorithm: matches of text[end, ...) in the block.
  Bitset compare_with_behind() const {
    Bitset greater(m_, end_ == n_);
    if (end_ == n_) return greater;
    const T* const pattern = text_ + end_;
    const auto size = static_cast<std::uint32_t>(std::min<std::int64_t>(m_, n_ - end_));
    const auto z = make_big_array<std::uint32_t>(size);
    z[0] = size;
    match(pattern, size, pattern, size, z.get(), 1, [&](std::uint32_t k, std::uint32_t lcp) { z[k] = lcp; });
    match(text_ + begin_, m_, pattern, size, z.get(), 0, [&](std::uint32_t k, std::uint32_t lcp) {
      bool more;
      if (k + lcp == m_) {
        more = !behind_greater(end_ + lcp);
      } else {
        more = lcp == size || rank_order(text_[begin_ + k + lcp]) > rank_order(pattern[lcp]);
      }
      if (more) greater.set(k);
    });
    return greater;
  }
  // found(k, longest common prefix of subject[k, n) and the pattern) for k = first .. n - 1.
  template <class F>
  static void match(const T* subject, std::uint32_t n, const T* pattern, std::uint32_t size, const std::uint32_t* z,
                    std::uint32_t first, F&& found) {
    std::uint32_t left = 0, right = 0;  // the match that reaches farthest
    for (std::uint32_t k = first; k < n; ++k) {
      std::uint32_t lcp = k < right ? std::min(z[k - left], right - k) : 0;
      while (lcp < size && k + lcp < n && subject[k + lcp] == pattern[lcp]) ++lcp;
      if (k + lcp > right) left = k, right = k + lcp;
      found(k, lcp);
    }
  }

  // The block's suffixes in the order of the whole text.  Its last symbol `l` becomes three: l where the rest is
  // smaller than suffix `end`, then the last position itself, then l where the rest is greater.
  template <class Char>
  BigArray<std::int32_t> sort() const {
    using Sort = SuffixSort<Char, std::int32_t>;
    const auto text = make_big_array<Char>(m_ + std::size_t{Sort::kSpare});
    std::fill_n(text.get() + m_, Sort::kSpare, Char{0});
    {
      const Bitset greater = compare_with_behind();
      const std::uint32_t l = alphabet_.rank(text_[end_ - 1]);
      for (std::uint32_t k = 0; k < m_; ++k) {
        const std::uint32_t c = alphabet_.rank(text_[begin_ + k]);
        const bool above = c > l || (c == l && k + 1 < m_ && greater.test(k + 1));
        text[k] = static_cast<Char>(k + 1 == m_ ? l + 2 : above ? c + 3 : c + 1);
      }
    }
    auto sa = make_big_array<std::int32_t>(m_ + std::size_t{Sort::kSpare});
    Sort::sort(text.get(), sa.get(), static_cast<std::int32_t>(m_), static_cast<std::int32_t>(alphabet_.size() + 2));
    return sa;
  }

  void write_part(const std::int32_t* sa) const {
    AtomicFile part(job_.file("part", block_));
    write_header(&part);
    part.write(Span<const std::int32_t>(sa, m_));
    part.commit();
  }

  // Cuts what lies behind the block into walks of about equal length, each with its start known exactly.
  std::vector<Walk> start_walks(const std::int32_t* sa) const {
    const std::int64_t behind = n_ - end_;
    const std::int64_t wanted = std::clamp<std::int64_t>(behind / kMinWalk, 1, std::int64_t{kWalks} * num_threads());
    std::vector<Walk> walks;
    std::int64_t low = end_;
    for (std::int64_t w = 1; w <= wanted && behind > 0; ++w) {
      // Bits of one word belong to one walk: different threads write them.
      const std::int64_t raw = end_ + behind / wanted * w, at = w == wanted ? n_ : raw - (raw - begin_) % 64;
      std::uint32_t smaller = 0;
      if (at <= low || (at < n_ && !smaller_in_block(sa, at, &smaller))) continue;
      walks.push_back({low, at, smaller});
      low = at;
    }
    return walks;
  }
  // Suffixes of the block smaller than suffix `at`; false when that would take long comparisons.
  bool smaller_in_block(const std::int32_t* sa, std::int64_t at, std::uint32_t* count) const {
    std::uint32_t low = 0, high = m_;
    while (low < high) {
      const std::uint32_t middle = low + (high - low) / 2;
      const T *const a = text_ + begin_ + sa[middle], *const b = text_ + at;
      const std::int64_t most = n_ - at;
      std::int64_t lcp = 0;
      while (lcp < std::min(most, kMaxCompare) && a[lcp] == b[lcp]) ++lcp;
      if (lcp == kMaxCompare) return false;
      if (lcp < most && rank_order(a[lcp]) < rank_order(b[lcp])) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    *count = low;
    return true;
  }

  void walk(Span<Walk> walks, const BlockRank& rank, Gaps* gaps) {
    BlockRank::Step steps[kWalks];
    const std::size_t last_symbol = alphabet_.rank(text_[end_ - 1]);
    const auto greater = is_greater_.mutable_words();
    for (std::size_t live = walks.size(); live > 0;) {
      for (std::size_t w = 0; w < live; ++w) {
        steps[w].symbol = alphabet_.rank(text_[walks[w].at - 1]);
        steps[w].i = walks[w].next;
        rank.begin(steps[w]);
      }
      for (std::size_t w = 0; w < live; ++w) rank.go_on(steps[w]);
      for (std::size_t w = 0; w < live; ++w) {
        Walk& x = walks[w];
        const bool last_is_smaller = steps[w].symbol == last_symbol && behind_greater(x.at);
        x.next = rank.finish(steps[w]) + last_is_smaller;
        gaps->touch(x.next);
        --x.at;
        const auto bit = static_cast<std::size_t>(x.at - begin_);
        greater[bit / 64] |= std::uint64_t{x.next > own_rank_} << bit % 64;
      }
      for (std::size_t w = live; w-- > 0;) {
        gaps->add(walks[w].next);
        if (walks[w].at == walks[w].low) std::swap(walks[w], walks[--live]);
      }
    }
  }

  const ChunkedSort& job_;
  const std::int64_t block_;
  const T* text_;
  const std::int64_t n_, begin_, end_;
  const std::uint32_t m_;
  const Alphabet<T> alphabet_;
  Bitset behind_;      // see load_behind
  Bitset is_greater_;  // bit j - begin: suffix j is greater than suffix `begin`
  std::uint32_t own_rank_ = 0;
};

ChunkedSort::ChunkedSort(const std::string& tokenized_path, const std::string& table_path, int token_bytes,
                         std::int64_t block_tokens)
    : text_(tokenized_path), table_path_(table_path), token_bytes_(token_bytes), block_tokens_(block_tokens) {
  with_token_type(token_bytes, [](auto) {});
  GC_CHECK_AS(FormatError, text_.size() % static_cast<std::size_t>(token_bytes) == 0 && text_.size() > 0,
              tokenized_path, ": size must be a positive multiple of the token width ", token_bytes, ", got ",
              text_.size());
  GC_CHECK(block_tokens >= 1 && block_tokens < 0x7FFFFFFF, "block_tokens must be in [1, 2^31 - 1), got ", block_tokens);
  num_tokens_ = static_cast<std::int64_t>(text_.size()) / token_bytes;
  num_blocks_ = (num_tokens_ + block_tokens_ - 1) / block_tokens_;
}

std::int64_t ChunkedSort::memory_bytes(std::int64_t num_tokens, std::int64_t block_tokens) {
  // Positions with symbols or with places; two bits per token of the text.
  return 9 * std::min(block_tokens, num_tokens) + num_tokens / 4;
}

std::string ChunkedSort::file(const char* kind, std::int64_t block) const {
  return cat(table_path_, ".", kind, ".", block);
}

std::int64_t ChunkedSort::num_done() const {
  for (std::int64_t b = 0; b < num_blocks_; ++b) {
    if (::access(file("gt", b).c_str(), F_OK) == 0) return num_blocks_ - b;
  }
  return 0;
}

void ChunkedSort::sort_next() {
  const std::int64_t block = num_blocks_ - 1 - num_done();
  GC_CHECK(block >= 0, "all ", num_blocks_, " blocks are sorted; merge them");
  with_token_type(token_bytes_, [&](auto t) { ChunkedSorter<decltype(t)>(*this, block).run(); });
  ::unlink(file("gt", block + 1).c_str());
}

void ChunkedSort::merge() {
  GC_CHECK(num_done() == num_blocks_, "all ", num_blocks_, " blocks must be sorted before they are merged, got ",
           num_done());
  struct Stream {
    MappedFile part, gap;
    const unsigned char *position, *position_end, *varint, *varint_end;
    std::uint64_t begin, waiting;  // suffixes of later blocks that come before this one's next
    void next_gap(const std::string& path) {
      waiting = 0;
      for (int shift = 0;; shift += 7) {
        GC_CHECK_AS(FormatError, varint < varint_end && shift < 64, path,
                    ": must hold one count per suffix, got fewer");
        waiting |= static_cast<std::uint64_t>(*varint & 0x7F) << shift;
        if ((*varint++ & 0x80) == 0) return;
      }
    }
  };
  std::vector<Stream> streams(static_cast<std::size_t>(num_blocks_));
  for (std::int64_t b = 0; b < num_blocks_; ++b) {
    const std::int64_t end = std::min(begin(b) + block_tokens_, num_tokens_);
    const Header header{kMagic, static_cast<std::uint64_t>(num_tokens_), static_cast<std::uint64_t>(begin(b)),
                        static_cast<std::uint64_t>(end)};
    Stream& s = streams[static_cast<std::size_t>(b)];
    s.part = open_block(file("part", b), header, static_cast<std::uint64_t>(end - begin(b)) * 4);
    s.gap = open_block(file("gap", b), header, 0);
    s.position = s.part.bytes().data() + sizeof(Header);
    s.position_end = s.part.bytes().data() + s.part.size();
    s.varint = s.gap.bytes().data() + sizeof(Header);
    s.varint_end = s.gap.bytes().data() + s.gap.size();
    s.begin = static_cast<std::uint64_t>(begin(b));
    s.next_gap(s.gap.path());
  }
  AtomicFile table(table_path_);
  const auto width = static_cast<std::size_t>(pointer_bytes(text_.size()));
  for (std::int64_t r = 0; r < num_tokens_; ++r) {
    Stream* s = streams.data();
    for (; s->waiting > 0; ++s) {
      --s->waiting;
      GC_CHECK_AS(FormatError, s != &streams.back(), s->gap.path(), ": must count suffixes that exist, got more");
    }
    GC_CHECK_AS(FormatError, s->position < s->position_end, s->part.path(), ": must hold every suffix, got too few");
    const std::uint64_t pointer =
        (s->begin + load_raw<std::uint32_t>(s->position)) * static_cast<unsigned>(token_bytes_);
    s->position += 4;
    s->next_gap(s->gap.path());
    table.write(&pointer, width);
  }
  table.commit();
  for (std::int64_t b = 0; b < num_blocks_; ++b) {
    for (const char* kind : {"part", "gap", "gt"}) ::unlink(file(kind, b).c_str());
  }
}

}  // namespace gramcore::ngram
