// gramcore._core.ngram.Index: queries; results are tuples of numbers and arrays.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "bind/token_ids.inl.h"
#include "core/thread_pool.h"
#include "ngram/attribution.h"
#include "ngram/index.h"

namespace gramcore::ngram {

// Hands a vector to NumPy without a copy.
template <class T>
py::array_t<T> own(std::vector<T>&& values) {
  auto* held = new std::vector<T>(std::move(values));
  const py::capsule owner(held, [](void* p) { delete static_cast<std::vector<T>*>(p); });
  return py::array_t<T>(static_cast<py::ssize_t>(held->size()), held->data(), owner);
}

inline QueryBatch query_batch(Span<const std::uint32_t> ids, Span<const std::int64_t> offsets) {
  GC_CHECK(!offsets.empty() && offsets[0] == 0 && offsets.back() == static_cast<std::int64_t>(ids.size()),
           "offsets must begin with 0 and end with the number of ids ", ids.size());
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    GC_CHECK(offsets[i - 1] <= offsets[i], "offsets must ascend, got ", offsets[i - 1], " before ", offsets[i]);
  }
  return {ids, offsets};
}

inline auto distribution_tuple(Distribution&& d) {
  return std::tuple(d.prompt_count, own(std::move(d.ids)), own(std::move(d.counts)));
}

inline std::vector<std::pair<std::int64_t, std::int64_t>> pairs(const std::vector<RankRange>& ranges) {
  std::vector<std::pair<std::int64_t, std::int64_t>> out;
  for (const RankRange& r : ranges) out.emplace_back(r.begin, r.end);
  return out;
}

// Distributions of many prompts, one after the other: (prompt counts, offsets, ids, counts).
inline auto next_tokens_batch(const Index& index, const QueryBatch& batch, std::int64_t top) {
  const auto n = static_cast<std::size_t>(batch.size());
  std::vector<std::int64_t> prompt_counts(n), offsets(n + 1, 0), counts;
  std::vector<std::uint32_t> ids;
  {
    const py::gil_scoped_release release;
    std::vector<RankRange> ranges(n * index.num_shards());
    index.find_batch(batch, ranges);
    std::vector<Distribution> all(n);
    parallel_for(batch.size(), 8, [&](std::int64_t begin, std::int64_t end) {
      std::vector<RankRange> own_ranges(index.num_shards());
      for (auto q = static_cast<std::size_t>(begin); q < static_cast<std::size_t>(end); ++q) {
        for (std::size_t s = 0; s < index.num_shards(); ++s) own_ranges[s] = ranges[s * n + q];
        all[q] = index.next_tokens(own_ranges, batch.query(static_cast<std::int64_t>(q)).size(), top);
      }
    });
    for (std::size_t q = 0; q < n; ++q) {
      prompt_counts[q] = all[q].prompt_count;
      ids.insert(ids.end(), all[q].ids.begin(), all[q].ids.end());
      counts.insert(counts.end(), all[q].counts.begin(), all[q].counts.end());
      offsets[q + 1] = static_cast<std::int64_t>(ids.size());
    }
  }
  return std::tuple(own(std::move(prompt_counts)), own(std::move(offsets)), own(std::move(ids)),
                    own(std::move(counts)));
}

