// The filter's promises, on fresh random limits and inputs: whatever comes in, what goes out keeps the limits.
#include <array>
#include <limits>

#include "check.h"
#include "fresh.h"
#include "safety/limiter.h"
#include "wamcore/error.h"
#include "wamcore/safety.h"

using namespace wam;
using check::integer;
using check::uniform;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

JointLimits random_limits(int dof) {
  JointLimits limits;
  for (int j = 0; j < dof; ++j) {
    limits.names.push_back("joint" + std::to_string(j));
    const double middle = uniform(-2, 2), half = uniform(0.2, 3);
    limits.position_min.push_back(middle - half);
    limits.position_max.push_back(middle + half);
    limits.velocity.push_back(uniform(0.3, 4));
    limits.acceleration.push_back(std::pow(10.0, uniform(-0.5, 2)));
    limits.jerk.push_back(limits.acceleration.back() * std::pow(10.0, uniform(0, 3)));
  }
  return limits;
}

std::vector<double> random_pose(const JointLimits& limits) {
  std::vector<double> q;
  for (int j = 0; j < limits.dof(); ++j) q.push_back(uniform(limits.position_min[j], limits.position_max[j]));
  return q;
}

/// Watches a stream of commands and remembers the worst ratio to each limit.
struct Watch {
  const JointLimits& limits;
  double period;
  std::vector<double> q, v, a;
  double position = 0, velocity = 0, acceleration = 0, jerk = 0;
  bool finite = true;

  Watch(const JointLimits& l, double h, std::vector<double> start) : limits(l), period(h), q(std::move(start)) {
    v.assign(q.size(), 0.0);
    a.assign(q.size(), 0.0);
  }
  void see(const std::vector<double>& out) {
    for (size_t j = 0; j < q.size(); ++j) {
      finite &= std::isfinite(out[j]);
      const double speed = (out[j] - q[j]) / period;
      // positions are rounded to one ulp, so speeds to 2 ulp / h, accelerations to 4 ulp / h^2, jerks to 8 ulp / h^3
      const double ulp = 1e-15 * (1 + std::abs(out[j]));
      position = std::max({position, limits.position_min[j] - out[j], out[j] - limits.position_max[j]});
      velocity = std::max(velocity, (std::abs(speed) - 2 * ulp / period) / limits.velocity[j]);
      acceleration = std::max(acceleration,
                              (std::abs(speed - v[j]) / period - 4 * ulp / (period * period)) / limits.acceleration[j]);
      const double push = (speed - v[j]) / period;
      jerk = std::max(jerk, (std::abs(push - a[j]) / period - 8 * ulp / (period * period * period)) /
                                std::min(limits.jerk_of(static_cast<int>(j)), 2 * limits.acceleration[j] / period));
      a[j] = push;
      v[j] = speed;
      q[j] = out[j];
    }
  }
  void check_all() const {
    CHECK(finite);
    CHECK(position <= 0.0);
    CHECK(velocity <= 1.0 + 1e-9);
    CHECK(acceleration <= 1.0 + 1e-6);
    CHECK(jerk <= 1.0 + 1e-6);
  }
};

double wild_number() {
  static constexpr std::array special = {
      0.0, -0.0, 1e308, -1e308, kInf, -kInf, kNaN, std::numeric_limits<double>::denorm_min(), 1e16, -1e9};
  return integer(0, 3) == 0 ? special[static_cast<size_t>(integer(0, static_cast<int>(special.size()) - 1))]
                            : std::pow(10.0, uniform(-3, 6)) * (integer(0, 1) ? 1 : -1);
}

