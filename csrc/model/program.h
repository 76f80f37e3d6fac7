// A list of phases run by all threads inside one dispatch of the thread pool.
//
// The items of a phase may run in any order on any thread; a phase starts when the previous one is complete.  Every
// thread begins with a run of items of its own, counted where no other thread writes, then helps the others out with
// theirs: two threads that took turns at one counter would wait for its cache line as long as for a small item.  The
// thread that completes a phase runs the single-item phases behind it before it lets the others go on, so short serial
// work costs no barrier.  A thread that comes late (or never) costs its help and nothing more.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>

namespace gramcore::model {

class Program {
 public:
  // run(item) for item in [0, num_items); must not throw.  Empty phases are skipped.
  void add(std::int64_t num_items, std::function<void(std::int64_t item)> run);
  void clear() { phases_.clear(); }
  void run();

 private:
  struct Phase {
    std::int64_t num_items = 0;
    std::function<void(std::int64_t)> run;
    alignas(64) std::atomic<std::int64_t> done{0};
  };
  struct alignas(64) Share {  // a thread's items of a phase: those from next on are left
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };
  void deal();
  void take_part();
  std::int64_t run_items(std::int64_t phase, std::int64_t first_share);
  void release_after(std::int64_t finished);

  std::deque<Phase> phases_;
  std::unique_ptr<Share[]> shares_;  // [phase][share]
  std::int64_t num_shares_ = 1, allocated_ = 0;
  alignas(64) std::atomic<std::int64_t> stage_{0};    // the phase whose items may run now
  alignas(64) std::atomic<std::int64_t> entered_{0};  // threads that took part so far
};

}  // namespace gramcore::model
