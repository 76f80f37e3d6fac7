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
  num_shares_ = num_threads();
  deal();
  entered_.store(0, std::memory_order_relaxed);
  release_after(-1);
  run_chunks(num_shares_, [](void* self, std::int64_t) { static_cast<Program*>(self)->take_part(); }, this);
}

void Program::deal() {
  const auto count = static_cast<std::int64_t>(phases_.size());
  if (count * num_shares_ > allocated_) {
    allocated_ = count * num_shares_;
    shares_ = std::make_unique<Share[]>(static_cast<std::size_t>(allocated_));
  }
  Share* share = shares_.get();
  for (const Phase& phase : phases_) {
    for (std::int64_t i = 0; i < num_shares_; ++i, ++share) {
      share->next.store(phase.num_items * i / num_shares_, std::memory_order_relaxed);
      share->end = phase.num_items * (i + 1) / num_shares_;
    }
  }
}

void Program::release_after(std::int64_t finished) {
  const auto count = static_cast<std::int64_t>(phases_.size());
  std::int64_t next = finished + 1;
  for (; next < count && phases_[static_cast<std::size_t>(next)].num_items == 1; ++next) {
    phases_[static_cast<std::size_t>(next)].run(0);
  }
  stage_.store(next, std::memory_order_release);
}

// Items of a phase as long as any are left, from one share on; returns how many.
std::int64_t Program::run_items(std::int64_t phase, std::int64_t first_share) {
  const auto& run = phases_[static_cast<std::size_t>(phase)].run;
  std::int64_t count = 0;
  for (std::int64_t i = 0; i < num_shares_; ++i) {
    Share& share = shares_[static_cast<std::size_t>(phase * num_shares_ + (first_share + i) % num_shares_)];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const std::int64_t item = share.next.fetch_add(1, std::memory_order_relaxed);
      if (item >= share.end) break;
      run(item);
      ++count;
    }
  }
  return count;
}

void Program::take_part() {
  const auto count = static_cast<std::int64_t>(phases_.size());
  const std::int64_t own = entered_.fetch_add(1, std::memory_order_relaxed) % num_shares_;
  std::int64_t at = stage_.load(std::memory_order_acquire);
  while (at < count) {
    if (const std::int64_t ran = run_items(at, own); ran > 0) {
      Phase& phase = phases_[static_cast<std::size_t>(at)];
      if (phase.done.fetch_add(ran, std::memory_order_acq_rel) + ran == phase.num_items) release_after(at);
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
