// The plan by which a joint comes to a stand, against carrying it out step by step.
#include <algorithm>
#include <cmath>

#include "check.h"
#include "fresh.h"
#include "safety/stop_plan.h"

using namespace wam;
using check::uniform;

namespace {

struct Carried {
  double end = 0, least = 0, most = 0, peak = 0, worst_jerk = 0, worst_acceleration = 0, velocity = 0, last = 0;
  int steps = 0;
};

Carried carry_out(StopPlan plan, double v, double a) {
  Carried c;
  double q = 0;
  c.peak = std::abs(v);
  while (!plan.done() && c.steps < 2'000'000) {
    const double next = plan.next();
    c.worst_jerk = std::max(c.worst_jerk, std::abs(next - a));
    c.worst_acceleration = std::max(c.worst_acceleration, std::abs(next));
    a = next;
    v += a;
    q += v;
    c.least = std::min(c.least, q);
    c.most = std::max(c.most, q);
    c.peak = std::max(c.peak, std::abs(v));
    ++c.steps;
  }
  c.worst_jerk = std::max(c.worst_jerk, std::abs(a));  // and then it stands
  c.end = q;
  c.velocity = v;
  return c;
}

}  // namespace

TEST(a_plan_is_what_carrying_it_out_gives) {
  for (int round = 0; round < 20'000; ++round) {
    // every other time whole numbers of rungs, where rounding decides between one more and one less
    const double jerk = round % 2 ? 1.0 / check::integer(1, 20) : std::pow(10.0, uniform(-2, 0.4));
    const StepBounds b{1.0, jerk};
    const double size = std::pow(10.0, uniform(-3, 2.5));
    const double a = round % 4 < 2 ? uniform(-1, 1) : std::clamp(jerk * check::integer(-20, 20), -1.0, 1.0);
    const double v = round % 3 ? uniform(-1, 1) * size : jerk * std::round(uniform(-1, 1) * size / jerk);
    const StopPlan plan(v, a, b);
    const Carried c = carry_out(plan, v, a);
    const double scale = 1e-9 * (1 + std::abs(v) * c.steps);
    CHECK_NEAR(c.velocity, 0.0, scale);
    CHECK_NEAR(plan.end(), c.end, scale);
    CHECK_NEAR(plan.least(), std::min(c.least, 0.0), scale);
    CHECK_NEAR(plan.most(), std::max(c.most, 0.0), scale);
    CHECK_NEAR(plan.peak_speed(), c.peak, scale);
    CHECK(c.worst_jerk <= b.jerk * (1 + 1e-9));
    CHECK(c.worst_acceleration <= b.acceleration * (1 + 1e-9));
    // no plan can be shorter than braking with all there is at once
    CHECK(c.steps >= static_cast<int>(std::abs(v)) - 1 || a * v < 0);
  }
}

TEST(a_plan_takes_little_more_time_than_there_must_be) {
  for (int round = 0; round < 5'000; ++round) {
    const StepBounds b{1.0, std::pow(10.0, uniform(-2, 0))};
    const double v = uniform(0, 1) * std::pow(10.0, uniform(-1, 2.5));
    const Carried c = carry_out(StopPlan(v, 0.0, b), v, 0.0);
    const double ramp =
        1.0 / b.jerk;  // in continuous time: v / a + a / j, or 2 sqrt(v / j) if the limit is not reached
    const double least = v > ramp ? v + ramp : 2 * std::sqrt(v / b.jerk);
    CHECK(c.steps <= least + 4);
  }
}

TEST(a_standing_joint_has_nothing_to_do) {
  CHECK(StopPlan().done());
  StopPlan plan(0.0, 0.0, {1.0, 0.1});
  CHECK(plan.done() && plan.next() == 0.0 && plan.end() == 0.0);
}

CHECK_MAIN()
