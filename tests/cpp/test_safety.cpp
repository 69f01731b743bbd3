// The filter's promises, on fresh random limits and inputs: whatever comes in, what goes out keeps the limits.
#include <array>

#include "safety_fixture.h"

using namespace wam;
using namespace fixture;

namespace {

double wild_number() {
  static constexpr std::array special = {
      0.0, -0.0, 1e308, -1e308, kInf, -kInf, kNaN, std::numeric_limits<double>::denorm_min(), 1e16, -1e9};
  return integer(0, 3) == 0 ? special[static_cast<size_t>(integer(0, static_cast<int>(special.size()) - 1))]
                            : std::pow(10.0, uniform(-3, 6)) * (integer(0, 1) ? 1 : -1);
}

}  // namespace

TEST(any_input_keeps_the_limits) {
  for (int round = 0; round < 40; ++round) {
    const int dof = integer(1, 8);
    const JointLimits limits = random_limits(dof);
    const double h = 1.0 / integer(100, 1000);
    SafetyFilter filter(limits, {.period = h, .hold_time = 1e3, .hold_braking = uniform(0.1, 1)});
    const auto start = random_pose(limits);
    CHECK(filter.seed(start));
    Watch watch(limits, h, start);
    std::vector<double> out(dof), target = start;
    for (int k = 0; k < 4000; ++k) {
      const int kind = integer(0, 9);
      if (kind < 4) {  // wild numbers, every joint its own
        for (double& t : target) t = wild_number();
      } else if (kind < 7) {  // jumps inside the range
        target = random_pose(limits);
      } else if (kind < 9) {  // a small walk
        for (double& t : target) t += uniform(-0.01, 0.01);
      }
      const int run = integer(1, 30);
      for (int i = 0; i < run; ++i) {
        if (kind == 9)
          integer(0, 1) ? filter.step({}, out) : filter.wait(out);
        else
          filter.step(target, out);
        watch.see(out);
      }
    }
    watch.check_all();
  }
}

TEST(input_within_the_limits_passes_unchanged) {
  for (int round = 0; round < 100; ++round) {
    const JointLimits limits = random_limits(3);
    const double h = 1.0 / integer(100, 1000);
    SafetyFilter filter(limits, {.period = h});
    // q(t) = start + sum A (1 - cos wt): at rest at t = 0, and its bounds are known in closed form.
    std::array<std::array<double, 4>, 3> amplitude{}, omega{};
    std::vector<double> start(3);
    for (int j = 0; j < 3; ++j) {
      double travel = 0, speed = 0, push = 0, snatch = 0;
      for (int i = 0; i < 4; ++i) {
        amplitude[j][i] = uniform(-1, 1);
        omega[j][i] = uniform(0.2, 20);
        travel += 2 * std::abs(amplitude[j][i]);
        speed += std::abs(amplitude[j][i]) * omega[j][i];
        push += std::abs(amplitude[j][i]) * omega[j][i] * omega[j][i];
        snatch += std::abs(amplitude[j][i]) * omega[j][i] * omega[j][i] * omega[j][i];
      }
      const double room = (limits.position_max[j] - limits.position_min[j]) / 2;
      // it begins with a step of the acceleration, push, in the time of one period
      const double scale = 0.7 * std::min({room / travel, limits.velocity[j] / speed, limits.acceleration[j] / push,
                                           limits.jerk[j] / (snatch + push / h)});
      for (double& a : amplitude[j]) a *= scale;
      start[j] = (limits.position_max[j] + limits.position_min[j]) / 2;
    }
    CHECK(filter.seed(start));
    std::vector<double> target(3), out(3);
    int changed = 0;
    for (int k = 1; k < 3000; ++k) {
      for (int j = 0; j < 3; ++j) {
        target[j] = start[j];
        for (int i = 0; i < 4; ++i) target[j] += amplitude[j][i] * (1 - std::cos(omega[j][i] * k * h));
      }
      const Verdict verdict = filter.step(target, out);
      changed += verdict.reason != Reason::none || out != target;
    }
    CHECK(changed == 0);
  }
}

TEST(a_step_is_reached_without_overshoot_in_bounded_time) {
  for (int round = 0; round < 200; ++round) {
    const JointLimits limits = random_limits(1);
    const double h = 1.0 / integer(100, 1000), vmax = limits.velocity[0], amax = limits.acceleration[0];
    SafetyFilter filter(limits, {.period = h});
    const auto start = random_pose(limits), target = random_pose(limits);
    CHECK(filter.seed(start));
    const double distance = target[0] - start[0];
    const double jmax = std::min(limits.jerk[0], 2 * amax / h), far = std::abs(distance);
    // the three profiles that can be the slowest, one after the other, and a few periods of rounding up
    const double bound =
        far / vmax + vmax / amax + 2 * std::sqrt(far / amax) + 6 * std::cbrt(far / jmax) + 4 * amax / jmax + 12 * h;
    const double rung = jmax * h * h * h;  // rad by which one step of jerk moves the joint
    std::vector<double> out(1);
    double past = 0, backwards = 0, last = start[0];
    for (double t = 0; t < bound; t += h) {
      filter.step(target, out);
      past = std::max(past, (out[0] - target[0]) * (distance > 0 ? 1 : -1));
      backwards = std::max(backwards, (last - out[0]) * (distance > 0 ? 1 : -1));
      last = out[0];
    }
    CHECK(past <= 0.1 * rung + 1e-9);
    CHECK(backwards <= 20 * rung + 1e-9);
    CHECK(out[0] == target[0]);
  }
}

