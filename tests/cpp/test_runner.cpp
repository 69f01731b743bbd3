// Whole runs in virtual time: merging by tick, modes, options. Nothing here sleeps and every run is repeatable.
#include <cstring>
#include <limits>

#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"
#include "runtime/scheduler.h"

using namespace wam;
using namespace fixture;
using check::integer;
using check::uniform;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kPeriod = 1.0 / 200;

}  // namespace

TEST(commands_follow_the_plan_by_absolute_tick_at_any_delay) {
  for (const int delay : {0, 1, 2, 4, 7}) {  // feasible: execute_horizon + delay < horizon
    VirtualRun run(sine_policy(), {.blend_ticks = 2}, {delay});
    run.runner->start();
    run.runner->run(6.0);
    run.runner->stop();
    const RunRecord r = run.runner->record();
    size_t compared = 0;
    for (size_t k = 0; k < r.t_ns.size(); ++k) {
      if (r.chunk[k] < 0 || r.tick[k] < 3.0 || r.phase[k] != static_cast<uint8_t>(Phase::follow)) continue;
      ++compared;
      for (int j = 0; j < kDof; ++j) CHECK_NEAR(r.command[k * kDof + j], sine(r.tick[k], j), 1e-3);
    }
    CHECK(compared > 900);
    const RunnerStats s = run.runner->stats();
    // the first chunk is waited for at a stand and loses nothing; every other one has lost `delay` rows
    CHECK(s.delay_ticks[0] + s.delay_ticks[static_cast<size_t>(delay)] >= s.chunks);
    CHECK(s.skipped_rows == (s.chunks - 1) * static_cast<uint64_t>(delay));
    CHECK(s.starved_ticks == 0 && s.late_chunks == 0 && s.refused_chunks == 0);
    CHECK(s.seam_gap.max < 2e-3);  // the plans agree: it is the same sine
  }
}

TEST(inference_starts_early_enough_for_its_delay) {
  // Asked for every 20 ticks; with a delay of 10 of 24 rows the scheduler has to start sooner, and does.
  VirtualRun run(sine_policy(24), {.execute_horizon = 20}, {10});
  run.runner->start();
  run.runner->run(12.0);
  run.runner->stop();
  const RunnerStats s = run.runner->stats();
  CHECK(s.starved_ticks == 0);
  CHECK(s.chunks == 1 + (120 - 10 - 10) / 12);
}

TEST(sync_mode_stops_the_robots_clock) {
  auto policy = sine_policy();
  VirtualRun run(policy, {.mode = Execution::sync, .execute_horizon = 8}, {0});
  run.runner->start();
  run.runner->run_until(40);
  const RunnerStats s = run.runner->stats();
  CHECK(s.delay_ticks[0] == s.chunks);  // never a late row
  CHECK(policy->calls == 6);            // ticks 0, 8, ..., 40
  CHECK(s.skipped_rows == 0 && s.starved_ticks == 0);
  run.runner->stop();
  const RunRecord r = run.runner->record();
  for (size_t k = 0; k < r.t_ns.size(); ++k)
    if (r.phase[k] == static_cast<uint8_t>(Phase::follow) && r.tick[k] > 3)
      for (int j = 0; j < kDof; ++j) CHECK_NEAR(r.command[k * kDof + j], sine(r.tick[k], j), 1e-3);
}

TEST(in_sync_mode_the_robot_stands_while_it_is_inferred) {
  auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    for (size_t i = 0; i < c.q.size(); ++i) c.q[i] = o.state[i % kDof] + 0.02 * static_cast<double>(i / kDof);
  });
  VirtualRun run(policy, {.mode = Execution::sync, .execute_horizon = 8}, {7});
  run.runner->start();
  run.runner->run(2.0 * (8 + 7) * kDt + 0.01);
  const RunnerStats s = run.runner->stats();
  CHECK(s.delay_ticks[0] == s.chunks && s.skipped_rows == 0);  // its time line stands meanwhile
  CHECK(policy->calls == 3 && run.runner->tick() == 16);       // at 0, 15 and 30 ticks of the clock
  CHECK(worst(run.hal->commands(), limits(), 1.0 / 200, {0, 0}).within());
}

TEST(sync_mode_may_execute_whole_chunks) {
  auto policy = sine_policy(8);
  VirtualRun run(policy, {.mode = Execution::sync, .execute_horizon = 8}, {0});
  run.runner->start();
  run.runner->run(5.0);
  CHECK(run.runner->running());
  CHECK(run.runner->stats().starved_ticks == 0);
  CHECK(run.runner->tick() >= 48);
}

