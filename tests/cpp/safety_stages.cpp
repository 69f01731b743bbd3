// What each stage of the filter refuses, and where it lets the robot be. Linked with test_safety.cpp.
#include <memory>

#include "safety_fixture.h"
#include "wamcore/error.h"

using namespace wam;
using namespace fixture;

namespace {

/// Joints that are all the same, with the velocity limit in rad/s.
JointLimits alike(size_t joints, double velocity) {
  JointLimits limits;
  for (size_t j = 0; j < joints; ++j) {
    limits.names.push_back(std::to_string(j));
    limits.position_min.push_back(-2.9);
    limits.position_max.push_back(2.9);
    limits.velocity.push_back(velocity);
    limits.acceleration.push_back(10);
  }
  return limits;
}

}  // namespace

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
  expect(Reason::chunk_age, [](ActionChunk& c) { c.obs_tick = std::numeric_limits<int64_t>::min(); });
  CHECK(filter.admit(chunk(), now, q) == Reason::none);
  expect(Reason::sequence, [](ActionChunk&) {});                     // the same again
  expect(Reason::sequence, [](ActionChunk& c) { c.sequence = 0; });  // reordered
  ActionChunk next = chunk();
  next.sequence = 2;
  CHECK(filter.admit(next, now, q) == Reason::none);
}

TEST(first_step_catches_zeros_and_relative_targets) {
  struct Robot {
    std::vector<double> home;  // rad
    double velocity;           // rad/s
  };
  const Robot robots[] = {{{0, 1.2, -1.6, -1.2}, 4.0},                  // the bundled model's
                          {{0, -0.96, 1.16, 0, -0.3, 0}, 3.0},          // an arm of ALOHA
                          {{0, -0.78, 0, -2.36, 0, 1.57, 0.78}, 2.2}};  // a Franka
  const Moment now{.tick = 3, .t_ns = 1'000'000'000};
  for (const Robot& robot : robots) {
    const JointLimits limits = alike(robot.home.size(), robot.velocity);
    SafetyFilter filter(limits, {});  // with what everybody gets who asks for nothing else
    CHECK(filter.seed(robot.home));
    std::vector<double> rows(robot.home.size(), 0.0);
    CHECK(filter.admit(good_chunk(limits, rows), now, robot.home) == Reason::first_step);
    for (double& v : rows) v = uniform(-0.3, 0.3);  // so much on from here, which is no place
    CHECK(filter.admit(good_chunk(limits, rows), now, robot.home) == Reason::first_step);
    CHECK(filter.admit(good_chunk(limits, robot.home), now, robot.home) == Reason::none);
  }
  const std::vector<double> home = robots[2].home;
  const JointLimits limits = alike(home.size(), robots[2].velocity);
  SafetyFilter filter(limits, {});
  filter.seed(home);
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

TEST(a_forbidden_pose_is_no_start) {
  JointLimits limits = random_limits(2);
  limits.position_min = {-1, -1}, limits.position_max = {1, 1};
  SafetyFilter filter(limits, {.workspace = std::make_shared<Fence>()});
  const std::vector<double> outside{0.4, 0.2}, inside{0.1, 0.2}, still{0.0, 0.0};
  std::vector<double> out(2);
  CHECK(!filter.seed(outside));
  CHECK(filter.count_of(Reason::workspace) == 1);
  CHECK(filter.step(inside, out).phase == Phase::unseeded);
  CHECK(filter.seed(inside));
  filter.estop();
  CHECK(filter.step(inside, out).phase == Phase::estop);
  CHECK(!filter.reset(outside, still));
  CHECK(filter.step(inside, out).phase == Phase::estop && out == inside);
  CHECK(filter.reset(inside, still));
  CHECK(filter.step(inside, out).phase == Phase::follow);
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
