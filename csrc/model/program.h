// A list of phases run by all threads inside one dispatch of the thread pool.
//
// The items of a phase may run in any order on any thread; a phase starts when the previous one is complete.  The
// thread that completes a phase runs the single-item phases behind it before it lets the others go on, so short serial
// work costs no barrier.  A thread that comes late (or never) costs its help and nothing more.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

namespace gramcore::model {

class Program {
 public:
  // run(item) for item in [0, num_items); must not throw.  Empty phases are skipped.
  void add(std::int64_t num_items, std::function<void(std::int64_t item)> run);
  void clear() { phases_.clear(); }
  void run();

 private:
  struct alignas(64) Phase {
    std::int64_t num_items = 0;
    std::function<void(std::int64_t)> run;
    alignas(64) std::atomic<std::int64_t> next{0}, done{0};
  };
  void take_part();
  void release_after(std::int64_t finished);

  std::deque<Phase> phases_;
  alignas(64) std::atomic<std::int64_t> stage_{0};  // the phase whose items may run now
};

}  // namespace gramcore::model
