// What the servo itself watches: what is measured, how old it is, what the driver answers, pauses and resets. Built
// once without each watch, see CMakeLists.txt: then a test here must fail.
#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"

using namespace wam;
using namespace fixture;

namespace {

constexpr double kPeriod = 1.0 / 200;  // s, of the servo
constexpr uint64_t kFrom = 600;        // cycle from which on a driver fails

bool follows(const RunRecord& r, size_t k) { return r.phase[k] == static_cast<uint8_t>(Phase::follow); }

/// Cycles from kFrom on until the first that does not follow.
size_t still_followed(const RunRecord& r) {
  size_t k = kFrom;
  while (k < r.t_ns.size() && follows(r, k)) ++k;
  return k - kFrom;
}

size_t cycles(double seconds) { return static_cast<size_t>(seconds / kPeriod + 0.5); }

/// Runs with a driver that fails from kFrom on, until the run ends or 6 s are over; gives what was said.
std::string fail(VirtualRun& run, HalFault fault) {
  fault.from = kFrom;
  run.faults->inject(fault);
  return run_to_error(*run.runner, 6.0);
}

/// A policy that notes of which time each chunk's observation was.
std::shared_ptr<TestPolicy> noting(std::vector<uint64_t>& times) {
  times.push_back(0);  // numbers begin with 1
  return std::make_shared<TestPolicy>([&times](const Observation& o, ActionChunk& c) {
    fill_sine(o, c);
    times.push_back(o.t_ns);
  });
}

}  // namespace

TEST(without_measured_joints_nothing_is_followed_for_longer_than_their_age) {
  for (const HalFault& fault :
       {HalFault{.status = Status::stale}, HalFault{.kind = FaultKind::freeze},
        HalFault{.kind = FaultKind::offset, .joint = 1, .value = std::numeric_limits<double>::quiet_NaN()}}) {
    for (const double age : {0.05, 0.1, 0.3}) {
      VirtualRun run(sine_policy(), {.max_state_age = age, .safety = {.hold_time = 60.0}});
      fail(run, fault);
      const size_t followed = still_followed(run.runner->record());
      CHECK(followed >= cycles(age) - 2 && followed <= cycles(age) + 1);
    }
  }
}

TEST(joints_from_the_future_are_of_another_clock) {
  VirtualRun run(sine_policy(), {.safety = {.hold_time = 60.0}});
  fail(run, {.kind = FaultKind::skew, .seconds = 1.0});
  CHECK(still_followed(run.runner->record()) <= 1);
}

TEST(a_chunk_is_not_followed_beyond_its_age_though_it_has_rows) {
  for (const double age : {0.9, 1.2}) {
    VirtualRun run(sine_policy(), {.max_chunk_age = age, .safety = {.hold_time = 60.0}}, {1, 14, 14});
    run.runner->start();
    run.runner->run(6.0);
    const RunRecord r = run.runner->record();
    size_t old = 0, held = 0;
    for (size_t k = 0; k < r.t_ns.size(); ++k) {
      old += follows(r, k) && r.obs_age[k] > age + 1e-6;
      held += !follows(r, k) && r.chunk[k] >= 0 && r.obs_age[k] > age && r.obs_age[k] < 15 * kDt;
    }
    CHECK(old == 0 && held > 10);
  }
}

TEST(a_driver_that_takes_no_command_ends_the_run_once_the_last_has_expired) {
  for (const Status status : {Status::retry, Status::stale})
    for (const double validity : {0.05, 0.2}) {
      VirtualRun run(sine_policy(), {.command_validity = validity});
      const std::string words = fail(run, {.call = HalCall::write, .status = status});
      CHECK(words.find("took no command") != std::string::npos);
      const size_t more = run.runner->stats().cycles - kFrom;
      CHECK(more >= cycles(validity) - 1 && more <= cycles(validity) + 2);
      CHECK(!run.hal->active() && run.hal->stops() > 0);
    }
}

TEST(the_devices_emergency_stop_latches_ours_however_it_says_so) {
  for (const HalCall call : {HalCall::read, HalCall::write}) {
    VirtualRun run(sine_policy());
    CHECK(fail(run, {.call = call, .count = 1, .status = Status::estop}).empty());
    const RunRecord r = run.runner->record();
    CHECK(still_followed(r) <= 1 && run.runner->stats().phase == Phase::estop);
    CHECK(std::equal(r.command.end() - kDof, r.command.end(), r.command.end() - 2 * kDof));
    CHECK(run.runner->reset());
  }
}

TEST(a_reset_of_the_policy_voids_the_chunk_in_execution) {
  auto policy = sine_policy();
  VirtualRun run(policy, {}, {8});
  run.runner->start();
  run.runner->run(3.02);
  CHECK(run.runner->stats().phase == Phase::follow);
  policy->now_epoch = 3;
  run.runner->run(2 * kPeriod);  // although an inference is on its way
  CHECK(run.runner->stats().phase != Phase::follow && run.runner->record().chunk.back() == -1);
}

TEST(a_pause_stands_and_what_was_seen_before_it_is_not_executed) {
  for (int round = 0; round < 20; ++round) {
    std::vector<uint64_t> times;
    VirtualRun run(noting(times), {}, {check::integer(2, 8)});
    run.runner->start();
    run.runner->run(3.0 + kPeriod * check::integer(0, 200));
    run.runner->pause();
    run.runner->run(0.5);
    RunRecord r = run.runner->record();
    CHECK(r.chunk.back() == -1 && std::equal(r.command.end() - kDof, r.command.end(), r.command.end() - 2 * kDof));
    const size_t paused = r.t_ns.size();
    const uint64_t since = run.clock->now_ns();
    run.runner->resume();
    run.runner->run(3.0);
    r = run.runner->record();
    size_t on = 0, of_before = 0;
    for (size_t k = paused; k < r.t_ns.size(); ++k) {
      if (r.chunk[k] < 0) continue;
      ++on;
      of_before += times[static_cast<size_t>(r.chunk[k])] + static_cast<uint64_t>(2 * kPeriod * 1e9) < since;
    }
    CHECK(on > 100 && of_before == 0);
  }
}

CHECK_MAIN()
