#include "limiter.h"

#include <algorithm>
#include <cmath>

namespace wam {
namespace {

constexpr double kRound = 1e-9;  // share of a limit that rounding may exceed

/// What positions near `q` are rounded to.
double grain(double q) noexcept { return 1e-15 * (1.0 + std::abs(q)); }

/// By how much rounding may move the end of a plan that is carried out step by step.
double drift_of(const StopPlan& plan, double q) noexcept {
  const double n = plan.steps();
  return 1.2e-16 * n * (0.5 * n * plan.peak_speed() + std::abs(q));
}

/// Whether the step to acceleration `a` keeps all limits and leaves a way to stop that keeps them too; `plan` is it.
bool admissible(const JointMotion& m, double a, const JointBounds& b, StopPlan& plan) noexcept {
  const double v = m.v + a, q = m.q + v;
  if (std::abs(a - m.a) > b.jerk * (1 + kRound) || std::abs(a) > b.acceleration * (1 + kRound)) return false;
  if (std::abs(v) > b.velocity * (1 + kRound)) return false;
  plan = StopPlan(v, a, b.step());
  const double slack = grain(q) - drift_of(plan, q);
  return plan.peak_speed() <= b.velocity * (1 + kRound) && q + plan.most() <= b.position_max + slack &&
         q + plan.least() >= b.position_min - slack;
}

void move(JointMotion& m, double a, const StopPlan& plan, const JointBounds& b) noexcept {
  m.a = a;
  m.v += a;
  m.q = std::clamp(m.q + m.v, b.position_min, b.position_max);  // against rounding; the limits were checked
  m.stop = plan;
}

/// The greatest acceleration of the next step that can be released, rung by rung, within `room` of velocity.
double releasable(double room, double jerk) noexcept {
  // a + (a - J) + (a - 2J) + ... = room, over its n + 1 positive terms.
  const double n = std::floor(0.5 * (std::sqrt(1.0 + 8.0 * std::max(room, 0.0) / jerk) - 1.0));
  return (room + 0.5 * jerk * n * (n + 1.0)) / (n + 1.0);
}

/// A target that moves, seen from a joint that was left behind.
struct Chase {
  double goal;   // rad, now
  double drift;  // rad/step

  /// How far beyond the target (which moves on) the joint would settle after a step with acceleration `a`.
  double beyond(const JointMotion& m, double a, const JointBounds& b) const noexcept {
    return m.q + m.v + a + StopPlan(m.v + a - drift, a, b.step()).end() - goal;
  }
};

/// The acceleration in [low, high] after which the joint settles on the target, or just before it.
double settling(const JointMotion& m, const Chase& chase, double low, double high, const JointBounds& b) noexcept {
  double at_low = chase.beyond(m, low, b), at_high = chase.beyond(m, high, b);
  if (at_low >= 0.0) return low;
  if (at_high <= 0.0) return high;
  for (int i = 0; i < 6; ++i) {  // regula falsi, halving the value of an end that stays (Illinois)
    const double share = std::clamp(at_low / (at_low - at_high), 0.05, 0.95);
    const double middle = low + share * (high - low), value = chase.beyond(m, middle, b);
    if (value <= 0.0) {
      low = middle, at_low = value, at_high *= 0.5;
    } else {
      high = middle, at_high = value, at_low *= 0.5;
    }
  }
  return m.v >= chase.drift ? low : high;
}

/// Makes the step to `wanted`, or to what comes nearest to it between there and the stop plan.
void step_toward(JointMotion& m, double wanted, const JointBounds& b) noexcept {
  StopPlan plan;
  if (admissible(m, wanted, b, plan)) return move(m, wanted, plan, b);
  double good = m.stop.next(), bad = wanted;  // m.stop now is the way to stop after its own next step
  StopPlan best = m.stop;
  for (int i = 0; i < 7; ++i) {
    const double middle = 0.5 * (good + bad);
    if (admissible(m, middle, b, plan))
      good = middle, best = plan;
    else
      bad = middle;
  }
  move(m, good, best, b);
}

}  // namespace

Limited follow(JointMotion& m, double target, double previous_target, const JointBounds& b) noexcept {
  m.holds = false;
  // A joint that is beyond a soft limit may stay there or come back, not go on.
  const double low = std::min(b.soft_min, std::max(m.q, b.position_min));
  const double high = std::max(b.soft_max, std::min(m.q, b.position_max));
  const double goal = std::clamp(target, low, high), before = std::clamp(previous_target, low, high);
  const Chase chase{goal, std::clamp(goal - before, -b.velocity, b.velocity)};
  Limited limited;
  limited.position = goal != target;

  // The direct way. A joint that was left behind takes it only if it can keep up with the target afterwards;
  // otherwise it would fly past a target that stands.
  const double direct = goal - m.q - m.v, change = chase.drift - m.v - direct;
  const bool keeps_up = std::abs(change) <= std::min(b.jerk, b.acceleration) && std::abs(change - direct) <= b.jerk;
  StopPlan plan;
  if ((!m.behind || keeps_up) && admissible(m, direct, b, plan)) {
    move(m, direct, plan, b);
    m.q = goal;  // not the sum, which may differ in the last place
    m.behind = false;
    return limited;
  }
  limited.velocity = std::abs(goal - m.q) > b.velocity;
  limited.acceleration = std::abs(direct) > b.acceleration;
  limited.jerk = std::abs(direct - m.a) > b.jerk;
  if (!limited.velocity && !limited.acceleration && !limited.jerk) limited.position |= !m.behind;
  m.behind = true;

  double least = std::max({m.a - b.jerk, -b.acceleration, -releasable(b.velocity + m.v, b.jerk)});
  double most = std::min({m.a + b.jerk, b.acceleration, releasable(b.velocity - m.v, b.jerk)});
  if (least > most) least = most = std::clamp(0.0, std::min(least, most), std::max(least, most));
  step_toward(m, settling(m, chase, least, most, b), b);
  return limited;
}

void brake(JointMotion& m, const JointBounds& b) noexcept {
  m.holds = m.behind = false;  // a target that comes next says where to go on from here
  if (m.stop.done()) {         // what is left of the velocity is rounding
    m.v = m.a = 0.0;
    return;
  }
  const double a = m.stop.next();
  move(m, a, StopPlan(m.stop), b);
}

void hold(JointMotion& m, double fraction, const JointBounds& b) noexcept {
  const double limit = fraction * b.acceleration;
  m.behind = false;
  if (!m.holds && std::abs(m.a) > limit) {  // first down to the gentler limit
    step_toward(m, std::copysign(std::max(std::abs(m.a) - b.jerk, limit), m.a), b);
    return;
  }
  if (!m.holds) m.hold = StopPlan(m.v, m.a, {limit, b.jerk});
  m.holds = true;
  if (m.hold.done()) {
    m.v = m.a = 0.0;
    m.stop = StopPlan();
    return;
  }
  StopPlan plan, rest = m.hold;
  const double a = rest.next();
  if (!admissible(m, a, b, plan)) {
    brake(m, b);
    return;
  }
  move(m, a, plan, b);
  m.hold = rest;
}

}  // namespace wam
