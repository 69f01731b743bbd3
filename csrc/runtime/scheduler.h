#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "wamcore/runner.h"

namespace wam {

/// Decides when the next inference starts. While the robot moves, that is execute_horizon ticks after the last start,
/// or earlier if the chunk would otherwise come after the one before has run out. The delay it reckons with is the 95 %
/// quantile of the last 32 real delays: a hiccup is remembered, but not for ever.
class ChunkScheduler {
 public:
  ChunkScheduler(Execution mode, int horizon, int execute_horizon)
      : mode_(mode), horizon_(horizon), execute_horizon_(execute_horizon) {}

  /// Is it time to start from the observation of `tick`, sampled at `sample_ns`? `waiting`: the robot stands and waits.
  /// `retry`: the last chunk was refused.
  bool due(int64_t tick, uint64_t sample_ns, bool waiting, bool retry) const noexcept;
  /// An inference starts from that observation.
  void started(int64_t tick, uint64_t sample_ns) noexcept;
  /// The chunk of the last start is there; it took `ticks` control ticks, rounded up.
  void finished(int ticks) noexcept;
  /// Delay reckoned with, in ticks; at least 1.
  int delay() const noexcept;

 private:
  static constexpr size_t kWindow = 32;

  Execution mode_;
  int horizon_;
  int execute_horizon_;
  int64_t last_tick_ = std::numeric_limits<int64_t>::min();  // of the last start
  uint64_t last_sample_ns_ = 0;
  std::array<int, kWindow> delays_{};
  size_t count_ = 0;  // delays ever recorded
};

}  // namespace wam