TEST(a_run_is_bit_reproducible) {
  std::vector<int> delays;
  for (int i = 0; i < 37; ++i) delays.push_back(integer(0, 9));
  const auto once = [&] {
    uint64_t state = 12345;
    auto policy = std::make_shared<TestPolicy>([&](const Observation& obs, ActionChunk& out) {
      for (size_t i = 0; i < out.q.size(); ++i) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        out.q[i] = obs.state[i % kDof] + 0.2 * (static_cast<double>(state >> 40) / (1 << 24) - 0.5);
      }
    });
    VirtualRun run(policy, {.safety = {.hold_time = 100}}, delays, robot(1));
    run.runner->start();
    run.runner->run(20.0);
    run.runner->stop();
    return run.runner->record();
  };
  const RunRecord a = once(), b = once();
  CHECK(a.t_ns.size() > 4000 && a.t_ns == b.t_ns && a.chunk == b.chunk && a.phase == b.phase && a.reason == b.reason);
  CHECK(std::memcmp(a.command.data(), b.command.data(), a.command.size() * sizeof(double)) == 0);
  CHECK(std::memcmp(a.measured.data(), b.measured.data(), a.measured.size() * sizeof(double)) == 0);
}

TEST(any_policy_keeps_the_limits) {
  for (int round = 0; round < 10; ++round) {
    auto policy = std::make_shared<TestPolicy>([](const Observation& obs, ActionChunk& out) {
      const int kind = integer(0, 5);
      for (size_t i = 0; i < out.q.size(); ++i)
        out.q[i] = obs.state[i % kDof] + uniform(-1, 1) * (kind < 3 ? 0.2 : 2.0);
      if (kind == 4) out.q[static_cast<size_t>(integer(0, 31))] = kNaN;
      if (kind == 5) out.q[static_cast<size_t>(integer(0, 31))] = 1e308;
    });
    std::vector<int> delays;
    for (int i = 0; i < 20; ++i) delays.push_back(integer(0, 5));
    VirtualRun run(policy, {.blend_ticks = uniform(0, 4), .safety = {.hold_time = 1e3}}, delays);
    run_to_error(*run.runner, 30.0);  // a policy this bad may well be given up on
    run.runner->stop();
    const WorstRatio w = worst(run.hal->commands(), limits(), kPeriod, {0, 0});
    CHECK(w.position <= 1.0);
    CHECK(w.velocity <= 1.0 + 1e-9);
    CHECK(w.acceleration <= 1.0 + 1e-6);
  }
}

TEST(an_unblended_switch_jumps_and_a_blended_one_does_not) {
  // Plans that disagree by +-0.05 rad from chunk to chunk, on a robot whose limits would let the jump through.
  const auto run = [](double blend_ticks) {
    auto policy = std::make_shared<TestPolicy>([](const Observation& obs, ActionChunk& out) {
      fill_sine(obs, out);
      for (double& q : out.q) q += out.sequence % 2 ? 0.05 : -0.05;
    });
    VirtualRun v(policy, {.blend_ticks = blend_ticks}, {1}, robot(), limits(100, 1e6));
    v.runner->start();
    v.runner->run(5.0);
    v.runner->stop();
    return v.runner->stats();
  };
  const RunnerStats jump = run(0), blend = run(3);
  CHECK_NEAR(jump.seam_gap.p50, 0.1, 0.005);
  CHECK_NEAR(blend.seam_gap.p50, 0.1, 0.005);
  CHECK(jump.seam_jump.p50 > 0.09);
  CHECK(blend.seam_jump.max < 1e-3);
}

TEST(observations_carry_frames_at_the_trained_offsets) {
  int checked = 0;
  auto policy = std::make_shared<TestPolicy>([&](const Observation& obs, ActionChunk& out) {
    fill_sine(obs, out);
    CHECK(obs.cameras.size() == 2 && obs.cameras[0].name == "cam0" && obs.cameras[1].frames == 3);
    CHECK(obs.state.size() == kDof && obs.t_ns > 0);
    const size_t size = 4 * 6 * 3;
    for (const CameraFrames& camera : obs.cameras) {
      CHECK(camera.rgb.size() == 3 * size);
      // the mock's grey level counts frames, and one is taken each tick
      const auto frame_of = [&](int64_t tick) { return static_cast<uint8_t>(std::max<int64_t>(tick, 0)); };
      CHECK(camera.rgb[0] == frame_of(obs.tick - 8));
      CHECK(camera.rgb[size] == frame_of(obs.tick - 3));
      CHECK(camera.rgb[2 * size] == frame_of(obs.tick));
    }
    ++checked;
  });
  policy->offsets = {-8, -3, 0};
  VirtualRun run(policy, {.execute_horizon = 3}, {0}, robot(2));
  run.runner->start();
  run.runner->run(6.0);
  CHECK(checked >= 19);
}

