#pragma once

#include "stop_plan.h"

namespace wam {

/// The limits of one joint for a limiter that is stepped every `period`.
struct JointBounds {
  double position_min;  // rad
  double position_max;  // rad
  double soft_min;      // rad; targets are clamped to [soft_min, soft_max]
  double soft_max;      // rad
  double velocity;      // rad/step
  double acceleration;  // rad/step^2
  double jerk;          // rad/step^3
  StepBounds step() const { return {acceleration, jerk}; }
};

/// What was last commanded to one joint, in units of the servo step so that positions are sums of the others.
struct JointMotion {
  double q = 0.0;       // rad
  double v = 0.0;       // rad/step: the difference of the last two positions
  double a = 0.0;       // rad/step^2: the difference of the last two velocities
  StopPlan stop;        // how it can stand still from here within all limits; there always is one
  StopPlan hold;        // the gentler plan of a joint that holds
  bool behind = false;  // the last command did not reach its target
  bool holds = false;   // `hold` is being carried out
};

/// Which limits changed the command of one step.
struct Limited {
  bool position = false;
  bool jerk = false;
  bool acceleration = false;
  bool velocity = false;
};

/// Moves `motion` one step toward `target` (finite). `previous_target` is the target of the step before; their
/// difference is the target's own velocity, so that a limited joint catches up with a moving target.
/// The result is within all bounds, and so is the stop plan that it leaves behind; a target that can be reached within
/// them is reached exactly.
Limited follow(JointMotion& motion, double target, double previous_target, const JointBounds& bounds) noexcept;

/// Moves `motion` one step of its stop plan; ends at v = a = 0 and stays there.
void brake(JointMotion& motion, const JointBounds& bounds) noexcept;

/// The same with `fraction` of the acceleration limit, as far as the position limits leave room for that.
void hold(JointMotion& motion, double fraction, const JointBounds& bounds) noexcept;

}  // namespace wam
