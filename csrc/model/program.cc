#include "model/program.h"

#include <sched.h>

#include <utility>

#include "core/thread_pool.h"

namespace gramcore::model {
namespace {

constexpr int kSpins = 4000;  // looks before a waiting thread offers its core to others

}  // namespace

void Program::add(std::int64_t num_items, std::function<void(std::int64_t)> run) {
  if (num_items <= 0) return;
  Phase& phase = phases_.emplace_back();
  phase.num_items = num_items;
  phase.run = std::move(run);
}

void Program::run() {
  release_after(-1);
  run_chunks(num_threads(), [](void* self, std::int64_t) { static_cast<Program*>(self)->take_part(); }, this);
}

void Program::release_after(std::int64_t finished) {
  const auto count = static_cast<std::int64_t>(phases_.size());
  std::int64_t next = finished + 1;
  for (; next < count && phases_[static_cast<std::size_t>(next)].num_items == 1; ++next) {
    phases_[static_cast<std::size_t>(next)].run(0);
  }
  stage_.store(next, std::memory_order_release);
}

void Program::take_part() {
  const auto count = static_cast<std::int64_t>(phases_.size());
  std::int64_t at = stage_.load(std::memory_order_acquire);
  while (at < count) {
    Phase& phase = phases_[static_cast<std::size_t>(at)];
    for (;;) {
      const std::int64_t item = phase.next.fetch_add(1, std::memory_order_relaxed);
      if (item >= phase.num_items) break;
      phase.run(item);
      if (phase.done.fetch_add(1, std::memory_order_acq_rel) + 1 == phase.num_items) release_after(at);
    }
    std::int64_t now;
    for (int spins = 0; (now = stage_.load(std::memory_order_acquire)) == at; ++spins) {
      if (spins < kSpins) {
        cpu_pause();
      } else {
        sched_yield();
      }
    }
    at = now;
  }
}

}  // namespace gramcore::model
