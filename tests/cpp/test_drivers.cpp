// Drivers that stand between a run and a robot, or in its place: the fault injector and the replay.
#include <unistd.h>

#include <filesystem>

#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"
#include "wamcore/fault_injector.h"
#include "wamcore/flight_record.h"
#include "wamcore/replay_hal.h"

using namespace wam;
using namespace fixture;
using check::integer;
using check::uniform;

namespace {

/// A robot that measures the number of the read, and keeps what it is told.
class Counting final : public Hal {
 public:
  Description configure(const HalConfig&) override {
    return {.joints = robot().joints, .cameras = {{.name = "top", .height = 1, .width = 1}}};
  }
  void activate(Mode) override {}
  Status read(State& s) noexcept override {
    s.q[0] = s.q[1] = static_cast<double>(reads++);
    s.t_ns = 1000 + reads;
    return Status::ok;
  }
  Status write(const Command& c) noexcept override { return told.push_back(c.q[0]), Status::ok; }
  void deactivate() override {}
  void stop(StopKind) noexcept override {}
  void close() noexcept override {}
  Status frame(int, FrameView& view) noexcept override {
    pixel[0] = static_cast<uint8_t>(frames++);
    view = {pixel, 1, 1, 5000u + frames};
    return Status::ok;
  }
  uint64_t reads = 0, frames = 0;
  uint8_t pixel[3] = {};
  std::vector<double> told;
};

/// A faulty Counting and room for its answers.
struct Bench {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>(1'000'000);
  std::shared_ptr<Counting> robot = std::make_shared<Counting>();
  FaultInjector hal{robot, clock, 7};
  std::vector<double> q{0, 0}, dq{0, 0}, tau{0, 0};
  State state{.q = q, .dq = dq, .tau = tau};
  FrameView view;

  explicit Bench(const std::vector<HalFault>& faults) {
    for (const HalFault& f : faults) hal.inject(f);
    hal.configure({});
    hal.activate(Mode::position);
  }
  Status read() { return hal.read(state); }
  Status write(double to) {
    const std::vector<double> goal{to, to};
    return hal.write({.t_ns = 1, .valid_until_ns = 2, .q = goal});
  }
  Status frame() { return hal.frame(0, view); }
};

}  // namespace

TEST(without_faults_it_is_the_driver) {
  Bench b({});
  for (int i = 0; i < 5; ++i) {
    CHECK(b.read() == Status::ok && b.q[0] == i && b.state.t_ns == 1001u + static_cast<unsigned>(i));
    CHECK(b.write(i) == Status::ok && b.frame() == Status::ok && b.view.rgb[0] == i);
  }
  CHECK(b.robot->told == std::vector<double>({0, 1, 2, 3, 4}) && b.hal.struck(HalCall::read) == 0);
  CHECK(b.hal.configure({}).cameras.size() == 1 && b.hal.error().empty());
}

TEST(reads_fail_as_they_are_told) {
  Bench answer({{.from = 1, .count = 2, .status = Status::stale}});
  const Status wanted[] = {Status::ok, Status::stale, Status::stale, Status::ok};
  for (const Status s : wanted) CHECK(answer.read() == s);
  CHECK(answer.hal.struck(HalCall::read) == 2 && answer.q[0] == 3);

  Bench frozen({{.kind = FaultKind::freeze, .from = 2, .count = 3}});
  const double seen[] = {0, 1, 1, 1, 1, 5};
  const uint64_t times[] = {1001, 1002, 1002, 1002, 1002, 1006};
  for (size_t i = 0; i < 6; ++i)
    CHECK(frozen.read() == Status::ok && frozen.q[1] == seen[i] && frozen.state.t_ns == times[i]);

  Bench stuck({{.kind = FaultKind::stuck, .from = 2}});
  for (int i = 0; i < 4; ++i) CHECK(stuck.read() == Status::ok && stuck.state.t_ns == 1001u + static_cast<unsigned>(i));
  CHECK(stuck.q[0] == 1);

  Bench late({{.kind = FaultKind::late, .from = 1, .ticks = 3}});
  const double old[] = {0, 0, 0, 0, 1, 2};
  for (const double q : old)
    CHECK(late.read() == Status::ok && late.q[0] == q && late.state.t_ns == 1001u + static_cast<uint64_t>(q));

  Bench off({{.kind = FaultKind::offset, .from = 1, .count = 1, .joint = 1, .value = std::nan("")}});
  off.read();
  CHECK(off.read() == Status::ok && off.q[0] == 1 && std::isnan(off.q[1]));
  CHECK(off.read() == Status::ok && off.q[1] == 2);

  Bench skew(
      {{.kind = FaultKind::skew, .seconds = -0.1}, {.call = HalCall::frame, .kind = FaultKind::skew, .seconds = 1e-6}});
  CHECK(skew.read() == Status::ok && skew.state.t_ns == 1);  // before the beginning of time there is none
  CHECK(skew.frame() == Status::ok && skew.view.t_ns == 6001);

  Bench drop({{.kind = FaultKind::drop}});
  CHECK(drop.read() == Status::stale && drop.robot->reads == 1);
}

