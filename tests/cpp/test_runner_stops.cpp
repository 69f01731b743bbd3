// What stops a run in virtual time, and what does not: refused chunks, starvation, resets, stops, drivers that fail.
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <limits>
#include <set>

#include "check.h"
#include "robot_fixture.h"
#include "wamcore/flight_record.h"

using namespace wam;
using namespace fixture;

namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kPeriod = 1.0 / 200;

uint64_t count(const RunnerStats& s, Reason r) { return s.safety[static_cast<size_t>(r)]; }

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST(nothing_unvetted_moves_the_robot) {
  struct Case {
    const char* what;
    TestPolicy::Fill fill;
    Reason reason;
  };
  const std::vector<Case> cases = {
      {"nan", [](auto&, ActionChunk& c) { c.q[7] = kNaN; }, Reason::non_finite},
      {"infinite", [](auto&, ActionChunk& c) { c.q[31] = std::numeric_limits<double>::infinity(); },
       Reason::non_finite},
      {"huge", [](auto&, ActionChunk& c) { c.q[3] = 1e308; }, Reason::range},
      {"too few rows", [](auto&, ActionChunk& c) { c.q.resize(20); }, Reason::shape},
      {"another horizon", [](auto&, ActionChunk& c) { c.horizon = 8, c.q.resize(16); }, Reason::shape},
      {"another dof", [](auto&, ActionChunk& c) { c.dof = 1, c.q.resize(16); }, Reason::shape},
      {"another dt", [](auto&, ActionChunk& c) { c.dt = 0.05; }, Reason::shape},
      {"negative horizon", [](auto&, ActionChunk& c) { c.horizon = -16, c.dof = -2; }, Reason::shape},
      {"another tick", [](auto&, ActionChunk& c) { c.obs_tick += 1; }, Reason::mismatch},
      {"another time", [](auto&, ActionChunk& c) { c.obs_ns -= 1; }, Reason::mismatch},
      {"old epoch", [](auto&, ActionChunk& c) { c.epoch -= 1; }, Reason::epoch},
      {"far away", [](auto&, ActionChunk& c) { c.q.assign(32, 1.9); }, Reason::first_step},
  };
  for (const Case& test : cases) {
    VirtualRun run(std::make_shared<TestPolicy>([&](const Observation& o, ActionChunk& c) {
      fill_sine(o, c);
      test.fill(o, c);
    }));
    const std::string text = run_to_error(*run.runner, 60.0);
    if (!contains(text, std::string("chunks in a row were refused")) || !contains(text, name(test.reason)))
      check::fail(__FILE__, __LINE__, std::string(test.what) + ": " + text);
    for (const double q : run.hal->commands()) CHECK(q == 0.0);
    CHECK(run.runner->stats().chunks == 0);
    CHECK(!run.hal->active());
  }
}

TEST(a_policy_that_throws_stops_the_run_and_is_heard) {
  auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    fill_sine(o, c);
    if (c.sequence == 3) throw InputError("the prompt is empty");
  });
  VirtualRun run(policy);
  CHECK_THROWS((run.runner->start(), run.runner->run(20.0)), InputError, "the prompt is empty");
  CHECK(!run.runner->running() && !run.hal->active() && run.hal->stops() == 1);
  const WorstRatio w = worst(run.hal->commands(), limits(), kPeriod, {0, 0});
  CHECK(w.acceleration <= 1 + 1e-6);  // it was braked, not cut
  const auto commands = run.hal->commands();
  CHECK(commands[commands.size() - 1] == commands[commands.size() - 3]);  // to a stand
  CHECK(!run.runner->step());
}

TEST(a_bad_chunk_leaves_the_old_one_in_force) {
  auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    fill_sine(o, c);
    if (c.sequence == 3) c.q[0] = kNaN;
  });
  VirtualRun run(policy, {}, {1});
  run.runner->start();
  run.runner->run(6.0);
  const RunnerStats s = run.runner->stats();
  CHECK(count(s, Reason::non_finite) == 1 && s.refused_chunks == 1);
  CHECK(count(s, Reason::hold) == 0 && s.starved_ticks == 0);  // the next try came in time
}

