#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "core/bitset.h"
#include "core/cpu.h"
#include "core/csr.h"
#include "core/file.h"
#include "core/half.h"
#include "core/rng.h"
#include "core/thread_pool.h"
#include "native/test.h"

using namespace gramcore;

namespace {

// Round-to-nearest-even by searching the neighbours, from the definition.
template <class Half, std::uint32_t kInfBits>
bool nearest(float x, Half got) {
  const double value = to_f32(got), error = std::fabs(value - static_cast<double>(x));
  for (int step : {-1, 1}) {
    const std::uint32_t neighbour_bits = (got.bits & 0x7fffu) + static_cast<std::uint32_t>(step);
    if ((got.bits & 0x7fffu) == 0 && step < 0) continue;
    if (neighbour_bits >= kInfBits) continue;
    const Half neighbour{static_cast<std::uint16_t>((got.bits & 0x8000u) | neighbour_bits)};
    const double other = std::fabs(static_cast<double>(to_f32(neighbour)) - static_cast<double>(x));
    if (other < error) return false;
    if (other == error && (got.bits & 1u)) return false;  // a tie goes to the even code
  }
  return true;
}

std::string temp_path(const char* name) {
  return cat("/tmp/gramcore-native-", static_cast<long>(::getpid()), "-", name);
}

}  // namespace

GC_TEST(half_round_trip_all_codes) {
  for (std::uint32_t code = 0; code < 0x10000u; ++code) {
    const f16 h{static_cast<std::uint16_t>(code)};
    const bf16 b{static_cast<std::uint16_t>(code)};
    if (std::isnan(to_f32(h))) {
      EXPECT(std::isnan(to_f32(to_f16(to_f32(h)))));
    } else {
      EXPECT_EQ(to_f16(to_f32(h)).bits, h.bits);
    }
    if (std::isnan(to_f32(b))) {
      EXPECT(std::isnan(to_f32(to_bf16(to_f32(b)))));
    } else {
      EXPECT_EQ(to_bf16(to_f32(b)).bits, b.bits);
    }
  }
}

