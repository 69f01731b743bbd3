#include "limiter.h"

#include <algorithm>
#include <cmath>

namespace wam {
namespace {

struct Interval {
  double low;
  double high;
};

/// Velocities after which the joint can still stop before either position bound.
Interval stoppable(double q, const JointBounds& b) noexcept {
  return {-stopping_velocity(std::max(q - b.position_min, 0.0), b.acceleration, b.period),
          stopping_velocity(std::max(b.position_max - q, 0.0), b.acceleration, b.period)};
}

void move(JointMotion& m, double velocity, const JointBounds& b) noexcept {
  const double q = std::clamp(m.q + velocity * b.period, b.position_min, b.position_max);
  m.a = (velocity - m.v) / b.period;
  m.v = velocity;
  m.q = q;
}

}  // namespace

double stopping_velocity(double room, double acceleration, double period) noexcept {
  // From velocity v the joint travels h * (v + (v - ah) + (v - 2ah) + ...) before it stands, the sum being over its
  // n + 1 positive terms: room / h = (n + 1) v - a h n (n + 1) / 2. First n for which v lies in [n ah, (n + 1) ah].
  const double step = acceleration * period;
  const double n = std::floor(0.5 * (std::sqrt(1.0 + 8.0 * room / (step * period)) - 1.0));
  return (room / period + 0.5 * step * n * (n + 1.0)) / (n + 1.0);
}

Limited follow(JointMotion& m, double target, double previous_target, const JointBounds& b) noexcept {
  const double reach = b.acceleration * b.period;
  const Interval stop = stoppable(m.q, b);
  const Interval allowed{std::max({m.v - reach, -b.velocity, stop.low}),
                         std::min({m.v + reach, b.velocity, stop.high})};
  const double goal = std::clamp(target, b.position_min, b.position_max);
  Limited limited;
  limited.position = goal != target;

  // The target's own velocity. A joint that was left behind may take the direct way only if it can keep up with the
  // target in the next period as well; otherwise it would fly past a target that stands.
  const double before = std::clamp(previous_target, b.position_min, b.position_max);
  const double drift = std::clamp((goal - before) / b.period, -b.velocity, b.velocity);
  const double direct = (goal - m.q) / b.period;
  if (direct >= allowed.low && direct <= allowed.high && (!m.behind || std::abs(direct - drift) <= reach)) {
    move(m, direct, b);
    m.q = goal;  // not q + v * period, which may differ in the last place
    m.behind = false;
    return limited;
  }
  // Out of reach in this period: close the distance with the target's own velocity plus the largest relative velocity
  // that still lets the joint settle on it, so that it neither overshoots a step nor trails a ramp for ever.
  m.behind = true;
  const double distance = goal - (m.q + drift * b.period);
  const double closing = stopping_velocity(std::abs(distance), b.acceleration, b.period);
  const double wanted = drift + std::copysign(closing, distance);

  limited.velocity = std::abs(direct) > b.velocity;
  limited.position |= direct > stop.high || direct < stop.low;
  limited.acceleration = std::abs(direct - m.v) > reach;
  move(m, std::min(std::max(wanted, allowed.low), allowed.high), b);
  return limited;
}

void brake(JointMotion& m, double fraction, const JointBounds& b) noexcept {
  const double reach = fraction * b.acceleration * b.period;
  const Interval stop = stoppable(m.q, b);
  const double slower = std::copysign(std::max(std::abs(m.v) - reach, 0.0), m.v);
  move(m, std::clamp(slower, stop.low, stop.high), b);
  m.behind = false;  // a target that comes next says where to go on from here
}

}  // namespace wam