TEST(writes_and_frames_fail_as_they_are_told) {
  Bench b({{.call = HalCall::write, .kind = FaultKind::drop, .from = 1, .count = 1},
           {.call = HalCall::write, .kind = FaultKind::late, .from = 3, .count = 3, .ticks = 2},
           {.call = HalCall::write, .from = 6, .count = 1, .status = Status::retry},
           {.call = HalCall::frame, .kind = FaultKind::freeze, .from = 2, .count = 2},
           {.call = HalCall::frame, .kind = FaultKind::stuck, .from = 4, .count = 1},
           {.call = HalCall::frame, .from = 5, .count = 1, .status = Status::fault}});
  for (int i = 0; i < 7; ++i) {
    b.read();
    CHECK(b.write(i) == (i == 6 ? Status::retry : Status::ok));
    CHECK(b.frame() == (i == 5 ? Status::fault : Status::ok));
    if (i == 5) CHECK(b.hal.error() == "injected fault");
    if (i == 3) CHECK(b.view.rgb[0] == 1 && b.view.t_ns == 5002);
    if (i == 4) CHECK(b.view.rgb[0] == 1 && b.view.t_ns == b.clock->now_ns());
  }
  CHECK(b.robot->told == std::vector<double>({0, 2, 1, 2, 3}));  // 1 was lost; then each two ticks late
}

