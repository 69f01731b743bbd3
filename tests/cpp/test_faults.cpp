// The fault matrix: what goes wrong on a robot, how far it still moves then, and what the flight record says.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>

#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"

using namespace wam;
using namespace fixture;
using check::integer;
using check::uniform;

namespace {

constexpr double kPeriod = 1.0 / 200;  // s
constexpr double kTop = 0.48;          // rad/s, fastest joint of the sine
// From kTop with half of 20 rad/s^2 and the default jerk limit: v^2 / 2a + v a / 2j, and a little for rounding.
constexpr double kHoldDistance = 0.02;  // rad

/// What happened after the robot stopped following: how far the commands went on, and how it ended.
struct Aftermath {
  double distance = 0.0;  // rad
  bool stands = false;    // the last commands are all the same
  Phase last = Phase::unseeded;
};

Aftermath aftermath(const RunRecord& r) {
  Aftermath out;
  const size_t n = r.t_ns.size();
  if (n == 0) return out;
  size_t from = n;  // the first cycle of the last stretch without following
  while (from > 0 && r.phase[from - 1] != static_cast<uint8_t>(Phase::follow)) --from;
  for (size_t k = from; k < n && from > 0; ++k)
    for (size_t j = 0; j < kDof; ++j)
      out.distance = std::max(out.distance, std::abs(r.command[k * kDof + j] - r.command[(from - 1) * kDof + j]));
  out.stands = n > 2 && std::equal(r.command.end() - kDof, r.command.end(), r.command.end() - 2 * kDof);
  out.last = static_cast<Phase>(r.phase[n - 1]);
  return out;
}

uint64_t count(const RunnerStats& s, Reason r) { return s.safety[static_cast<size_t>(r)]; }

constexpr uint64_t kFirst = 5;   // chunk from which on a policy fails
constexpr uint64_t kLate = 600;  // servo tick from which on a driver fails
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Spoil = std::function<void(ActionChunk&, const ActionChunk& before)>;

const Spoil repeated = [](ActionChunk& c, const ActionChunk& before) { c = before; };
const Spoil of_an_old_number = [](ActionChunk& c, const ActionChunk&) { c.sequence = 2; };
const Spoil of_another_epoch = [](ActionChunk& c, const ActionChunk&) { c.epoch = 9; };
const Spoil with_nan = [](ActionChunk& c, const ActionChunk&) { c.q[9] = kNaN; };
const Spoil far_off = [](ActionChunk& c, const ActionChunk&) { c.q.assign(c.q.size(), -1.9); };
const Spoil none_at_all = [](ActionChunk&, const ActionChunk&) { throw RobotError("out of memory"); };

struct Fault {
  const char* name;
  Spoil spoil;                    // chunks from kFirst on, or nothing
  bool once = false;              // that one chunk only
  std::vector<HalFault> driver;   // or the driver
  std::vector<int> delays = {1};  // or the time it takes
  bool ends = false;              // the run, by itself
  const char* words = "";         // what it says then
  Reason reason = Reason::none;   // that was counted
  Phase last = Phase::follow;     // phase of the last cycle
};

const Phase stopped = Phase::stopped;
const HalCall kRead = HalCall::read, kWrite = HalCall::write, kFrame = HalCall::frame;

const std::vector<Fault> matrix = {
    {.name = "latency spike, short", .delays = {1, 1, 10, 1, 1, 1, 1, 1, 1, 1}, .reason = Reason::hold},
    {.name = "latency spike, long",
     .delays = {1, 1, 60},
     .ends = true,
     .words = "no admissible command",
     .reason = Reason::stop,
     .last = stopped},
    {.name = "one duplicate", .spoil = repeated, .once = true, .reason = Reason::mismatch},
    {.name = "one of an old number", .spoil = of_an_old_number, .once = true, .reason = Reason::sequence},
    {.name = "one lost", .spoil = of_another_epoch, .once = true, .reason = Reason::epoch},
    {.name = "one of NaN", .spoil = with_nan, .once = true, .reason = Reason::non_finite},
    {.name = "duplicates for ever",
     .spoil = repeated,
     .ends = true,
     .words = "refused",
     .reason = Reason::mismatch,
     .last = stopped},
    {.name = "old numbers for ever",
     .spoil = of_an_old_number,
     .ends = true,
     .words = "refused",
     .reason = Reason::sequence,
     .last = stopped},
    {.name = "all lost",
     .spoil = of_another_epoch,
     .ends = true,
     .words = "refused",
     .reason = Reason::epoch,
     .last = stopped},
    {.name = "NaN for ever",
     .spoil = with_nan,
     .ends = true,
     .words = "refused",
     .reason = Reason::non_finite,
     .last = stopped},
    {.name = "zeros for ever",
     .spoil = far_off,
     .ends = true,
     .words = "refused",
     .reason = Reason::first_step,
     .last = stopped},
    {.name = "dead inference",
     .spoil = none_at_all,
     .ends = true,
     .words = "out of memory",
     .reason = Reason::stop,
     .last = stopped},
    {.name = "frozen camera",
     .driver = {{.call = kFrame, .kind = FaultKind::freeze, .from = 500}},
     .ends = true,
     .reason = Reason::obs_age,
     .last = stopped},
    {.name = "stale joints",
     .driver = {{.call = kRead, .from = kLate, .status = Status::stale}},
     .ends = true,
     .words = "no admissible command",
     .reason = Reason::stop,
     .last = stopped},
    {.name = "joints of NaN",
     .driver = {{.call = kRead, .kind = FaultKind::offset, .from = kLate, .joint = 1, .value = kNaN}},
     .ends = true,
     .words = "no admissible command",
     .reason = Reason::stop,
     .last = stopped},
    {.name = "joints that are late", .driver = {{.call = kRead, .kind = FaultKind::late, .from = kLate, .ticks = 8}}},
    {.name = "some joints lost", .driver = {{.call = kRead, .kind = FaultKind::drop, .from = 100, .probability = 0.3}}},
    {.name = "some commands lost",
     .driver = {{.call = kWrite, .kind = FaultKind::drop, .from = 100, .probability = 0.3}}},
    {.name = "commands that come late",
     .driver = {{.call = kWrite, .kind = FaultKind::late, .from = kLate, .ticks = 4}}},
    {.name = "all commands lost",
     .driver = {{.call = kWrite, .kind = FaultKind::drop, .from = kLate}},
     .ends = true,
     .words = "refused",
     .reason = Reason::first_step,
     .last = stopped},
    {.name = "stalled driver",
     .driver = {{.call = kWrite, .from = kLate, .status = Status::retry}},
     .ends = true,
     .words = "took no command"},
    {.name = "a driver that hangs for a second",
     .driver = {{.call = kWrite, .kind = FaultKind::stall, .from = kLate, .count = 1, .seconds = 1.0}}},
    {.name = "a driver that refuses one command after such a gap",
     .driver = {{.call = kWrite, .kind = FaultKind::stall, .from = kLate, .count = 1, .seconds = 1.0},
                {.call = kWrite, .from = kLate + 1, .count = 1, .status = Status::retry}}},
    {.name = "failing driver", .driver = {{.call = kRead, .from = kLate}}, .ends = true, .words = "could not read"},
};

/// A sine that is spoilt as the fault says.
std::shared_ptr<Policy> policy_of(const Fault& fault) {
  auto before = std::make_shared<ActionChunk>();
  return std::make_shared<TestPolicy>([&fault, before](const Observation& o, ActionChunk& c) {
    fill_sine(o, c);
    const ActionChunk good = c;
    const bool now = fault.once ? c.sequence == kFirst : c.sequence >= kFirst;
    if (fault.spoil && now) fault.spoil(c, *before);
    *before = good;
  });
}

/// What ended the run or not, the device itself stands soon: it follows with its own lag, or its dead-man time stops
/// it.
void check_that_it_stands(VirtualRun& run, const std::function<void(const std::string&)>& wrong) {
  const std::vector<double> there = run.hal->position();
  run.clock->advance(1'000'000'000);
  std::vector<double> q(kDof), dq(kDof), tau(kDof);
  State state{.q = q, .dq = dq, .tau = tau};
  run.hal->read(state);  // it moves the device to now
  const std::vector<double> at = run.hal->position();
  for (size_t j = 0; j < kDof; ++j)
    if (std::abs(at[j] - there[j]) > kTop * 0.15) wrong("the device went on moving");
}

/// The flight record that a run has left in `folder`, as bytes; there must be one, and it is removed.
std::string dumped(const std::filesystem::path& folder) {
  std::string bytes;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(file.path(), std::ios::binary);
    bytes += std::string(std::istreambuf_iterator<char>(in), {});
  }
  std::filesystem::remove_all(folder);
  return bytes;
}

/// What the record must hold, whatever ended the run: why it ended, the cycles in which a stage stepped in, the seams.
void check_record(const Fault& fault, const RunRecord& r, const std::string& file,
                  const std::function<void(const std::string&)>& wrong) {
  if (file.find(fault.ends ? fault.words : "asked to stop") == std::string::npos) wrong("the dump does not say why");
  if (file.find("\"reference\"") == std::string::npos) wrong("the dump lacks columns");
  if (fault.reason >= Reason::hold &&
      std::count(r.reason.begin(), r.reason.end(), static_cast<uint8_t>(fault.reason)) == 0)
    wrong("no recorded cycle has the reason");
  const auto follows = static_cast<uint8_t>(Phase::follow);
  if (std::count(r.phase.begin(), r.phase.end(), follows) < 100) wrong("the motion before the fault is not recorded");
}

void try_out(const Fault& fault) {
  const auto folder = std::filesystem::temp_directory_path() / ("wamcore_faults_" + std::to_string(getpid()));
  VirtualRun run(policy_of(fault), {.dump = folder.string()}, fault.delays, robot(1));
  for (const HalFault& f : fault.driver) run.faults->inject(f);
  std::string words;
  try {
    run.runner->start();
    run.runner->run(12.0);
  } catch (const Error& e) {
    words = e.what();
  }
  const RunnerStats s = run.runner->stats();
  const Aftermath after = aftermath(run.runner->record());
  const bool ended = !words.empty();
  const std::function<void(const std::string&)> wrong = [&](const std::string& what) {
    check::fail(__FILE__, __LINE__, std::string(fault.name) + ": " + what + " " + words);
  };
  for (const HalFault& f : fault.driver)
    if (run.faults->struck(f.call) == 0) wrong("was not injected");
  if (ended != fault.ends) wrong("ended or not");
  if (words.find(fault.words) == std::string::npos) wrong("says another thing");
  if (fault.reason != Reason::none && count(s, fault.reason) == 0) wrong("was not counted");
  if (after.last != fault.last) wrong(std::string("last phase is ") + name(after.last));
  if (after.distance > kHoldDistance) wrong("moved on for " + std::to_string(after.distance) + " rad");
  if (fault.last == Phase::stopped && !after.stands) wrong("does not stand");
  if (ended == run.hal->active() || (ended && run.hal->stops() == 0)) wrong("the device was left in the wrong state");
  if (!worst(run.runner->record().command, limits(), kPeriod, {0, 0}).within()) wrong("left the limits");
  if (ended) check_that_it_stands(run, wrong);
  run.runner->stop();
  check_record(fault, run.runner->record(), dumped(folder), wrong);
}

}  // namespace

