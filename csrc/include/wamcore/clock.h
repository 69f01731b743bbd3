#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include "wamcore/export.h"

namespace wam {

/// Monotonic time. Everything that runs a robot gets its time from here, so that tests and simulations can inject it.
class WAMCORE_API Clock {
 public:
  virtual ~Clock();
  /// Monotonic time, ns.
  virtual uint64_t now_ns() const noexcept = 0;
  /// Sleeps until the absolute time `deadline_ns`; returns at once if it has passed.
  virtual void sleep_until(uint64_t deadline_ns) noexcept = 0;
  /// From now on nobody but the sleepers themselves moves this clock (a runner shuts down). Real clocks do nothing.
  virtual void run_free() noexcept {}
};

/// The machine's monotonic clock.
class WAMCORE_API SystemClock final : public Clock {
 public:
  uint64_t now_ns() const noexcept override;
  void sleep_until(uint64_t deadline_ns) noexcept override;
};

/// A clock that moves only when told to. Sleepers wake when it is advanced past their deadline.
class WAMCORE_API ManualClock final : public Clock {
 public:
  explicit ManualClock(uint64_t start_ns = 0);
  uint64_t now_ns() const noexcept override;
  void sleep_until(uint64_t deadline_ns) noexcept override;
  void run_free() noexcept override;
  /// Moves time forward by `ns` and wakes whoever is due.
  void advance(uint64_t ns);
  /// Waits until `count` threads sleep on this clock: everything the last advance() caused has then happened. Gives up
  /// after `patience` s of real time; says whether they sleep.
  bool wait_for_sleepers(int count, double patience = 10.0);

 private:
  mutable std::mutex mutex_;
  std::condition_variable moved_;
  std::condition_variable asleep_;
  uint64_t now_;                     // ns
  std::vector<uint64_t> deadlines_;  // of the threads that sleep, ns; room is reserved, so sleeping allocates nothing
  bool free_ = false;                // sleep_until moves time itself
};

}  // namespace wam