inline void bind_single_queries(py::class_<Index>& c) {
  c.def("find",
        [](const Index& self, py::handle ids) {
          const QueryIds query(ids, "ids", 0, kMaxQueryId);
          std::vector<RankRange> ranges;
          {
            const py::gil_scoped_release release;
            ranges = self.find(query.span());
          }
          return pairs(ranges);
        })
      .def("count",
           [](const Index& self, py::handle ids) {
             const QueryIds query(ids, "ids", 0, kMaxQueryId);
             const py::gil_scoped_release release;
             return self.count(query.span());
           })
      .def("continuation",
           [](const Index& self, py::handle prompt, std::uint32_t next) {
             const QueryIds query(prompt, "prompt_ids", 0, kMaxQueryId);
             const py::gil_scoped_release release;
             return self.continuation(query.span(), next);
           })
      .def("next_tokens",
           [](const Index& self, py::handle prompt, std::int64_t top) {
             const QueryIds query(prompt, "prompt_ids", 0, kMaxQueryId);
             Distribution d;
             {
               const py::gil_scoped_release release;
               d = self.next_tokens(query.span(), top);
             }
             return distribution_tuple(std::move(d));
           })
      .def("longest_suffix",
           [](const Index& self, py::handle prompt) {
             const QueryIds query(prompt, "prompt_ids", 0, kMaxQueryId);
             SuffixMatch m;
             {
               const py::gil_scoped_release release;
               m = self.longest_suffix(query.span());
             }
             return std::tuple(m.suffix_len, m.count, pairs(m.ranges));
           })
      .def("suffix_continuation",
           [](const Index& self, py::handle prompt, std::uint32_t next) {
             const QueryIds query(prompt, "prompt_ids", 0, kMaxQueryId);
             const py::gil_scoped_release release;
             const SuffixMatch m = self.longest_suffix(query.span());
             const auto suffix = query.span().last(static_cast<std::size_t>(m.suffix_len));
             return std::tuple(m.suffix_len, m.count, self.continuation(suffix, next).second);
           })
      .def("suffix_next_tokens",
           [](const Index& self, py::handle prompt, std::int64_t top) {
             const QueryIds query(prompt, "prompt_ids", 0, kMaxQueryId);
             Distribution d;
             SuffixMatch m;
             {
               const py::gil_scoped_release release;
               m = self.longest_suffix(query.span());
               d = self.next_tokens(m.ranges, static_cast<std::size_t>(m.suffix_len), top);
             }
             return std::tuple(m.suffix_len, distribution_tuple(std::move(d)));
           })
      .def("suffix_counts", [](const Index& self, py::handle ids, std::int64_t max_len) {
        const QueryIds query(ids, "ids", 0, kMaxQueryId);
        std::vector<std::int64_t> counts;
        {
          const py::gil_scoped_release release;
          counts = self.suffix_counts(query.span(), max_len);
        }
        return own(std::move(counts));
      });
}

inline void bind_many_queries(py::class_<Index>& c) {
  c.def("score",
        [](const Index& self, py::handle ids) {
          const QueryIds query(ids, "ids", 0, kMaxQueryId);
          const std::size_t n = query.span().size();
          std::vector<std::int64_t> lengths(n), prompts(n), conts(n);
          {
            const py::gil_scoped_release release;
            std::vector<Score> scores(n);
            self.score(query.span(), scores);
            for (std::size_t i = 0; i < n; ++i) {
              lengths[i] = scores[i].suffix_len;
              prompts[i] = scores[i].prompt_count;
              conts[i] = scores[i].cont_count;
            }
          }
          return std::tuple(own(std::move(lengths)), own(std::move(prompts)), own(std::move(conts)));
        })
      .def("match_ends",
           [](const Index& self, py::handle ids, std::optional<const Index*> minus) {
             const QueryIds query(ids, "ids", 0, kMaxQueryId);
             std::vector<std::int64_t> ends(query.span().size());
             {
               const py::gil_scoped_release release;
               match_ends(self, minus.value_or(nullptr), query.span(), ends);
             }
             return own(std::move(ends));
           })
      .def("attribute",
           [](const Index& self, py::handle ids, TensorArg& stops, TensorArg& begins, std::int64_t min_len,
              std::int64_t max_count, std::optional<const Index*> minus) {
             const QueryIds query(ids, "ids", 0, kMaxQueryId);
             const AttributionRules rules{stops.span<const std::uint8_t>("stops", 1),
                                          begins.span<const std::uint8_t>("begins", 1), min_len, max_count};
             for (const auto& marks : {rules.stops, rules.begins}) {
               GC_CHECK(marks.empty() || marks.size() == query.span().size(), "marks must be one per token, got ",
                        marks.size(), " for ", query.span().size(), " tokens");
             }
             Attribution found;
             {
               const py::gil_scoped_release release;
               found = attribute(self, minus.value_or(nullptr), query.span(), rules);
             }
             return std::tuple(found.left, found.right, found.count, found.unigram_logprob, found.places_end,
                               own(std::move(found.shards)), own(std::move(found.positions)));
           })
      .def("count_batch",
           [](const Index& self, TensorArg& ids, TensorArg& offsets) {
             const QueryBatch batch =
                 query_batch(ids.span<const std::uint32_t>("ids", 1), offsets.span<const std::int64_t>("offsets", 1));
             std::vector<std::int64_t> counts(static_cast<std::size_t>(batch.size()));
             {
               const py::gil_scoped_release release;
               self.count_batch(batch, counts);
             }
             return own(std::move(counts));
           })
      .def("next_tokens_batch", [](const Index& self, TensorArg& ids, TensorArg& offsets, std::int64_t top) {
        return next_tokens_batch(
            self, query_batch(ids.span<const std::uint32_t>("ids", 1), offsets.span<const std::int64_t>("offsets", 1)),
            top);
      });
}