TEST(duplicated_and_reordered_chunks_are_refused) {
  ActionChunk first;
  auto policy = std::make_shared<TestPolicy>([&](const Observation& o, ActionChunk& c) {
    fill_sine(o, c);
    if (c.sequence == 2) first = c;
    if (c.sequence == 4) c.sequence = 2;  // an old number
    if (c.sequence == 6) c = first;       // the same chunk again
  });
  VirtualRun run(policy);
  run.runner->start();
  run.runner->run(6.0);
  const RunnerStats s = run.runner->stats();
  CHECK(count(s, Reason::sequence) == 1);
  CHECK(count(s, Reason::mismatch) == 1);
}

TEST(starvation_holds_then_recovers_with_the_next_chunk) {
  VirtualRun run(sine_policy(), {.safety = {.hold_time = 100}}, {1, 1, 40, 1, 1});
  run.runner->start();
  run.runner->run(7.0);
  const RunnerStats s = run.runner->stats();
  CHECK(s.starved_ticks > 20);
  CHECK(count(s, Reason::hold) > 0 && count(s, Reason::chunk_age) + count(s, Reason::obs_age) >= 1);
  CHECK(s.late_chunks == 1 && s.phase == Phase::follow);
  const WorstRatio w = worst(run.hal->commands(), limits(), kPeriod, {0, 0});
  CHECK(w.acceleration <= 1 + 1e-6);
}

TEST(starvation_for_too_long_stops_the_run) {
  VirtualRun run(sine_policy(), {.safety = {.hold_time = 0.5}}, {1, 100});
  const std::string text = run_to_error(*run.runner, 60.0);
  CHECK(contains(text, "no admissible command") && contains(text, "hold=") && contains(text, "Last measured ["));
  CHECK(!run.hal->active() && run.hal->last_stop() == StopKind::soft_stop);
  // 16 rows, half a second of holding, then a stand at once or nearly: the time is bounded
  CHECK(run.runner->stats().seconds < 0.1 * 17 + 0.1 + 0.5 + 0.2);
}

TEST(a_reset_of_the_session_voids_its_chunks_and_the_robot_waits) {
  auto policy = sine_policy();
  VirtualRun run(policy, {}, {2});
  run.runner->start();
  run.runner->run(2.05);
  CHECK(run.runner->stats().phase == Phase::follow);
  policy->now_epoch = 7;
  run.runner->run(2 * kPeriod);
  CHECK(run.runner->stats().phase == Phase::hold);
  run.runner->run(3.0);
  const RunnerStats s = run.runner->stats();
  CHECK(s.phase == Phase::follow && count(s, Reason::stop) == 0);
  CHECK(worst(run.hal->commands(), limits(), kPeriod, {0, 0}).acceleration <= 1 + 1e-6);
}

TEST(estop_brakes_latches_and_resets_at_a_stand) {
  VirtualRun run(sine_policy());
  run.runner->start();
  run.runner->run(2.0);
  CHECK(!run.runner->reset());
  run.runner->estop();
  run.runner->step();
  CHECK(!run.runner->reset());  // still moving
  run.runner->run(2.0);
  RunnerStats s = run.runner->stats();
  CHECK(s.phase == Phase::estop && run.runner->running());
  const uint64_t chunks = s.chunks;
  run.faults->inject({.kind = FaultKind::offset, .from = run.faults->tick(), .count = 41, .joint = 0, .value = kNaN});
  run.runner->run(0.2);
  CHECK(!run.runner->reset());  // blind
  CHECK(run.runner->reset());
  run.runner->run(2.0);
  s = run.runner->stats();
  CHECK(s.phase == Phase::follow && s.chunks > chunks);
  run.runner->estop();
  run.runner->stop();  // ends although the stop is latched
  CHECK(!run.hal->active());
}

