// The fault matrix: what goes wrong on a robot, how far it still moves then, and what the flight record says.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
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

struct Fault {
  const char* name;
  std::function<void(ActionChunk&, const ActionChunk& before, uint64_t call)> spoil;  // a chunk, or nothing
  std::function<void(MockHal&)> driver;                                               // or the driver
  std::vector<int> delays;                                                            // or the time it takes
  bool ends;                                                                          // the run, by itself
  const char* words;                                                                  // what it says then
  Reason reason;                                                                      // that was counted
  Phase last;                                                                         // phase of the last cycle
};

void nothing(ActionChunk&, const ActionChunk&, uint64_t) {}
bool from_5(uint64_t call) { return call >= 5; }

}  // namespace

TEST(fault_matrix) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<Fault> faults = {
      {"latency spike, short", nothing, {}, {1, 1, 10, 1, 1, 1, 1, 1, 1, 1}, false, "", Reason::hold, Phase::follow},
      {"latency spike, long", nothing, {}, {1, 1, 60}, true, "no admissible command", Reason::stop, Phase::stopped},
      {"one duplicate",
       [](auto& c, auto& b, auto n) {
         if (n == 5) c = b;
       },
       {},
       {1},
       false,
       "",
       Reason::mismatch,
       Phase::follow},
      {"one of an old number",
       [](auto& c, auto&, auto n) {
         if (n == 5) c.sequence = 2;
       },
       {},
       {1},
       false,
       "",
       Reason::sequence,
       Phase::follow},
      {"one lost",
       [](auto& c, auto&, auto n) {
         if (n == 5) c.epoch = 9;
       },
       {},
       {1},
       false,
       "",
       Reason::epoch,
       Phase::follow},
      {"one of NaN",
       [nan](auto& c, auto&, auto n) {
         if (n == 5) c.q[9] = nan;
       },
       {},
       {1},
       false,
       "",
       Reason::non_finite,
       Phase::follow},
      {"duplicates for ever",
       [](auto& c, auto& b, auto n) {
         if (from_5(n)) c = b;
       },
       {},
       {1},
       true,
       "refused",
       Reason::mismatch,
       Phase::stopped},
      {"old numbers for ever",
       [](auto& c, auto&, auto n) {
         if (from_5(n)) c.sequence = 2;
       },
       {},
       {1},
       true,
       "refused",
       Reason::sequence,
       Phase::stopped},
      {"all lost",
       [](auto& c, auto&, auto n) {
         if (from_5(n)) c.epoch = 9;
       },
       {},
       {1},
       true,
       "refused",
       Reason::epoch,
       Phase::stopped},
      {"NaN for ever",
       [nan](auto& c, auto&, auto n) {
         if (from_5(n)) c.q[9] = nan;
       },
       {},
       {1},
       true,
       "refused",
       Reason::non_finite,
       Phase::stopped},
      {"zeros for ever",
       [](auto& c, auto&, auto n) {
         if (from_5(n)) c.q.assign(c.q.size(), -1.9);
       },
       {},
       {1},
       true,
       "refused",
       Reason::first_step,
       Phase::stopped},
      {"frozen camera",
       nothing,
       [](MockHal& h) { h.freeze_cameras(25); },
       {1},
       true,
       "",
       Reason::obs_age,
       Phase::stopped},
      {"stale joints",
       nothing,
       [](MockHal& h) { h.inject({.call = MockCall::read, .after = 600, .status = Status::stale}); },
       {1},
       true,
       "no admissible command",
       Reason::stop,
       Phase::stopped},
      {"stalled driver",
       nothing,
       [](MockHal& h) { h.inject({.call = MockCall::write, .after = 600, .status = Status::retry}); },
       {1},
       true,
       "took no command",
       Reason::none,
       Phase::follow},
      {"failing driver",
       nothing,
       [](MockHal& h) { h.inject({.call = MockCall::read, .after = 600}); },
       {1},
       true,
       "could not read",
       Reason::none,
       Phase::follow},
      {"dead inference",
       [](auto&, auto&, auto n) {
         if (from_5(n)) throw RobotError("out of memory");
       },
       {},
       {1},
       true,
       "out of memory",
       Reason::stop,
       Phase::stopped},
  };
  for (const Fault& fault : faults) {
    ActionChunk before;
    auto policy = std::make_shared<TestPolicy>([&](const Observation& o, ActionChunk& c) {
      fill_sine(o, c);
      const ActionChunk good = c;
      fault.spoil(c, before, c.sequence);
      before = good;
    });
    VirtualRun run(policy, {}, fault.delays, robot(1));
    if (fault.driver) fault.driver(*run.hal);
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
    const auto wrong = [&](const std::string& what) {
      check::fail(__FILE__, __LINE__, std::string(fault.name) + ": " + what + " " + words);
    };
    if (ended != fault.ends) wrong("ended or not");
    if (words.find(fault.words) == std::string::npos) wrong("says another thing");
    if (fault.reason != Reason::none && count(s, fault.reason) == 0) wrong("was not counted");
    if (after.last != fault.last) wrong(std::string("last phase is ") + name(after.last));
    if (after.distance > kHoldDistance) wrong("moved on for " + std::to_string(after.distance) + " rad");
    if (fault.last == Phase::stopped && !after.stands) wrong("does not stand");
    if (ended == run.hal->active() || (ended && run.hal->stops() == 0)) wrong("the device was left in the wrong state");
    if (!worst(run.hal->commands(), limits(), kPeriod, {0, 0}).within()) wrong("left the limits");
    if (!ended) continue;
    // whatever ended it, the device itself stands soon: it follows with its own lag, or its dead-man time stops it
    const std::vector<double> there = run.hal->position();
    run.clock->advance(1'000'000'000);
    std::vector<double> q(kDof), dq(kDof), tau(kDof);
    State state{.q = q, .dq = dq, .tau = tau};
    run.hal->read(state);  // which may still fail; it moves the device to now all the same
    const std::vector<double> at = run.hal->position();
    for (size_t j = 0; j < kDof; ++j)
      if (std::abs(at[j] - there[j]) > kTop * 0.15) wrong("the device went on moving");
  }
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
  VirtualRunner runner(policy, hal, l, options, delays);
  runner.start();
  while (runner.tick() < 1'000'000 && runner.step()) {
  }
  CHECK(runner.tick() == 1'000'000 && hal->outside == 0);
  const RunnerStats s = runner.stats();
  CHECK(s.refused_chunks > 1000 && s.chunks > 10'000 && count(s, Reason::hold) > 1000);
}

CHECK_MAIN()