ActionChunk good_chunk(const JointLimits& limits, const std::vector<double>& q, int horizon = 8) {
  ActionChunk chunk;
  chunk.horizon = horizon;
  chunk.dof = limits.dof();
  chunk.dt = 0.1;
  chunk.sequence = 1;
  for (int i = 0; i < horizon; ++i) chunk.q.insert(chunk.q.end(), q.begin(), q.end());
  return chunk;
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

TEST(seed_refuses_what_it_cannot_vouch_for) {
  const JointLimits limits = random_limits(2);
  SafetyFilter filter(limits, {.seed_slack = 0.01});
  auto q = random_pose(limits);
  std::vector<double> out(2, 7.0);
  CHECK(filter.step(q, out).phase == Phase::unseeded);
  CHECK(out[0] == 7.0);
  CHECK(!filter.seed(std::vector<double>{kNaN, q[1]}));
  CHECK(!filter.seed(std::vector<double>{q[0]}));
  CHECK(!filter.seed(std::vector<double>{limits.position_max[0] + 0.02, q[1]}));
  CHECK(filter.seed(std::vector<double>{limits.position_max[0] + 0.009, q[1]}));
  CHECK(filter.position(0) == limits.position_max[0]);
}

TEST(each_stage_refuses_its_kind_of_chunk) {
  const JointLimits limits = random_limits(3);
  SafetyFilter filter(limits, {.period = 0.002, .horizon = 8, .dt = 0.1, .max_obs_age = 0.5});
  const auto q = random_pose(limits);
  CHECK(filter.seed(q));
  const Moment now{.tick = 12, .t_ns = 2'000'000'000, .epoch = 3};
  const auto chunk = [&] {
    ActionChunk c = good_chunk(limits, q);
    c.obs_tick = 10;
    c.obs_ns = 1'800'000'000;
    c.epoch = 3;
    return c;
  };
  const auto expect = [&](Reason reason, auto&& change) {
    ActionChunk c = chunk();
    change(c);
    const uint64_t before = filter.count_of(reason);
    const Reason got = filter.admit(c, now, q);
    if (got != reason) check::fail(__FILE__, __LINE__, std::string("wanted ") + name(reason) + ", got " + name(got));
    CHECK(filter.count_of(reason) == before + 1);
  };
  expect(Reason::shape, [](ActionChunk& c) { c.q.pop_back(); });
  expect(Reason::shape, [](ActionChunk& c) { c.dof = 2, c.q.resize(16); });
  expect(Reason::shape, [](ActionChunk& c) { c.horizon = 7, c.q.resize(21); });
  expect(Reason::shape, [](ActionChunk& c) { c.horizon = 0, c.q.clear(); });
  expect(Reason::shape, [](ActionChunk& c) { c.dt = 0.2; });
  expect(Reason::shape, [](ActionChunk& c) { c.dt = kNaN; });
  for (const double bad : {kNaN, kInf, -kInf})
    expect(Reason::non_finite, [&](ActionChunk& c) { c.q[static_cast<size_t>(integer(0, 23))] = bad; });
  for (const double bad : {1e308, -1e308, 50.0})
    expect(Reason::range, [&](ActionChunk& c) { c.q[static_cast<size_t>(integer(0, 23))] = bad; });
  expect(Reason::mismatch, [](ActionChunk& c) { c.obs_tick = 13; });
  expect(Reason::mismatch, [](ActionChunk& c) { c.obs_ns = 2'000'000'001; });
  expect(Reason::epoch, [](ActionChunk& c) { c.epoch = 2; });
  expect(Reason::obs_age, [](ActionChunk& c) { c.obs_ns = 1'400'000'000; });
  expect(Reason::chunk_age, [](ActionChunk& c) { c.obs_tick = 4; });
  CHECK(filter.admit(chunk(), now, q) == Reason::none);
  expect(Reason::sequence, [](ActionChunk&) {});                     // the same again
  expect(Reason::sequence, [](ActionChunk& c) { c.sequence = 0; });  // reordered
  ActionChunk next = chunk();
  next.sequence = 2;
  CHECK(filter.admit(next, now, q) == Reason::none);
}

TEST(first_step_catches_zeros_and_relative_targets) {
  JointLimits limits;
  for (int j = 0; j < 7; ++j) {
    limits.names.push_back(std::to_string(j));
    limits.position_min.push_back(-2.9);
    limits.position_max.push_back(2.9);
    limits.velocity.push_back(2.2);
    limits.acceleration.push_back(10);
  }
  const std::vector<double> home{0, -0.78, 0, -2.36, 0, 1.57, 0.78};
  SafetyFilter filter(limits, {});
  filter.seed(home);
  const Moment now{.tick = 3, .t_ns = 1'000'000'000};
  CHECK(filter.admit(good_chunk(limits, std::vector<double>(7, 0.0)), now, home) == Reason::first_step);
  CHECK(filter.admit(good_chunk(limits, home), now, {}) == Reason::first_step);
  CHECK(filter.admit(good_chunk(limits, home), now, std::vector<double>(7, kNaN)) == Reason::first_step);
  // only the row that is due counts: rows 0..2 lie in the past
  ActionChunk skewed = good_chunk(limits, home);
  for (int i = 0; i < 21; ++i) skewed.q[static_cast<size_t>(i)] = 0.0;
  CHECK(filter.admit(skewed, now, home) == Reason::none);
  SafetyFilter strict(limits, {.max_first_step = std::vector<double>(7, 0.1)});
  strict.seed(home);
  auto near = home;
  near[2] += 0.11;
  CHECK(strict.admit(good_chunk(limits, near), now, home) == Reason::first_step);
}

TEST(soft_margin_lets_back_but_not_on) {
  JointLimits limits = random_limits(1);
  limits.position_min[0] = -1, limits.position_max[0] = 1;
  SafetyFilter filter(limits, {.period = 0.002, .soft_margin = 0.1});
  std::vector<double> out(1);
  CHECK(filter.seed(std::vector<double>{0.95}));
  for (int k = 0; k < 20000; ++k) filter.step(std::vector<double>{1.0}, out);
  CHECK(out[0] == 0.95 && filter.count_of(Reason::position) > 0);
  for (int k = 0; k < 20000; ++k) filter.step(std::vector<double>{0.5}, out);
  CHECK(out[0] == 0.5);
  for (int k = 0; k < 20000; ++k) filter.step(std::vector<double>{1.0}, out);
  CHECK(out[0] == 0.9);
  CHECK_THROWS(SafetyFilter(limits, {.soft_margin = 1.0}), ConfigError, "soft_margin");
}

/// A fence at the diagonal of the first two joints.
struct Fence : Workspace {
  bool allows(std::span<const double> q) const noexcept override { return q[0] + q[1] <= 0.5; }
};

TEST(a_forbidden_pose_is_never_commanded) {
  uint64_t refused = 0;  // over all rounds: by chance the targets of one may stay away from the fence
  for (int round = 0; round < 20; ++round) {
    JointLimits limits = random_limits(2);
    limits.position_min = {-1, -1}, limits.position_max = {1, 1};
    limits.velocity = {1, 1}, limits.acceleration = {20, 20}, limits.jerk = {1000, 1000};
    SafetyFilter filter(limits, {.period = 0.005, .workspace = std::make_shared<Fence>(), .hold_braking = 0.3});
    const std::vector<double> start{-0.3, 0.1};
    CHECK(filter.seed(start));
    Watch watch(limits, 0.005, start);
    std::vector<double> out(2), target = start;
    double worst = -1;
    for (int k = 0; k < 5000; ++k) {
      if (k % 50 == 0) target = {uniform(-1, 1), uniform(-1, 1)};
      filter.step(k % 400 < 380 ? std::span<const double>(target) : std::span<const double>(), out);
      watch.see(out);
      worst = std::max(worst, out[0] + out[1]);
    }
    // joints that come to a stand at different times may cut a corner on the way; where they stand is allowed
    CHECK(worst <= 0.5 + 0.02);
    for (int k = 0; k < 2000; ++k) filter.step({}, out), watch.see(out);
    CHECK(out[0] + out[1] <= 0.5 + 1e-12);
    watch.check_all();
    refused += filter.count_of(Reason::workspace);
  }
  CHECK(refused > 0);
}

TEST(limits_are_checked) {
  const auto broken = [](auto&& change) {
    JointLimits limits = random_limits(3);
    change(limits);
    limits.validate();
  };
  random_limits(3).validate();
  CHECK_THROWS(broken([](auto& l) { l = {}; }), ConfigError, "no joints");
  CHECK_THROWS(broken([](auto& l) { l.position_min[1] = l.position_max[1]; }), ConfigError,
               "position_min of joint 'joint1'");
  CHECK_THROWS(broken([](auto& l) { std::swap(l.position_min, l.position_max); }), ConfigError, "less than");
  CHECK_THROWS(broken([](auto& l) { l.position_max[2] = kNaN; }), ConfigError, "not finite");
  CHECK_THROWS(broken([](auto& l) { l.position_min[2] = -kInf; }), ConfigError, "not finite");
  CHECK_THROWS(broken([](auto& l) { l.position_min[2] = -1e300; }), ConfigError, "at most 1e6");
  CHECK_THROWS(broken([](auto& l) { l.velocity[0] = 0; }), ConfigError, "velocity of joint 'joint0'");
  CHECK_THROWS(broken([](auto& l) { l.acceleration[0] = -1; }), ConfigError, "positive");
  CHECK_THROWS(broken([](auto& l) { l.jerk[1] = 0; }), ConfigError, "jerk of joint 'joint1'");
  CHECK_THROWS(broken([](auto& l) { l.jerk.pop_back(); }), ConfigError, "2 entries");
  CHECK_THROWS(broken([](auto& l) { l.velocity.pop_back(); }), ConfigError, "2 entries");
  CHECK_THROWS(broken([](auto& l) { l.names[1] = l.names[0]; }), ConfigError, "twice");
  CHECK_THROWS(SafetyFilter(random_limits(1), {.period = 0}), ConfigError, "period");
  CHECK_THROWS(SafetyFilter(random_limits(1), {.period = kNaN}), ConfigError, "period");
  CHECK_THROWS(SafetyFilter(random_limits(1), {.max_first_step = {0.1, 0.1}}), ConfigError, "max_first_step");
  CHECK_THROWS(SafetyFilter(random_limits(1), {.hold_braking = 0}), ConfigError, "hold_braking");
}

CHECK_MAIN()
