#pragma once

#include <cstdint>
#include <vector>

#include "waypoints.h"

namespace wam {

/// The reference motion at servo rate: the spline of the chunk in execution, plus an offset that decays as a quintic
/// from the difference to the motion before the last switch down to zero. Position, velocity and acceleration are
/// therefore continuous across a switch, even one that comes while the offset of the switch before still decays.
/// Times are positions on the time line in ns; nothing here allocates after construction.
class Interpolator {
 public:
  /// `tick_ns` is the length of one control tick, ns.
  Interpolator(int dof, int64_t tick_ns);

  /// Follows `next` from `position_ns` on, starting from the motion `from` and blending over `blend_ns` (0 = a jump).
  /// Returns the largest distance between `from` and the new spline, rad: what a jump would have been.
  double switch_to(Waypoints* next, int64_t position_ns, int64_t blend_ns, const MotionSpan& from) noexcept;
  /// Leaves these joints out of the distance that switch_to returns: they are not interpolated.
  void leave_out(size_t joint) noexcept { counts_[joint] = false; }
  /// Follows nothing.
  Waypoints* release() noexcept;
  /// What is being followed; nullptr if nothing.
  const Waypoints* current() const noexcept { return current_; }
  /// The reference at `position_ns`; false if nothing is followed or its last row lies in the past.
  bool sample(int64_t position_ns, const MotionSpan& out) const noexcept;

 private:
  double chunk_time(const Waypoints& w, int64_t position_ns) const noexcept;  // s since row 0

  int64_t tick_ns_;
  Waypoints* current_ = nullptr;
  int64_t blend_start_ns_ = 0;
  double blend_s_ = 0.0;              // 0 = no blend in progress
  std::vector<double> coefficients_;  // [dof, 6] of the decaying offset, rad, time in s since blend_start_ns_
  std::vector<double> q_, v_, a_;     // [dof] scratch
  std::vector<bool> counts_;          // [dof] in the distance of a switch
};

}  // namespace wam