TEST(a_stall_takes_time_and_set_up_calls_throw) {
  Bench b({{.kind = FaultKind::stall, .from = 1, .count = 1, .seconds = 2.5}});
  b.read();
  CHECK(b.clock->now_ns() == 1'000'000);
  CHECK(b.read() == Status::ok && b.clock->now_ns() == 2'501'000'000);
  for (const HalCall call : {HalCall::configure, HalCall::activate, HalCall::deactivate}) {
    FaultInjector hal(std::make_shared<Counting>(), std::make_shared<ManualClock>());
    hal.inject({.call = call});
    CHECK_THROWS(
        {
          hal.configure({});
          hal.activate(Mode::position);
          hal.deactivate();
        },
        RobotError, std::string(name(call)) + ": injected fault");
  }
}

TEST(chance_is_seeded) {
  const uint64_t seed = static_cast<uint64_t>(integer(0, 1 << 30));
  const auto pattern = [&](uint64_t s) {
    FaultInjector hal(std::make_shared<Counting>(), std::make_shared<ManualClock>(), s);
    hal.inject({.probability = 0.3, .status = Status::stale});
    hal.configure({});
    hal.activate(Mode::position);
    std::vector<double> q(2), dq(2), tau(2);
    State state{.q = q, .dq = dq, .tau = tau};
    std::vector<bool> out;
    for (int i = 0; i < 2000; ++i) out.push_back(hal.read(state) == Status::stale);
    return out;
  };
  const std::vector<bool> once = pattern(seed);
  CHECK(once == pattern(seed) && once != pattern(seed + 1));
  const auto hits = std::count(once.begin(), once.end(), true);
  CHECK(hits > 480 && hits < 720);  // 600 and six standard deviations
}

TEST(what_cannot_be_is_refused) {
  const auto clock = std::make_shared<ManualClock>();
  CHECK_THROWS(FaultInjector(nullptr, clock), ConfigError, "wants a driver and a clock");
  FaultInjector hal(std::make_shared<Counting>(), clock);
  CHECK_THROWS(hal.inject({.call = HalCall::write, .kind = FaultKind::offset}), ConfigError, "cannot fail by 'offset'");
  CHECK_THROWS(hal.inject({.call = HalCall::activate, .kind = FaultKind::drop}), ConfigError, "cannot fail by 'drop'");
  CHECK_THROWS(hal.inject({.probability = 1.5}), ConfigError, "probability");
  CHECK_THROWS(hal.inject({.kind = FaultKind::late, .ticks = 0}), ConfigError, "ticks");
  CHECK_THROWS(hal.inject({.kind = FaultKind::stall, .seconds = -1}), ConfigError, "seconds");
  hal.configure({});
  CHECK_THROWS(hal.inject({.kind = FaultKind::late, .ticks = 9}), ConfigError, "before configure");
}

namespace {

/// Six seconds of a run with the mock robot, as a recording.
Recording recorded() {
  VirtualRun run(sine_policy(), {}, {2});
  run.runner->start();
  run.runner->run(6.0);
  const RunRecord r = run.runner->record();
  return {.joints = robot().joints, .t_ns = r.t_ns, .measured = r.measured, .command = r.command};
}

}  // namespace

TEST(a_replayed_flight_gives_the_same_commands) {
  const Recording flight = recorded();
  const auto clock = std::make_shared<ManualClock>(77'000'000'000);  // another day
  const auto hal = std::make_shared<ReplayHal>(clock, ReplayOptions{.recording = flight, .tolerance = 1e-9});
  VirtualRunner runner(sine_policy(), hal, limits(), {.clock = clock}, {2});
  runner.start();
  runner.run(5.9);
  CHECK(hal->compared() > 1000 && !hal->finished());
  const RunRecord r = runner.record();
  CHECK(std::equal(r.measured.begin(), r.measured.end(), flight.measured.begin()));
  CHECK(std::equal(r.command.begin(), r.command.end(), flight.command.begin()) && hal->deviation() == 0.0);
  runner.run(1.0);
  CHECK(hal->finished() && runner.running());  // it stands where the record ends
}

TEST(a_flight_comes_back_from_its_file) {
  VirtualRun run(sine_policy(), {}, {2});
  run.runner->start();
  run.runner->run(2.0);
  run.runner->estop();
  run.runner->run(0.5);
  const RunRecord mine = run.runner->record();
  const std::string path =
      (std::filesystem::temp_directory_path() / ("wamcore-flight-" + std::to_string(getpid()))).string();
  write_record(mine, {.why = "a \"test\"", .limits = limits()}, path);
  const FlightRecord back = read_record(path);
  const RunRecord& r = back.record;
  CHECK(back.notes.why == "a \"test\"" && back.notes.limits.names == limits().names && r.dof == kDof);
  CHECK(back.notes.limits.jerk[1] == limits().jerk_of(1) && back.notes.limits.position_min == limits().position_min);
  CHECK(r.t_ns == mine.t_ns && r.tick == mine.tick && r.command == mine.command && r.measured == mine.measured);
  CHECK(r.phase == mine.phase && r.reason == mine.reason && r.chunk == mine.chunk && r.seam == mine.seam);
  const auto same = [](double a, double b) { return a == b || (a != a && b != b); };
  CHECK(std::equal(r.reference.begin(), r.reference.end(), mine.reference.begin(), same));
  CHECK(std::equal(r.obs_age.begin(), r.obs_age.end(), mine.obs_age.begin(), same));
  const Recording recording = recording_of(back);
  CHECK(recording.joints[1].name == "joint1" && recording.command == mine.command);
  std::FILE* file = std::fopen(path.c_str(), "r+b");
  CHECK(file && std::fseek(file, 40, SEEK_SET) == 0 && std::fputc('#', file) == '#' && std::fclose(file) == 0);
  CHECK_THROWS(read_record(path), InputError, "is no flight record");
  std::filesystem::remove(path);
  CHECK_THROWS(read_record(path), InputError, "is no flight record");
}

TEST(another_policy_is_caught_by_the_tolerance) {
  const auto clock = std::make_shared<ManualClock>(1'000'000'000);
  const auto hal = std::make_shared<ReplayHal>(clock, ReplayOptions{.recording = recorded(), .tolerance = 0.05});
  auto other = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    fill_sine(o, c);
    for (double& q : c.q) q *= 1.4;
  });
  VirtualRunner runner(other, hal, limits(), {.clock = clock}, {2});
  runner.start();
  CHECK_THROWS(runner.run(5.0), RobotError, "is further than 0.05");
  CHECK(hal->deviation() <= 0.05);
}

TEST(a_recording_that_is_none_is_refused) {
  const auto clock = std::make_shared<ManualClock>();
  const auto open = [&](Recording r) { ReplayHal(clock, {.recording = std::move(r)}); };
  const Recording good{.joints = robot().joints, .t_ns = {1, 2}, .measured = {0, 0, 1, 1}, .command = {0, 0, 1, 1}};
  open(good);
  Recording bad = good;
  bad.t_ns = {2, 2};
  CHECK_THROWS(open(bad), ConfigError, "ascend");
  bad = good;
  bad.measured.pop_back();
  CHECK_THROWS(open(bad), ConfigError, "2 x 2 numbers, got 3 and 4");
  bad = good;
  bad.measured[1] = std::nan("");
  CHECK_THROWS(open(bad), ConfigError, "finite");
  CHECK_THROWS(open({}), ConfigError, "at least one joint");
  CHECK_THROWS(ReplayHal(clock, {.recording = good, .tolerance = 0.0}), ConfigError, "tolerance");
}

CHECK_MAIN()
