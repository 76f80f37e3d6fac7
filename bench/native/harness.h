// The benchmark harness for native code: verify first, warm up, time at least 20 repetitions, print percentiles and
// ratios.  The same rules as bench/harness.py, without Python between the clock and the kernel.
//
//   Case c("count a 5-gram", 1000);                 // work items per run
//   c.add("suffix automaton", [&] { ... }, [&] { return ok; });
//   c.print();                                      // ratios to the first contender
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace gramcore::bench {

inline constexpr int kRepetitions = 20;

// Keeps `value` from being optimised away.
template <class T>
inline void keep(const T& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

class Case {
 public:
  explicit Case(std::string name, double units = 1, double bytes = 0)
      : name_(std::move(name)), units_(units), bytes_(bytes) {}

  // run does the work once; check says after one run whether its result is right.  Exits with status 1 if it is not.
  void add(std::string name, std::function<void()> run, const std::function<bool()>& check) {
    run();
    if (!check()) {
      std::fprintf(stderr, "%s: %s gives a wrong result\n", name_.c_str(), name.c_str());
      std::exit(1);
    }
    const int batch = calibrate(run);
    contenders_.push_back({std::move(name), std::move(run), batch, {}});
  }

  // Times all contenders in turn, so that drift of the machine hits all alike, and prints one line each.
  void print() {
    for (int r = 0; r < kRepetitions; ++r) {
      for (auto& c : contenders_) c.seconds.push_back(once(c.run, c.batch));
    }
    std::printf("%s\n", name_.c_str());
    double ours = 0;
    for (auto& c : contenders_) {
      std::sort(c.seconds.begin(), c.seconds.end());
      const double p20 = at(c, 0.2), p50 = at(c, 0.5), p80 = at(c, 0.8);
      if (ours == 0) ours = p50;
      std::printf("  %-34s %12.4f us (p20 %.4f, p80 %.4f)", c.name.c_str(), p50 * 1e6 / units_, p20 * 1e6 / units_,
                  p80 * 1e6 / units_);
      if (bytes_ > 0) std::printf(" %8.1f GB/s", bytes_ / p50 / 1e9);
      std::printf("  time ratio to ours %6.2f\n", p50 / ours);
    }
  }

 private:
  struct Contender {
    std::string name;
    std::function<void()> run;
    int batch;
    std::vector<double> seconds;
  };

  static double once(const std::function<void()>& run, int batch) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < batch; ++i) run();
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / batch;
  }
  static double at(const Contender& c, double q) {
    return c.seconds[static_cast<std::size_t>(q * static_cast<double>(c.seconds.size() - 1))];
  }
  // Runs per timing so that one takes at least 200 us.
  static int calibrate(const std::function<void()>& run) {
    int batch = 1;
    while (batch < 1 << 20 && once(run, batch) * batch < 200e-6) batch *= 4;
    return batch;
  }

  std::string name_;
  double units_, bytes_;
  std::vector<Contender> contenders_;
};

}  // namespace gramcore::bench
