#pragma once

namespace wam {

/// The limits of one joint for a limiter that is stepped every `period`.
struct JointBounds {
  double position_min;  // rad
  double position_max;  // rad
  double velocity;      // rad/s
  double acceleration;  // rad/s^2
  double period;        // s
};

/// What was last commanded to one joint.
struct JointMotion {
  double q = 0.0;       // rad
  double v = 0.0;       // rad/s: the last two positions over the period
  double a = 0.0;       // rad/s^2: the last two velocities over the period
  bool behind = false;  // the last command did not reach its target
};

/// Which limits changed the command of one step.
struct Limited {
  bool position = false;
  bool acceleration = false;
  bool velocity = false;
};

/// Largest velocity (rad/s) of the next step after which a joint can still stop within `room` (rad, >= 0) when it
/// brakes with `acceleration` (rad/s^2) every `period` (s). Exact in discrete time, not the v^2/2a of the continuum.
double stopping_velocity(double room, double acceleration, double period) noexcept;

/// Moves `motion` one period toward `target` (finite). `previous_target` is the target of the period before; their
/// difference is the target's own velocity, so that a limited joint catches up with a moving target.
/// The result is within all bounds and can always be braked inside the position bounds; a target that can be reached
/// within them is reached exactly. Jerk limiting will enter here: the motion already carries the acceleration.
Limited follow(JointMotion& motion, double target, double previous_target, const JointBounds& bounds) noexcept;

/// Moves `motion` one period while braking with `fraction` of the acceleration limit; ends at v = 0 and stays there.
void brake(JointMotion& motion, double fraction, const JointBounds& bounds) noexcept;

}  // namespace wam