TEST(fault_matrix) {
  for (const Fault& fault : matrix) try_out(fault);
}

TEST(a_clock_that_jumps) {
  auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    for (size_t i = 0; i < c.q.size(); ++i)  // slowly on from where the robot is
      c.q[i] = o.state[i % kDof] + 0.01 * static_cast<double>(i / kDof);
  });
  VirtualRun run(policy, {.safety = {.hold_time = 2.0}});
  run.runner->start();
  run.runner->run(3.0);
  run.clock->advance(5'000'000'000);  // the machine slept
  run.runner->run(5.0);
  CHECK(run.runner->running() && run.hal->lapses() == 1);  // the device did not wait for us
  CHECK(worst(run.hal->commands(), limits(), kPeriod, {0, 0}).within());
  CHECK(run.runner->stats().phase == Phase::follow);
}

TEST(killed_in_mid_motion_the_device_stops_by_itself) {
  // The device lives in this process, the run in another that is killed; between them a page of shared memory.
  struct Wire {
    uint64_t t_ns, valid_until_ns;
    double q[kDof], dq[kDof];
    int writes;
  };
  void* page = mmap(nullptr, sizeof(Wire), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  Wire* wire = new (page) Wire{};
  const pid_t child = fork();
  if (child == 0) {
    class WiredHal final : public Hal {
     public:
      explicit WiredHal(Wire* w) : wire_(w) {}
      Description configure(const HalConfig&) override { return {.joints = robot().joints, .has_hw_watchdog = true}; }
      void activate(Mode) override {}
      Status read(State& s) noexcept override {
        std::copy(wire_->q, wire_->q + kDof, s.q.begin());
        std::fill(s.dq.begin(), s.dq.end(), 0.0);
        return Status::ok;
      }
      Status write(const Command& c) noexcept override {
        std::copy(c.q.begin(), c.q.end(), wire_->q);
        std::copy(c.dq.begin(), c.dq.end(), wire_->dq);
        wire_->t_ns = c.t_ns, wire_->valid_until_ns = c.valid_until_ns;
        if (++wire_->writes == 700) kill(getpid(), SIGKILL);
        return Status::ok;
      }
      void deactivate() override {}
      void stop(StopKind) noexcept override { wire_->writes = -1; }
      void close() noexcept override {}

     private:
      Wire* wire_;
    };
    try {
      VirtualRunner runner(sine_policy(), std::make_shared<WiredHal>(wire), limits());
      runner.start();
      runner.run(60.0);
    } catch (...) {
    }
    _exit(1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  CHECK(wire->writes == 700 && wire->dq[1] > 0.1);  // in mid-motion, and nobody could say stop
  auto clock = std::make_shared<ManualClock>(wire->t_ns);
  MockOptions options = robot();
  options.start = {wire->q[0] - wire->dq[0] * kPeriod, wire->q[1] - wire->dq[1] * kPeriod};
  MockHal device(clock, options);
  device.configure({});
  device.activate(Mode::position);
  const std::vector<double> q(wire->q, wire->q + kDof);
  CHECK(device.write({.t_ns = wire->t_ns, .valid_until_ns = wire->valid_until_ns, .q = q}) == Status::ok);
  clock->advance(1'000'000'000);
  std::vector<double> at(kDof), dq(kDof), tau(kDof);
  State state{.q = at, .dq = dq, .tau = tau};
  CHECK(device.read(state) == Status::ok && device.lapses() == 1);
  for (size_t j = 0; j < kDof; ++j) CHECK(dq[j] == 0.0 && std::abs(at[j] - options.start[j]) <= kTop * 0.1);
  munmap(page, sizeof(Wire));
}

TEST(a_million_ticks_with_faults_and_no_command_outside_the_limits) {
  /// A robot that is where it is told to be and checks every command.
  class Strict final : public Hal {
   public:
    Description configure(const HalConfig&) override { return {.joints = robot().joints}; }
    void activate(Mode) override {}
    Status read(State& s) noexcept override {
      if (++reads % 997 == 0) return Status::stale;
      std::copy(q.begin(), q.end(), s.q.begin());
      std::fill(s.dq.begin(), s.dq.end(), 0.0);
      return Status::ok;
    }
    Status write(const Command& c) noexcept override {
      const std::vector<double> now(c.q.begin(), c.q.end());
      for (size_t j = 0; j < kDof; ++j) {
        const double speed = (now[j] - q[j]) / 0.1, push = (speed - v[j]) / 0.1;
        const bool fine = std::isfinite(now[j]) && std::abs(now[j]) <= 2.0 && std::abs(speed) <= 2.0 + 1e-9 &&
                          std::abs(push) <= 20.0 + 1e-6 && std::abs(push - a[j]) / 0.1 <= 100.0 + 1e-5;
        outside += !fine;
        a[j] = push, v[j] = speed, q[j] = now[j];
      }
      ++writes;
      return writes % 1009 == 0 ? Status::retry : Status::ok;
    }
    void deactivate() override {}
    void stop(StopKind) noexcept override {}
    void close() noexcept override {}
    std::vector<double> q = {0, 0}, v = {0, 0}, a = {0, 0};
    uint64_t reads = 0, writes = 0, outside = 0;
  };
  const auto hal = std::make_shared<Strict>();
  double last[kDof] = {0, 0};
  auto policy = std::make_shared<TestPolicy>([&](const Observation& o, ActionChunk& c) {
    for (size_t j = 0; j < kDof; ++j) last[j] = o.state[j];
    for (int i = 0; i < c.horizon; ++i)
      for (size_t j = 0; j < kDof; ++j) {
        last[j] = std::clamp(last[j] + uniform(-0.2, 0.2), -2.2, 2.2);  // rough, and beyond the position limits
        c.q[static_cast<size_t>(i) * kDof + j] = last[j];
      }
    switch (integer(0, 49)) {
      case 0:
        c.q[3] = std::numeric_limits<double>::quiet_NaN();
        break;
      case 1:
        c.q[7] = 1e308;
        break;
      case 2:
        c.sequence = 1;
        break;
      case 3:
        c.obs_tick -= 1;
        break;
      case 4:
        c.q.pop_back();
        break;
      case 5:
        c.epoch = 77;
        break;
    }
  });
  std::vector<int> delays;
  for (int i = 0; i < 1000; ++i) delays.push_back(integer(0, 30) == 0 ? integer(8, 30) : integer(0, 4));
  JointLimits l = limits();
  l.jerk = {100, 100};
  RunnerOptions options{.control_hz = 10, .command_validity = 1.0, .record = 0.1};
  options.max_state_age = 0.5;
  options.safety.hold_time = 100;
  go_on(options);
  VirtualRunner runner(policy, hal, l, options, delays);
  runner.start();
  while (runner.tick() < 1'000'000 && runner.step()) {
  }
  CHECK(runner.tick() == 1'000'000 && hal->outside == 0);
  const RunnerStats s = runner.stats();
  CHECK(s.refused_chunks > 1000 && s.chunks > 10'000 && count(s, Reason::hold) > 1000);
}

CHECK_MAIN()
