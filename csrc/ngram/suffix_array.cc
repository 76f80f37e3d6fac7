#include "ngram/suffix_array.h"

#include <algorithm>
#include <limits>

#include "core/file.h"
#include "core/thread_pool.h"
#include "ngram/alphabet.h"
#include "ngram/big_array.h"
#include "ngram/suffix_sort.h"
#include "ngram/tokens.h"

namespace gramcore::ngram {
namespace {

// Positions of suffixes in order; watch: see SuffixSort, but watch.done(sa, low, high).
template <class Char, class T, class Int, class Watch>
BigArray<Int> sort_as(Span<const T> tokens, const Alphabet<T>& alphabet, const Watch& watch) {
  using Sort = SuffixSort<Char, Int>;
  const std::size_t n = tokens.size(), cells = n + static_cast<std::size_t>(Sort::kSpare);
  const auto text = make_big_array<Char>(cells);
  parallel_for(static_cast<std::int64_t>(n), 1 << 16, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      text[i] = static_cast<Char>(alphabet.rank(tokens[i]) + 1);
    }
  });
  std::fill(text.get() + n, text.get() + cells, Char{0});
  auto sa = make_big_array<Int>(cells);
  struct {
    const Int* sa;
    const Watch& watch;
    void done(Int low, Int high) const {
      watch.done(sa, static_cast<std::size_t>(low), static_cast<std::size_t>(high));
    }
    void reached(double part) const { watch.reached(part); }
  } const with_array{sa.get(), watch};
  Sort::sort(text.get(), sa.get(), static_cast<Int>(n), static_cast<Int>(alphabet.size()), {}, with_array);
  return sa;
}

template <class Int, class T, class Watch>
BigArray<Int> sort_tokens(Span<const T> tokens, const Watch& watch) {
  const Alphabet<T> alphabet(tokens);
  if (alphabet.size() < 256) return sort_as<std::uint8_t, T, Int>(tokens, alphabet, watch);
  if (alphabet.size() < 65536) return sort_as<std::uint16_t, T, Int>(tokens, alphabet, watch);
  return sort_as<std::uint32_t, T, Int>(tokens, alphabet, watch);
}

struct Nobody {
  template <class Int>
  void done(const Int*, std::size_t, std::size_t) const {}
  void reached(double) const {}
};

// Writes ranks while others are still being sorted.
template <class T>
struct TableWriter {
  const AtomicFile& file;
  std::size_t width;
  const std::function<void(double)>& progress;

  template <class Int>
  void done(const Int* sa, std::size_t low, std::size_t high) const {
    constexpr std::size_t kBatch = 8192;
    unsigned char batch[kBatch * 8 + 8];
    for (std::size_t begin = low; begin < high; begin += kBatch) {
      const std::size_t n = std::min(kBatch, high - begin);
      for (std::size_t i = 0; i < n; ++i) {
        const std::uint64_t pointer = static_cast<std::uint64_t>(sa[begin + i]) * sizeof(T);
        std::memcpy(batch + i * width, &pointer, 8);  // the next entry covers the rest
      }
      file.write_at(begin * width, batch, n * width);
    }
  }
  void reached(double part) const {
    if (progress) progress(part);
  }
};

}  // namespace

template <class T, class Int>
std::vector<Int> suffix_array(Span<const T> tokens) {
  GC_CHECK_AS(LimitError, tokens.size() < static_cast<std::size_t>(std::numeric_limits<Int>::max()),
              "tokens must number < ", std::numeric_limits<Int>::max(), ", got ", tokens.size());
  const auto sa = sort_tokens<Int>(tokens, Nobody{});
  return std::vector<Int>(sa.get(), sa.get() + tokens.size());
}

#define GC_INSTANTIATE(T)                                                          \
  template std::vector<std::int32_t> suffix_array<T, std::int32_t>(Span<const T>); \
  template std::vector<std::int64_t> suffix_array<T, std::int64_t>(Span<const T>);
GC_INSTANTIATE(std::uint8_t)
GC_INSTANTIATE(std::uint16_t)
GC_INSTANTIATE(std::uint32_t)
#undef GC_INSTANTIATE

void build_table(const std::string& tokenized_path, const std::string& table_path, int token_bytes,
                 const std::function<void(double)>& progress) {
  const MappedFile source(tokenized_path);
  GC_CHECK_AS(FormatError, source.size() % static_cast<std::size_t>(token_bytes) == 0, tokenized_path,
              ": size must be a multiple of the token width ", token_bytes, ", got ", source.size());
  AtomicFile table(table_path);
  with_token_type(token_bytes, [&](auto token) {
    using T = decltype(token);
    const Span<const T> tokens(reinterpret_cast<const T*>(source.bytes().data()), source.size() / sizeof(T));
    const auto width = static_cast<std::size_t>(pointer_bytes(source.size()));
    const TableWriter<T> writer{table, width, progress};
    if (tokens.size() < (std::size_t{1} << 31)) {
      sort_tokens<std::int32_t>(tokens, writer);
    } else {
      sort_tokens<std::int64_t>(tokens, writer);
    }
  });
  table.commit();
}

}  // namespace gramcore::ngram