TEST(what_does_not_fit_is_refused_before_anything_moves) {
  const auto start = [](auto&& change) {
    RunnerOptions options;
    MockOptions mock = robot();
    JointLimits l = limits();
    change(options, mock, l);
    VirtualRun run(sine_policy(), options, {1}, mock, l);
    run.runner->start();
  };
  start([](auto&...) {});
  CHECK_THROWS(start([](auto&, auto& m, auto&) { m.joints[1].name = "elbow"; }), ConfigError, "'elbow'");
  CHECK_THROWS(start([](auto&, auto& m, auto&) { m.joints.pop_back(); }), ConfigError, "1 joints");
  CHECK_THROWS(start([](auto&, auto& m, auto&) { m.joints[0].position_max = 1.9; }), ConfigError, "wider");
  CHECK_THROWS(start([](auto&, auto& m, auto&) { m.joints[0].velocity = 1.9; }), ConfigError, "velocity");
  CHECK_THROWS(start([](auto&, auto& m, auto&) { m.joints[0].modes = 2; }), ConfigError, "no position commands");
  CHECK_THROWS(start([](auto&, auto& m, auto&) { m.start = {2.1, 0}; }), RobotError, "inside their limits");
  CHECK_THROWS(start([](auto&, auto& m, auto&) { m.start = {kNaN, 0}; }), RobotError, "could not be read");
  CHECK_THROWS(start([](auto&, auto&, auto& l) { std::swap(l.position_min, l.position_max); }), ConfigError,
               "less than");
  CHECK_THROWS(start([](auto&, auto&, auto& l) { l.names.pop_back(); }), ConfigError, "position_min");
  CHECK_THROWS(start([](auto& o, auto&...) { o.control_hz = 5; }), ConfigError, "control_hz");
  CHECK_THROWS(start([](auto& o, auto&...) { o.control_hz = kNaN; }), ConfigError, "control_hz");
  CHECK_THROWS(start([](auto& o, auto&...) { o.execute_horizon = 17; }), ConfigError, "execute_horizon");
  CHECK_THROWS(start([](auto& o, auto&...) { o.blend_ticks = -1; }), ConfigError, "blend_ticks");
  CHECK_THROWS(start([](auto& o, auto&...) { o.command_validity = 0.001; }), ConfigError, "command_validity");
  CHECK_THROWS(start([](auto& o, auto&...) { o.record = -1; }), ConfigError, "record");
  CHECK_THROWS(VirtualRun(nullptr), ConfigError, "policy");
  CHECK_THROWS(VirtualRun(sine_policy(), {}, {}), ConfigError, "delay_ticks");
  CHECK_THROWS(VirtualRun(sine_policy(), {}, {-1}), ConfigError, "delay_ticks");
  CHECK_THROWS(VirtualRun(sine_policy(1)), ConfigError, "2 rows");
  auto policy = sine_policy();
  policy->offsets = {0, -3};
  VirtualRun run(policy);
  CHECK_THROWS(run.runner->start(), ConfigError, "ascending");
}

TEST(a_runner_runs_once) {
  VirtualRun run(sine_policy());
  run.runner->start();
  CHECK_THROWS(run.runner->start(), RobotError, "once");
  run.runner->stop();
  run.runner->stop();
  CHECK(!run.runner->step());
  CHECK_THROWS(run.runner->start(), RobotError, "once");
}

TEST(the_record_keeps_the_last_cycles) {
  VirtualRun run(sine_policy(), {.record = 0.5});
  run.runner->start();
  run.runner->run(3.0);
  const RunRecord r = run.runner->record();
  CHECK(r.dof == kDof && r.t_ns.size() == 100 && r.command.size() == 200 && r.reference.size() == 200);
  for (size_t k = 1; k < r.t_ns.size(); ++k) CHECK(r.t_ns[k] == r.t_ns[k - 1] + 5'000'000);
  CHECK(r.t_ns.back() == run.clock->now_ns());
}

TEST(scheduler_remembers_a_hiccup_but_not_for_ever) {
  ChunkScheduler scheduler(Execution::blend, 24, 12);
  CHECK(scheduler.due(0, 1, true, false));
  scheduler.started(0, 1);
  CHECK(!scheduler.due(0, 1, true, false) && scheduler.due(0, 2, true, false));
  CHECK(scheduler.delay() == 1);
  for (int i = 0; i < 40; ++i) scheduler.finished(3);
  CHECK(scheduler.delay() == 3);
  CHECK(!scheduler.due(11, 5, false, false) && scheduler.due(12, 5, false, false));
  CHECK(scheduler.due(1, 5, false, true));
  for (int i = 0; i < 3; ++i) scheduler.finished(18);
  CHECK(scheduler.delay() == 18);  // 3 of 32 are more than 5 %
  CHECK(scheduler.due(4, 5, false, false) && !scheduler.due(3, 5, false, false));
  for (int i = 0; i < 32; ++i) scheduler.finished(2);
  CHECK(scheduler.delay() == 2);
}

CHECK_MAIN()
