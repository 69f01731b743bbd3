#include "stop_plan.h"

#include <algorithm>
#include <cmath>

namespace wam {
namespace {

constexpr double kRound = 1e-9;  // a rung that rounding alone has made too long counts as a whole one

/// Sum of the rungs x - J, x - 2J, ... that are positive.
double rungs(double x, double jerk) noexcept {
  const double n = std::floor(x / jerk);
  return n * x - 0.5 * jerk * n * (n + 1.0);
}

/// Distance after n steps that start at velocity v and acceleration a and lower the acceleration by J each.
double descent(double v, double a, double jerk, double n) noexcept {
  return n * v + 0.5 * a * n * (n + 1.0) - jerk * n * (n + 1.0) * (n + 2.0) / 6.0;
}

}  // namespace

StopPlan::StopPlan(double v, double a, const StepBounds& bounds) noexcept
    : bounds_{bounds.acceleration, std::min(bounds.jerk, bounds.acceleration)} {  // so that no rung exceeds the limit
  const double jerk = bounds_.jerk;
  double left = v + std::copysign(rungs(std::abs(a), jerk), a);  // velocity if the acceleration were just released
  if (left < 0.0) {
    sign_ = -1.0;
    left = -left, v = -v, a = -a;
  }
  level_ = a;
  peak_speed_ = a > 0.0 ? std::max(left, -v) : v;
  const double first = a > 0.0 ? std::ceil(a / jerk) : 0.0;  // jerk steps until the acceleration is not positive
  const double shallow = first * jerk - a;                   // and how far it is then below zero
  double rest = left;                                        // velocity that the rungs do not take away
  if (a > 0.0 && left < shallow) {                           // a part of one step is enough
    descend_ = first - 1.0;
    extra_[0] = left;
  } else {
    // With the ladder down to -P, rest = v + (a^2 - J a) / 2J - J f (1 - f) / 2 - P^2 / J, f the fraction of P / J.
    const double f = shallow / jerk - std::floor(shallow / jerk);
    const double room = v + (a * a - jerk * a) / (2.0 * jerk) - 0.5 * jerk * f * (1.0 - f);
    const double deepest = std::min(std::sqrt(std::max(room * jerk, 0.0)), bounds.acceleration);
    const double more = std::max(std::floor((deepest - shallow) / jerk + kRound), 0.0);
    descend_ = first + more;
    const double peak = shallow + more * jerk;
    rest = std::max(room - peak * peak / jerk, 0.0);
    ladder_ = peak;  // for choose_peak; it becomes the next rung there
    choose_peak(rest);
  }
  const double down = descent(v, a, jerk, descend_);
  const double end = down + way_back();
  double dip = 0.0;
  if (v < 0.0) {  // the joint first goes on backwards
    const double b = a - 0.5 * jerk;
    const double root = b + std::sqrt(std::max(b * b + 2.0 * jerk * v, 0.0));
    const double steps = root > 0.0 ? std::clamp(std::ceil(-2.0 * v / root) - 1.0, 0.0, descend_) : descend_;
    dip = std::min(descent(v, a, jerk, steps), 0.0);
  }
  end_ = sign_ * end;
  least_ = sign_ > 0.0 ? std::min(dip, end) : -std::max(end, 0.0);
  most_ = sign_ > 0.0 ? std::max(end, 0.0) : -std::min(dip, end);
}

/// Takes `rest` of velocity away around the peak -P (in ladder_) so that neighbours never differ by more than the jerk.
void StopPlan::choose_peak(double rest) noexcept {
  const double peak = ladder_, jerk = bounds_.jerk, top = bounds_.acceleration;
  ladder_ = peak - jerk;
  if (peak + jerk <= top * (1.0 + kRound) && rest <= (2.0 * peak + jerk) * (1.0 + kRound)) {
    if (rest <= std::max(peak, jerk)) {
      extra_[0] = rest;
    } else if (rest <= 2.0 * peak - jerk) {
      extra_[0] = peak, extra_[1] = rest - peak;
    } else {
      extra_[0] = 0.5 * (rest + jerk), extra_[1] = 0.5 * (rest - jerk);
    }
    return;
  }
  if (rest <= std::max(peak, std::min(jerk, top))) {
    extra_[0] = rest;
    return;
  }
  const double least = std::max(top - jerk, 0.0);  // what may follow the acceleration limit
  hold_ = std::max(std::floor((rest - least) / top), 0.0);
  const double remains = std::max(rest - hold_ * top, 0.0), near = std::min(peak, remains);
  extra_[0] = std::max(near, remains - near);
  extra_[1] = std::min(near, remains - near);
}

/// Distance after the descent: an element that has l - 1 others before it acts on l - 1 steps' velocity.
double StopPlan::way_back() const noexcept {
  const double jerk = bounds_.jerk, peak = ladder_ + jerk, m = hold_;
  const double n = ladder_ > 0.0 ? std::ceil(ladder_ / jerk) : 0.0;  // rungs
  const double ladder = n * peak - 0.5 * jerk * n * (n + 1.0);
  double sum = 0.5 * bounds_.acceleration * m * (m - 1.0) + m * ladder + 0.5 * peak * n * (n - 1.0) -
               jerk * (n - 1.0) * n * (n + 1.0) / 3.0;
  double before = m;
  for (const double e : extra_) {
    if (e <= 0.0) break;
    const double c = std::clamp(std::ceil((peak - e) / jerk) - 1.0, 0.0, n);  // rungs that come first
    sum += e * (before + c) + (n - c) * peak - 0.5 * jerk * (n * (n + 1.0) - c * (c + 1.0));
    before += 1.0;
  }
  return sum;
}

double StopPlan::steps() const noexcept {
  return descend_ + hold_ + (ladder_ > 0.0 ? std::ceil(ladder_ / bounds_.jerk) : 0.0) + (extra_[0] > 0.0) +
         (extra_[1] > 0.0);
}

bool StopPlan::done() const noexcept { return descend_ <= 0.0 && hold_ <= 0.0 && ladder_ <= 0.0 && extra_[0] <= 0.0; }

double StopPlan::next() noexcept {
  if (descend_ > 0.0) {
    descend_ -= 1.0;
    level_ -= bounds_.jerk;
    return sign_ * level_;
  }
  if (hold_ > 0.0) {
    hold_ -= 1.0;
    return -sign_ * bounds_.acceleration;
  }
  if (extra_[0] > 0.0 && extra_[0] >= ladder_) {
    const double e = extra_[0];
    extra_[0] = extra_[1];
    extra_[1] = 0.0;
    return -sign_ * e;
  }
  if (ladder_ > 0.0) {
    const double rung = ladder_;
    ladder_ -= bounds_.jerk;
    return -sign_ * rung;
  }
  return 0.0;
}

}  // namespace wam