GC_TEST(half_rounds_to_nearest_even) {
  Rng rng(7);
  for (int i = 0; i < 200000; ++i) {
    const std::uint32_t word = rng.next_u32();
    float x;
    std::memcpy(&x, &word, 4);
    if (!std::isfinite(x)) continue;
    if (std::fabs(x) < 3.3e38f) EXPECT((nearest<bf16, 0x7f80u>(x, to_bf16(x))));
    const float small =
        std::ldexp(static_cast<float>(static_cast<std::int32_t>(word)), static_cast<int>(word % 40) - 50);
    if (std::fabs(small) < 65504.0f) EXPECT((nearest<f16, 0x7c00u>(small, to_f16(small))));
  }
  EXPECT_EQ(to_f16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(to_f16(65519.0f).bits, 0x7bff);
}

GC_TEST(stochastic_rounding_is_unbiased) {
  const float x = 1.0f + 0x1p-9f;  // a quarter of the way between two bf16 neighbours
  int up = 0;
  for (std::uint32_t noise = 0; noise < 0x10000u; ++noise) up += to_f32(to_bf16_stochastic(x, noise)) > 1.0f;
  EXPECT_EQ(up, 0x4000);
}

GC_TEST(philox_known_answers) {
  // Random123's known-answer vectors for philox4x32-10.
  const Philox4 zero = philox4x32(0, 0, 0);
  EXPECT_EQ(zero.v[0], 0x6627e8d5u);
  EXPECT_EQ(zero.v[3], 0x9b00dbd8u);
  const Philox4 ones = philox4x32(~0ull, ~0ull, ~0ull);
  EXPECT_EQ(ones.v[0], 0x408f276du);
  EXPECT_EQ(ones.v[3], 0x6d5451fdu);
}

GC_TEST(rng_bounded_draws_are_uniform) {
  Rng rng(3, 1);
  std::vector<int> counts(7, 0);
  for (int i = 0; i < 70000; ++i) ++counts[rng.next_below(7)];
  double chi = 0;
  for (int c : counts) chi += (c - 10000.0) * (c - 10000.0) / 10000.0;
  EXPECT(chi < 27.9);  // chi-square, 6 degrees of freedom, false alarm 1e-4
}

GC_TEST(bitset_matches_vector_of_bool) {
  Rng rng(5);
  for (std::size_t size : {0u, 1u, 63u, 64u, 65u, 200u}) {
    Bitset a(size), b(size);
    std::vector<bool> ta(size), tb(size);
    for (std::size_t i = 0; i < size; ++i) {
      if (rng.next_below(2)) a.set(i), ta[i] = true;
      if (rng.next_below(2)) b.set(i), tb[i] = true;
    }
    Bitset both = a, without = a, flipped = a;
    both &= b;
    without -= b;
    flipped.flip();
    std::size_t count = 0;
    for (std::size_t i = 0; i < size; ++i) {
      EXPECT_EQ(both.test(i), ta[i] && tb[i]);
      EXPECT_EQ(without.test(i), ta[i] && !tb[i]);
      EXPECT_EQ(flipped.test(i), !ta[i]);
      count += ta[i];
    }
    EXPECT_EQ(a.count(), count);
    EXPECT_EQ(flipped.count(), size - count);
    std::size_t visited = 0;
    a.for_each([&](std::size_t i) { visited += ta[i]; });
    EXPECT_EQ(visited, count);
  }
}

GC_TEST(csr_groups_pairs_by_row) {
  const std::vector<std::pair<std::uint32_t, int>> pairs{{2, 1}, {0, 2}, {2, 3}};
  const auto csr = Csr<int>::from_pairs(4, pairs);
  EXPECT_EQ(csr.rows(), 4u);
  EXPECT_EQ(csr.row(0).size(), 1u);
  EXPECT_EQ(csr.row(1).size(), 0u);
  EXPECT_EQ(csr.row(2)[0], 1);
  EXPECT_EQ(csr.row(2)[1], 3);
  EXPECT(test::throws<InvalidArgument>([&] { Csr<int>::from_pairs(2, pairs); }));
}

GC_TEST(files_are_written_whole_or_not_at_all) {
  const std::string path = temp_path("atomic");
  {
    AtomicFile file(path);
    const char text[] = "half";
    file.write(text, 4);
  }  // no commit
  EXPECT(test::throws<IoError>([&] { MappedFile missing(path); }));
  std::vector<std::uint32_t> values(600000);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<std::uint32_t>(i * 2654435761u);
  {
    AtomicFile file(path);
    file.write(Span<const std::uint32_t>(values));
    EXPECT_EQ(file.bytes_written(), values.size() * 4);
    file.commit();
  }
  const MappedFile mapped(path, Access::random);
  EXPECT_EQ(mapped.size(), values.size() * 4);
  EXPECT_EQ(std::memcmp(mapped.bytes().data(), values.data(), mapped.size()), 0);
  MappedFile loaded(path);
  loaded.load();
  EXPECT_EQ(::truncate(path.c_str(), 9), 0);  // what a map would see and memory must not
  EXPECT_EQ(loaded.size(), values.size() * 4);
  EXPECT_EQ(std::memcmp(loaded.bytes().data(), values.data(), loaded.size()), 0);
  MappedFile small(path);
  small.load();
  EXPECT_EQ(std::memcmp(small.bytes().data(), values.data(), 9), 0);
  EXPECT_EQ(::truncate(path.c_str(), 0), 0);
  MappedFile empty(path);
  empty.load();
  EXPECT(empty.bytes().empty());
  ::unlink(path.c_str());
  EXPECT(test::throws<IoError>([&] { MappedFile directory("/tmp"); }));
}

GC_TEST(pool_runs_every_chunk_once) {
  for (int threads : {1, 2, 5}) {
    set_num_threads(threads);
    for (std::int64_t n : {0, 1, 2, 3, 7, 64, 1000}) {
      std::vector<std::atomic<int>> hits(static_cast<std::size_t>(n));
      parallel_chunks(n, [&](std::int64_t i) { hits[static_cast<std::size_t>(i)].fetch_add(1); });
      for (auto& h : hits) EXPECT_EQ(h.load(), 1);
    }
  }
  set_num_threads(0);
}

GC_TEST(pool_many_small_jobs_lose_no_chunk) {
  set_num_threads(4);
  std::atomic<std::int64_t> total{0};
  std::int64_t expected = 0;
  for (int job = 0; job < 20000; ++job) {
    const std::int64_t n = job % 5 + 1;
    expected += n * (n + 1) / 2;
    parallel_chunks(n, [&](std::int64_t i) { total.fetch_add(i + 1, std::memory_order_relaxed); });
  }
  EXPECT_EQ(total.load(), expected);
  set_num_threads(0);
}

GC_TEST(pool_is_safe_from_many_callers_and_nested) {
  set_num_threads(3);
  std::atomic<int> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        parallel_chunks(6, [&](std::int64_t) { parallel_chunks(2, [&](std::int64_t) { total.fetch_add(1); }); });
      }
    });
  }
  for (auto& t : callers) t.join();
  EXPECT_EQ(total.load(), 4 * 200 * 12);
  set_num_threads(0);
}

GC_TEST(pool_rethrows_the_first_error) {
  set_num_threads(3);
  std::atomic<int> ran{0};
  const auto failing = [&] {
    parallel_chunks(10, [&](std::int64_t i) {
      ran.fetch_add(1);
      if (i == 3) throw OutOfRange("three");
    });
  };
  EXPECT(test::throws<OutOfRange>(failing));
  EXPECT_EQ(ran.load(), 10);
  set_num_threads(0);
}

#if !defined(__SANITIZE_THREAD__)
GC_TEST(pool_works_after_fork) {
  set_num_threads(3);
  parallel_chunks(8, [](std::int64_t) {});
  const pid_t child = ::fork();
  if (child == 0) {
    std::atomic<int> ran{0};
    parallel_chunks(8, [&](std::int64_t) { ran.fetch_add(1); });
    ::_exit(ran.load() == 8 ? 0 : 1);
  }
  int status = 1;
  ::waitpid(child, &status, 0);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  set_num_threads(0);
}
#endif

GC_TEST(cpu_levels_parse_and_switch) {
  const CpuLevel before = current_cpu_level();
  for (CpuLevel level : supported_cpu_levels()) {
    set_cpu_level(level);
    EXPECT_EQ(static_cast<int>(current_cpu_level()), static_cast<int>(level));
    EXPECT(usable_level_mask() & 1u);
  }
  set_cpu_level(before);
  EXPECT(test::throws<InvalidArgument>([] { parse_cpu_level("avx1024"); }));
}