TEST(an_emergency_stop_leaves_its_motion_on_record_however_long_the_robot_stands) {
  const auto folder = std::filesystem::temp_directory_path() / ("wamcore_estop_" + std::to_string(getpid()));
  // far: the sine goes on for a minute while the robot stands
  VirtualRun run(sine_policy(), {.record = 30.0, .dump = folder.string(), .safety = {.first_step_time = 10.0}});
  run.runner->start();
  std::vector<std::string> paths;
  for (int stop = 0; stop < 2; ++stop) {
    run.runner->run(3.0);
    CHECK(run.runner->stats().phase == Phase::follow);
    const uint64_t pressed = run.clock->now_ns();
    run.runner->estop();
    run.runner->run(60.0);
    paths = run.runner->stats().dumps;
    CHECK(paths.size() == static_cast<size_t>(stop) + 1);
    const RunRecord file = read_record(paths.back()).record;
    const size_t n = file.t_ns.size();
    // the motion before, the braking, and two seconds of the stand
    CHECK(file.t_ns[0] < pressed - 2'900'000'000 && file.t_ns[n - 1] > pressed + 1'900'000'000);
    size_t at = 0;
    while (file.t_ns[at] < pressed) ++at;
    const auto speed = [&](size_t k) { return (file.command[k * kDof + 1] - file.command[k * kDof - 1]) / kPeriod; };
    CHECK(std::abs(speed(at)) > 0.1 && speed(n - 1) == 0.0);
    // meanwhile the last seconds hold nothing but the stand
    const RunRecord last = run.runner->record();
    CHECK(last.t_ns.front() > pressed + 20'000'000'000);
    CHECK(run.runner->reset());
  }
  run.runner->stop();
  paths = run.runner->stats().dumps;
  CHECK(paths.size() == 3 && std::set(paths.begin(), paths.end()).size() == 3 &&
        run.runner->stats().dump_error.empty());
  std::filesystem::remove_all(folder);
}

TEST(evidence_that_cannot_be_written_is_told_and_ends_no_run) {
  const auto file = std::filesystem::temp_directory_path() / ("wamcore_no_folder_" + std::to_string(getpid()));
  std::ofstream(file) << "a file, and no folder";
  VirtualRun run(sine_policy(), {.dump = (file / "flight").string(), .safety = {.first_step_time = 10.0}});
  run.runner->start();
  run.runner->run(3.0);
  run.runner->estop();
  run.runner->run(5.0);
  CHECK(contains(run.runner->stats().dump_error, "could not write") && run.runner->stats().dumps.empty());
  CHECK(run.runner->running() && run.runner->reset());
  run.runner->run(3.0);
  CHECK(run.runner->stats().phase == Phase::follow);
  std::filesystem::remove(file);
}

TEST(a_step_within_a_step_ends_the_run) {
  VirtualRunner* runner = nullptr;
  VirtualRun run(std::make_shared<TestPolicy>([&](const Observation& o, ActionChunk& c) {
    if (runner) runner->reset();
    fill_sine(o, c);
  }));
  run.runner->start();
  runner = run.runner.get();
  CHECK_THROWS(run.runner->run(5.0), RobotError, "no step that goes on");
  CHECK(!run.runner->running() && !run.hal->active());
}

TEST(driver_faults_stop_the_robot_and_surface) {
  struct Case {
    HalFault fault;
    const char* text;
  };
  const std::vector<Case> cases = {
      {{.from = 300}, "could not read the joints: injected fault"},
      {{.call = HalCall::write, .from = 300}, "did not take a command: injected fault"},
      {{.call = HalCall::write, .from = 300, .status = Status::retry}, "took no command for longer"},
      {{.from = 300, .status = Status::stale}, "no admissible command"},
      {{.call = HalCall::frame, .from = 100}, "camera 'cam0' failed"},
      {{.call = HalCall::configure}, "FaultInjector.configure"},
      {{.call = HalCall::activate}, "FaultInjector.activate"},
      {{}, "joints could not be read"},
  };
  for (const Case& test : cases) {
    VirtualRun run(sine_policy(), {}, {1}, robot(1));
    run.faults->inject(test.fault);
    const std::string text = run_to_error(*run.runner, 30.0);
    if (!contains(text, test.text)) check::fail(__FILE__, __LINE__, std::string(test.text) + " / " + text);
    CHECK(!run.runner->running() && !run.hal->active());
    CHECK(worst(run.hal->commands(), limits(), kPeriod, {0, 0}).acceleration <= 1 + 1e-6);
  }
  // a driver that cannot be left in order says so
  VirtualRun run(sine_policy());
  run.faults->inject({.call = HalCall::deactivate});
  run.runner->start();
  run.runner->run(1.0);
  CHECK_THROWS(run.runner->stop(), RobotError, "deactivate");
}

TEST(passing_hiccups_do_not_stop_the_robot) {
  VirtualRun run(sine_policy());
  run.faults->inject({.from = 100, .count = 10, .status = Status::stale});
  run.faults->inject({.call = HalCall::write, .from = 200, .count = 10, .status = Status::retry});
  run.runner->start();
  run.runner->run(5.0);
  const RunnerStats s = run.runner->stats();
  CHECK(s.stale_reads == 10 && s.stale_writes == 10 && count(s, Reason::hold) == 0);
}

TEST(an_estop_of_the_device_latches_ours) {
  VirtualRun run(sine_policy());
  run.faults->inject({.from = 300, .count = 5, .status = Status::estop});
  run.runner->start();
  run.runner->run(4.0);
  CHECK(run.runner->stats().phase == Phase::estop);
  CHECK(run.runner->reset());
}

TEST(frozen_camera_and_frozen_joints_age_the_observation) {
  VirtualRun run(sine_policy(), {}, {1}, robot(1));
  run.faults->inject({.call = HalCall::frame, .kind = FaultKind::freeze, .from = 100});
  const std::string text = run_to_error(*run.runner, 30.0);
  CHECK(contains(text, "obs_age="));
  CHECK(worst(run.hal->commands(), limits(), kPeriod, {0, 0}).acceleration <= 1 + 1e-6);
  VirtualRun blind(sine_policy());
  blind.runner->start();
  blind.runner->run(1.0);
  blind.faults->inject({.kind = FaultKind::offset, .value = kNaN});
  CHECK(contains(run_to_error(*blind.runner, 30.0), "no admissible command"));
}

TEST(a_robot_that_stands_where_it_may_not_be_is_refused) {
  struct Fence final : Workspace {
    bool allows(std::span<const double> q) const noexcept override { return q[0] <= 0.5; }
  };
  MockOptions beyond = robot();
  beyond.start = {0.6, 0.0};
  VirtualRun run(sine_policy(), {.safety = {.workspace = std::make_shared<Fence>()}}, {1}, beyond);
  CHECK_THROWS(run.runner->start(), RobotError, "the workspace forbids the pose in which the robot stands, [0.6000");
  CHECK(!run.hal->active() && !run.runner->running() && run.hal->commands().empty());
}

TEST(seconds_are_a_number) {
  VirtualRun run(sine_policy());
  run.runner->start();
  CHECK_THROWS(run.runner->run(kNaN), InputError, "a number of seconds");
  run.runner->run(-1.0);
  CHECK(run.runner->stats().cycles == 0);
  Runner threaded(sine_policy(), run.hal, limits());
  CHECK_THROWS(threaded.wait(kNaN), InputError, "a number of seconds");
}

TEST(dead_man_time_stops_the_device_without_us) {
  auto clock = std::make_shared<ManualClock>(1);
  MockHal hal(clock, robot());
  hal.configure({});
  hal.activate(Mode::position);
  const std::vector<double> far{1.0, 1.0};
  CHECK(hal.write({.t_ns = 1, .valid_until_ns = 20'000'001, .q = far}) == Status::ok);
  clock->advance(1'000'000'000);  // nobody writes for a second
  std::vector<double> q(2), dq(2), tau(2);
  State state{.q = q, .dq = dq, .tau = tau};
  CHECK(hal.read(state) == Status::ok);
  CHECK_NEAR(q[0], 1 - std::exp(-0.02 / 0.05), 1e-12);  // it moved for the 20 ms that were granted
  CHECK(dq[0] == 0.0 && hal.lapses() == 1);
}

CHECK_MAIN()