// Text and documents of one shard.
inline void bind_documents(py::class_<Index>& c) {
  c.def("positions",
        [](const Index& self, std::size_t s, std::int64_t begin, std::int64_t end) {
          const Shard& shard = self.shard(s);
          GC_CHECK_AS(OutOfRange, begin >= 0 && begin <= end && end <= shard.num_tokens(), "ranks must be in [0, ",
                      shard.num_tokens(), "], got ", begin, " to ", end);
          std::vector<std::int64_t> found(static_cast<std::size_t>(end - begin));
          {
            const py::gil_scoped_release release;
            for (std::int64_t r = begin; r < end; ++r) found[static_cast<std::size_t>(r - begin)] = shard.position(r);
            std::sort(found.begin(), found.end());
          }
          return own(std::move(found));
        })
      .def("documents_of",
           [](const Index& self, std::size_t s, TensorArg& positions) {
             const Shard& shard = self.shard(s);
             const auto at = positions.span<const std::int64_t>("positions", 1);
             std::vector<std::int64_t> documents(at.size());
             for (std::size_t i = 0; i < at.size(); ++i) documents[i] = shard.document_of(at[i]);
             return own(std::move(documents));
           })
      .def("document",
           [](const Index& self, std::size_t s, std::int64_t document) {
             const RankRange span = self.shard(s).document(document);
             return std::pair(span.begin, span.end);
           })
      .def("tokens", [](const Index& self, std::size_t s, std::int64_t begin, std::int64_t end) {
        const Shard& shard = self.shard(s);
        GC_CHECK_AS(OutOfRange, begin >= 0 && begin <= end && end <= shard.num_tokens(), "positions must be in [0, ",
                    shard.num_tokens(), "], got ", begin, " to ", end);
        std::vector<std::uint32_t> tokens(static_cast<std::size_t>(end - begin));
        for (std::int64_t p = begin; p < end; ++p) tokens[static_cast<std::size_t>(p - begin)] = shard.token(p);
        return own(std::move(tokens));
      });
}

inline void bind_index(py::module_& m) {
  py::class_<Index> c(m, "Index");
  c.def(
       py::init([](const std::vector<std::pair<std::string, int>>& shards, int token_bytes, bool use_accel, bool load) {
         const py::gil_scoped_release release;
         std::vector<std::unique_ptr<Shard>> opened;
         for (const auto& [directory, number] : shards) {
           opened.push_back(std::make_unique<Shard>(directory, number, token_bytes, use_accel));
           if (load) opened.back()->load();
         }
         return std::make_unique<Index>(std::move(opened));
       }))
      .def("num_shards", &Index::num_shards)
      .def("num_tokens", &Index::num_tokens)
      .def("token_bytes", [](const Index& self) { return self.shard(0).token_bytes(); })
      .def("shard_facts",
           [](const Index& self, std::size_t s) {
             const Shard& shard = self.shard(s);
             return std::tuple(shard.num_tokens(), shard.num_documents(), shard.accelerated());
           })
      .def("position", [](const Index& self, std::size_t s, std::int64_t rank) { return self.shard(s).position(rank); })
      .def(
          "verify", [](const Index& self, std::size_t s) { self.shard(s).verify(); },
          py::call_guard<py::gil_scoped_release>());
  bind_single_queries(c);
  bind_many_queries(c);
  bind_documents(c);
  m.def(
      "build_accel",
      [](const std::string& directory, int number, int token_bytes, const std::string& path) {
        Accel::build(Shard(directory, number, token_bytes, false), path);
      },
      py::call_guard<py::gil_scoped_release>());
}

}  // namespace gramcore::ngram
