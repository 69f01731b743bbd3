#pragma once

#include <cstdint>

namespace wam {

/// Where the robot is on its own time line. Tick k begins at position k * tick_ns. The time line runs with the clock,
/// except while the robot waits at a stand for a chunk: then it is paused and no row of any chunk falls due.
class Timeline {
 public:
  explicit Timeline(int64_t tick_ns) : tick_ns_(tick_ns) {}

  int64_t tick_ns() const noexcept { return tick_ns_; }
  bool paused() const noexcept { return paused_; }
  /// Position at the monotonic time `now_ns`, ns since tick 0.
  int64_t position(uint64_t now_ns) const noexcept {
    return paused_ ? position_ns_ : static_cast<int64_t>(now_ns) - origin_ns_;
  }
  /// Monotonic time of position 0; it moves with every pause.
  int64_t origin_ns() const noexcept { return origin_ns_; }
  /// The tick that contains a position.
  int64_t tick_at(int64_t position_ns) const noexcept {
    return position_ns >= 0 ? position_ns / tick_ns_ : -((-position_ns + tick_ns_ - 1) / tick_ns_);
  }
  /// Stands still at `position_ns`.
  void pause(int64_t position_ns) noexcept {
    paused_ = true;
    position_ns_ = position_ns;
  }
  /// Runs on from `position_ns` at the time `now_ns`.
  void resume(int64_t position_ns, uint64_t now_ns) noexcept {
    paused_ = false;
    origin_ns_ = static_cast<int64_t>(now_ns) - position_ns;
  }

 private:
  int64_t tick_ns_;
  bool paused_ = true;
  int64_t position_ns_ = 0;
  int64_t origin_ns_ = 0;
};

}  // namespace wam
