#pragma once

namespace wam {

/// How fast the motion of one joint may change, in units of the servo step: rad/step^2 and rad/step^3.
struct StepBounds {
  double acceleration;
  double jerk;
};

/// A way to bring a joint to a stand (velocity and acceleration exactly zero) within acceleration and jerk limits:
/// the acceleration goes down a ladder of full jerk steps, stays at its limit, and comes back up the ladder. One or two
/// smaller steps are sorted into the way back so that the velocity ends at zero exactly, in whole servo steps.
/// Everything is in closed form: planning costs the same for a long way and for a short one.
class StopPlan {
 public:
  /// A joint that stands.
  StopPlan() = default;
  /// From velocity `v` (rad/step) and acceleration `a` (rad/step^2).
  StopPlan(double v, double a, const StepBounds& bounds) noexcept;

  /// True once all of it has been carried out.
  bool done() const noexcept;
  /// The acceleration of the next step, rad/step^2.
  double next() noexcept;

  /// Where it ends, and the least and the most it gets to on the way, relative to where it began; rad.
  double end() const noexcept { return end_; }
  double least() const noexcept { return least_; }
  double most() const noexcept { return most_; }
  /// The greatest speed on the way, rad/step.
  double peak_speed() const noexcept { return peak_speed_; }
  /// How many steps are left.
  double steps() const noexcept;

 private:
  void choose_peak(double rest) noexcept;
  double way_back() const noexcept;

  double sign_ = 1.0;  // of the velocity that has to be taken away; everything below is mirrored to +1
  StepBounds bounds_{1.0, 1.0};
  double descend_ = 0.0;      // jerk steps down the ladder
  double level_ = 0.0;        // acceleration, while going down
  double hold_ = 0.0;         // steps at the acceleration limit
  double ladder_ = 0.0;       // magnitude of the next rung on the way up; none if <= 0
  double extra_[2] = {0, 0};  // magnitudes that are sorted into the way up, greater one first
  double end_ = 0.0, least_ = 0.0, most_ = 0.0, peak_speed_ = 0.0;
};

}  // namespace wam