TEST(a_limited_joint_catches_up_with_a_moving_target) {
  for (int round = 0; round < 100; ++round) {
    JointLimits limits = random_limits(1);
    limits.position_min[0] = -1000;
    limits.position_max[0] = 1000;
    const double h = 0.002, speed = 0.7 * limits.velocity[0];
    SafetyFilter filter(limits, {.period = h});
    CHECK(filter.seed(std::vector<double>{0.0}));
    std::vector<double> out(1), target(1);
    bool reached = false;
    // starts 0.2 rad behind: at most 0.3 vmax of closing speed, plus the time to accelerate and settle
    const double bound = 0.2 / (0.3 * limits.velocity[0]) * 2 + 6 * limits.velocity[0] / limits.acceleration[0] +
                         6 * limits.acceleration[0] / limits.jerk[0] + 0.5;
    for (double t = h; t < bound; t += h) {
      target[0] = 0.2 + speed * t;
      filter.step(target, out);
      reached |= out[0] == target[0];
    }
    CHECK(reached);
    CHECK_NEAR(out[0], target[0], 1e-9);
  }
}

TEST(hold_stands_in_bounded_time_and_stays) {
  for (int round = 0; round < 100; ++round) {
    const JointLimits limits = random_limits(4);
    const double h = 0.002, braking = uniform(0.2, 1), hold = uniform(0, 3);
    SafetyFilter filter(limits, {.period = h, .hold_time = hold, .hold_braking = braking});
    const auto start = random_pose(limits);
    CHECK(filter.seed(start));
    Watch watch(limits, h, start);
    std::vector<double> out(4);
    double bound = 0;
    for (int j = 0; j < 4; ++j)
      bound = std::max(bound, limits.velocity[j] / (braking * limits.acceleration[j]) +
                                  3 * limits.acceleration[j] / std::min(limits.jerk[j], limits.acceleration[j] / h));
    for (int k = integer(1, 500); k > 0; --k) {
      filter.step(random_pose(limits), out);
      watch.see(out);
    }
    Verdict verdict;
    for (double t = 0; t < std::max(bound, hold) + 5 * h; t += h) {
      verdict = filter.step({}, out);
      watch.see(out);
    }
    CHECK(verdict.phase == Phase::stopped);
    for (int j = 0; j < 4; ++j) CHECK(filter.velocity(j) == 0.0);
    const auto stand = out;
    for (int k = 0; k < 50; ++k) {
      // a target that comes after the watchdog has stopped must not move the robot
      verdict = filter.step(start, out);
      CHECK(out == stand && verdict.phase == Phase::stopped);
    }
    watch.check_all();
    CHECK(filter.count_of(Reason::stop) > 0);
  }
}

TEST(holding_gives_way_to_a_fresh_target) {
  const JointLimits limits = random_limits(2);
  SafetyFilter filter(limits, {.period = 0.002, .hold_time = 1.0});
  const auto start = random_pose(limits), target = random_pose(limits);
  CHECK(filter.seed(start));
  std::vector<double> out(2);
  CHECK(filter.step(target, out).phase == Phase::follow);
  CHECK(filter.step({}, out).phase == Phase::hold);
  CHECK(filter.step(target, out).phase == Phase::follow);
  // waiting on purpose never turns into stopping
  for (int k = 0; k < 2000; ++k) CHECK(filter.wait(out).phase == Phase::hold);
  CHECK(filter.step(target, out).phase == Phase::follow);
  // not-a-number counts as no target
  CHECK(filter.step(std::vector<double>{0.0, kNaN}, out).phase == Phase::hold);
  CHECK(filter.count_of(Reason::non_finite) == 1);
  CHECK(filter.step(std::vector<double>{0.0}, out).phase == Phase::hold);
  CHECK(filter.count_of(Reason::shape) == 1);
}

TEST(estop_is_latched_until_reset_at_a_stand) {
  JointLimits limits = random_limits(2);
  SafetyFilter filter(limits, {.period = 0.002});
  const auto start = random_pose(limits), target = random_pose(limits);
  CHECK(filter.seed(start));
  Watch watch(limits, 0.002, start);
  std::vector<double> out(2), still(2, 0.0), moving{0.0, 0.5};
  for (int k = 0; k < 100; ++k) filter.step(target, out), watch.see(out);
  CHECK(!filter.reset(out, still));  // nothing to reset
  filter.estop();
  CHECK(filter.step(target, out).phase == Phase::estop);
  watch.see(out);
  for (int k = 0; k < 10000; ++k) {
    CHECK(filter.step(target, out).phase == Phase::estop);
    watch.see(out);
  }
  watch.check_all();
  CHECK(filter.velocity(0) == 0.0 && filter.velocity(1) == 0.0);
  CHECK(filter.admit(good_chunk(limits, out), {.tick = 0, .t_ns = 0, .epoch = 0}, out) == Reason::estop);
  CHECK(!filter.reset(out, moving));
  CHECK(!filter.reset(std::vector<double>{out[0], kNaN}, still));
  CHECK(!filter.reset(out, std::vector<double>{0.0, kNaN}));
  CHECK(filter.step(target, out).phase == Phase::estop);
  CHECK(filter.reset(out, still));
  CHECK(filter.step(target, out).phase == Phase::follow);
}

TEST(shut_down_brakes_for_good) {
  const JointLimits limits = random_limits(2);
  SafetyFilter filter(limits, {.period = 0.002});
  const auto start = random_pose(limits), target = random_pose(limits);
  filter.seed(start);
  std::vector<double> out(2);
  for (int k = 0; k < 50; ++k) filter.step(target, out);
  filter.shut_down();
  Verdict verdict;
  int steps = 0;
  while ((verdict = filter.step(target, out)).phase == Phase::stop && steps < 100000) ++steps;
  CHECK(verdict.phase == Phase::stopped);
}

CHECK_MAIN()
