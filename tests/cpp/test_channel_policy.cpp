// A policy whose channels are not the robot's joints: what goes in and what comes out is translated, plans included.
#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"
#include "wamcore/channel_policy.h"

using namespace wam;
using namespace fixture;
using check::uniform;

namespace {

/// Answers with rows that it is told, and keeps what it is asked.
class Inner final : public TestPolicy {
 public:
  Inner() : TestPolicy([](const Observation&, ActionChunk&) {}, 2) {}
  void infer(const Observation& obs, ActionChunk& out) override {
    TestPolicy::infer(obs, out);
    seen = obs;
    out.q = answer;
  }
  Continuity continuity() const noexcept override { return Continuity::guided; }
  void extend(const Observation& obs, const Continuation& plan, ActionChunk& out) override {
    infer(obs, out);
    asked = plan;
  }
  Observation seen;
  Continuation asked;
  std::vector<double> answer = {0, 0, 0, 0};
};

}  // namespace

TEST(joints_become_channels_and_back) {
  const auto inner = std::make_shared<Inner>();
  const double a = uniform(0.5, 2), b = uniform(-1, 1);
  ChannelPolicy policy(inner, {{1, a, b}, {0, -2.0, 0.5}}, {{0, -2.0, 0.5}, {1, a, b}, {1, 1.0, 0.0}});
  CHECK(policy.dof() == 2 && policy.horizon() == 2 && policy.dt() == kDt && policy.continuity() == Continuity::guided);
  Observation obs{.cameras = {{.name = "top", .frames = 1, .height = 1, .width = 1, .rgb = {1, 2, 3}}},
                  .state = {uniform(-1, 1), uniform(-1, 1)},
                  .tick = 4,
                  .t_ns = 9};
  inner->answer = {uniform(-1, 1), uniform(-1, 1), uniform(-1, 1), uniform(-1, 1)};
  ActionChunk out;
  policy.infer(obs, out);
  CHECK(inner->seen.state.size() == 3 && inner->seen.tick == 4 && inner->seen.cameras[0].rgb == obs.cameras[0].rgb);
  CHECK_NEAR(inner->seen.state[0], (obs.state[0] - 0.5) / -2.0, 1e-12);
  CHECK_NEAR(inner->seen.state[1], (obs.state[1] - b) / a, 1e-12);
  CHECK(inner->seen.state[2] == obs.state[1] && out.obs_ns == 9);
  for (size_t r = 0; r < 2; ++r) {
    CHECK_NEAR(out.q[2 * r], -2.0 * inner->answer[2 * r + 1] + 0.5, 1e-12);
    CHECK_NEAR(out.q[2 * r + 1], a * inner->answer[2 * r] + b, 1e-12);
  }
  // a plan in joints that the inner policy repeats comes out as it went in
  policy.infer(obs, out);
  const Continuation plan{.rows = 2, .frozen = 1, .q = out.q};
  policy.extend(obs, plan, out);
  CHECK(inner->asked.rows == 2 && inner->asked.frozen == 1);
  for (size_t i = 0; i < 4; ++i) CHECK_NEAR(inner->asked.q[i], inner->answer[i], 1e-9);
}

TEST(a_chunk_of_another_width_is_left_to_the_safety_filter) {
  const auto inner = std::make_shared<Inner>();
  ChannelPolicy policy(inner, {{0}, {1}}, {});
  inner->answer = {1, 2, 3};
  ActionChunk out;
  policy.infer({.state = {0, 0}}, out);
  CHECK(out.q == inner->answer && inner->seen.state.empty());
  CHECK_THROWS(policy.infer({.state = {0}}, out), InputError, "wanted a state of 2 joints, got 1");
}

TEST(channels_that_do_not_fit_are_refused) {
  const auto inner = std::make_shared<Inner>();
  const auto make = [&](std::vector<Channel> actions, std::vector<Channel> states) {
    ChannelPolicy(inner, std::move(actions), std::move(states));
  };
  CHECK_THROWS(ChannelPolicy(nullptr, {}, {}), ConfigError, "wants a policy");
  CHECK_THROWS(make({{0}}, {}), ConfigError, "2 action channels, 1 are named");
  CHECK_THROWS(make({{0}, {0}}, {}), ConfigError, "every joint once, got 0");
  CHECK_THROWS(make({{0}, {2}}, {}), ConfigError, "every joint once, got 2");
  CHECK_THROWS(make({{0}, {1, 0.0}}, {}), ConfigError, "scale other than 0");
  CHECK_THROWS(make({{0}, {1}}, {{-1}}), ConfigError, "joints 0 to 1, got -1");
}

CHECK_MAIN()
