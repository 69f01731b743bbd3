// A million control ticks of robots to whose chunks, drivers, cameras and runs anything may happen, at a servo rate of
// 100 Hz: no two successive commands break a limit.
#include <map>

#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"
#include "safety_fixture.h"

using namespace wam;
using namespace fixture;

namespace {

constexpr double kHz = 100.0;          // servo rate
constexpr double kPeriod = 1.0 / kHz;  // s
constexpr int kHorizon = 16;
#if defined(__SANITIZE_ADDRESS__)
constexpr int64_t kTicks = 200'000;  // of all runs: enough for the sanitizers, which take their time
#else
constexpr int64_t kTicks = 1'000'000;
#endif
constexpr uint64_t kCycles = 12'000;  // servo cycles of a run until what ends it

/// What ends a run, and what it says then. The first is stopped from outside.
struct End {
  const char* words;
  std::vector<HalFault> driver;
  bool policy_fails = false, chunks_of_nan = false;
};
const HalCall kRead = HalCall::read, kWrite = HalCall::write, kFrame = HalCall::frame;
const std::vector<End> kEnds = {
    {.words = ""},
    {.words = "could not read the joints", .driver = {{.call = kRead, .from = kCycles}}},
    {.words = "did not take a command", .driver = {{.call = kWrite, .from = kCycles}}},
    {.words = "took no command", .driver = {{.call = kWrite, .from = kCycles, .status = Status::retry}}},
    {.words = "first_step=", .driver = {{.call = kRead, .from = kCycles, .status = Status::stale}}},
    {.words = "obs_age=", .driver = {{.call = kFrame, .kind = FaultKind::freeze, .from = kCycles}}},
    {.words = "camera 'cam0' failed", .driver = {{.call = kFrame, .from = kCycles}}},
    {.words = "out of memory", .policy_fails = true},
    {.words = "non_finite=", .chunks_of_nan = true},
};

JointLimits some_limits() {
  JointLimits l;
  for (int j = 0; j < kDof; ++j) {
    l.names.push_back("joint" + std::to_string(j));
    l.position_min.push_back(-2.0);
    l.position_max.push_back(2.0);
    l.velocity.push_back(uniform(0.5, 3.0));
    l.acceleration.push_back(uniform(5.0, 40.0));
    l.jerk.push_back(l.acceleration.back() * uniform(10.0, 100.0));
  }
  return l;
}

/// Sees every command of the servo before any fault, and how it differs from the three before it.
class WatchedHal final : public Hal {
 public:
  WatchedHal(std::shared_ptr<Hal> inner, const JointLimits& l, std::vector<double> start)
      : watch(l, kPeriod, std::move(start)), command_(kDof), inner_(std::move(inner)) {}
  Description configure(const HalConfig& c) override { return inner_->configure(c); }
  void activate(Mode m) override { inner_->activate(m); }
  Status read(State& s) noexcept override { return inner_->read(s); }
  Status write(const Command& c) noexcept override {
    std::copy(c.q.begin(), c.q.end(), command_.begin());
    watch.see(command_);
    ++writes;
    return inner_->write(c);
  }
  void deactivate() override { inner_->deactivate(); }
  void stop(StopKind k) noexcept override { inner_->stop(k); }
  void close() noexcept override { inner_->close(); }
  Status frame(int camera, FrameView& view) noexcept override { return inner_->frame(camera, view); }
  std::string error() const override { return inner_->error(); }

  Watch watch;
  uint64_t writes = 0;

 private:
  std::vector<double> command_;
  std::shared_ptr<Hal> inner_;
};

/// Chunks that walk about at random from where the robot was seen, rough and beyond its position limits; one in ten
/// comes to some harm.
class Wanderer final : public Policy {
 public:
  Wanderer(double dt, const JointLimits& l) : dt_(dt), limits_(l) {}
  void infer(const Observation& o, ActionChunk& c) override {
    if (fails) throw RobotError("out of memory");
    const int harm = integer(0, 79);
    ++sequence_;
    if (harm == 0) return;  // lost
    const ActionChunk before = last_;
    c.horizon = kHorizon, c.dof = kDof, c.dt = dt_;
    c.obs_tick = o.tick, c.obs_ns = o.t_ns;
    c.sequence = sequence_, c.epoch = epoch_;
    c.q.resize(kHorizon * kDof);
    for (size_t j = 0; j < kDof; ++j) {
      double at = o.state[j], pace = 0.0;
      for (size_t i = 0; i < kHorizon; ++i) {
        pace = std::clamp(pace + uniform(-0.5, 0.5), -1.2, 1.2);
        at = std::clamp(at + pace * limits_.velocity[j] * dt_, -2.2, 2.2);
        c.q[i * kDof + j] = at;
      }
    }
    last_ = c;
    if (harm == 1) c.q[3] = kNaN;
    if (harm == 2) c.q[7] = harm_sign() * 1e308;
    if (harm == 3) c.sequence = sequence_ - 1;  // an old number
    if (harm == 4) c = before;                  // the one before once more
    if (harm == 5) c.obs_tick -= 1;
    if (harm == 6) c.q.pop_back();
    if (harm == 7) c.epoch += 77;
    if (nothing_but_nan) c.q[5] = kNaN;
  }
  double dt() const override { return dt_; }
  int horizon() const override { return kHorizon; }
  int dof() const override { return kDof; }
  std::vector<int> frame_offsets() const override { return {-4, 0}; }
  uint32_t epoch() const noexcept override { return epoch_; }
  void reset() { ++epoch_; }

  bool fails = false, nothing_but_nan = false;

 private:
  static double harm_sign() { return integer(0, 1) ? 1.0 : -1.0; }

  double dt_;
  const JointLimits& limits_;
  uint64_t sequence_ = 0;
  uint32_t epoch_ = 0;
  ActionChunk last_;
};

/// What happens to the driver now and then: hiccups anywhere, and longer ones that it recovers from.
void afflict(FaultInjector& faults, double dt) {
  const auto sometimes = [&](HalFault f, double probability) {
    f.probability = probability;
    f.count = kCycles;  // what ends the run is to be the first thing that goes wrong from then on
    faults.inject(f);
  };
  sometimes({.call = kRead, .status = Status::stale}, 3e-3);
  sometimes({.call = kRead, .kind = FaultKind::freeze}, 2e-3);
  sometimes({.call = kRead, .kind = FaultKind::late, .ticks = integer(1, 4)}, 2e-3);
  sometimes({.call = kRead, .kind = FaultKind::offset, .joint = 0, .value = kNaN}, 1e-3);
  sometimes({.call = kRead, .kind = FaultKind::stall, .seconds = uniform(0.01, 0.5)}, 3e-4);
  sometimes({.call = kWrite, .status = Status::retry}, 3e-3);
  sometimes({.call = kWrite, .kind = FaultKind::drop}, 3e-3);
  sometimes({.call = kWrite, .kind = FaultKind::late, .ticks = integer(1, 4)}, 2e-3);
  sometimes({.call = kWrite, .kind = FaultKind::stall, .seconds = uniform(0.01, 0.5)}, 3e-4);
  sometimes({.call = kFrame, .kind = FaultKind::drop}, 0.05);
  const auto for_a_while = [&](HalFault f, double seconds) {
    f.from = static_cast<uint64_t>(integer(200, static_cast<int>(kCycles) - 800));
    f.count = static_cast<uint64_t>(seconds / kPeriod);
    faults.inject(f);
  };
  for_a_while({.call = kRead, .status = Status::stale}, uniform(0.1, 0.4));
  for_a_while({.call = kWrite, .status = Status::retry}, uniform(0.02, 0.08));
  for_a_while({.call = kFrame, .kind = FaultKind::freeze}, uniform(0.2, 20 * dt));
  for_a_while({.call = kFrame, .kind = FaultKind::stuck}, uniform(0.2, 2.0));
}

struct Totals {
  int64_t ticks = 0;
  uint64_t cycles = 0, writes = 0, chunks = 0, refused = 0, holds = 0, starved = 0, resets = 0;
  std::map<std::string, int> ends;  // how often each was what ended a run
};

/// One run and its end.
struct Run {
  JointLimits limits = some_limits();
  double dt = 1.0 / std::vector<int>{10, 15, 20, 30}[static_cast<size_t>(integer(0, 3))];
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>(1'000'000'000);
  std::shared_ptr<Wanderer> policy = std::make_shared<Wanderer>(dt, limits);
  std::shared_ptr<FaultInjector> faults;
  std::shared_ptr<WatchedHal> hal;
  std::unique_ptr<VirtualRunner> runner;

  explicit Run(const End& end) {
    MockOptions mock = robot(1);
    mock.start = {uniform(-1.9, 1.9), uniform(-1.9, 1.9)};
    mock.time_constant = uniform(0.0, 0.05);
    mock.record_commands = 0;
    const auto device = std::make_shared<MockHal>(clock, mock);
    faults = std::make_shared<FaultInjector>(device, clock, static_cast<uint64_t>(integer(0, 1 << 30)));
    for (const HalFault& f : end.driver) faults->inject(f);
    afflict(*faults, dt);
    hal = std::make_shared<WatchedHal>(faults, limits, mock.start);
    RunnerOptions options{.control_hz = kHz, .record = 0.1, .clock = clock};
    options.mode = integer(0, 3) ? Execution::blend : Execution::async_switch;
    options.safety.hold_time = 5.0;
    go_on(options);
    std::vector<int> delays;
    for (int i = 0; i < 100; ++i) delays.push_back(integer(0, 30) == 0 ? integer(8, 30) : integer(0, 4));
    runner = std::make_unique<VirtualRunner>(policy, hal, limits, options, delays);
  }
  uint64_t cycles() const { return runner->stats().cycles; }
  bool early() const { return cycles() + 500 < kCycles; }

  /// Something that is asked of the run from outside.
  void meddle(Totals& totals) {
    switch (integer(0, 3)) {
      case 0:
        policy->reset();
        break;
      case 1:
        runner->pause();
        runner->run(uniform(0.0, 1.0));
        runner->resume();
        break;
      case 2:
        runner->estop();
        runner->run(2.0);  // it stands, and its device where it was told to
        for (int i = 0; i < 50 && runner->running() && !runner->reset(); ++i) runner->run(0.1);
        ++totals.resets;
        break;
      default:
        break;
    }
  }
  void go(const End& end, Totals& totals) {
    runner->start();
    while (runner->running() && early()) {
      runner->run(uniform(1.0, 10.0));
      if (early()) meddle(totals);
    }
    while (runner->running() && cycles() < kCycles) runner->step();
    policy->fails = end.policy_fails;
    policy->nothing_but_nan = end.chunks_of_nan;
    if (*end.words) runner->run(60.0);
    runner->stop();
  }
};

void live_and_die(const End& end, Totals& totals) {
  Run run(end);
  std::string words;
  try {
    run.go(end, totals);
  } catch (const Error& e) {
    words = e.what();
  }
  const bool in_time = run.cycles() + 1 >= kCycles;
  if (in_time && (*end.words == 0) == words.empty() && words.find(end.words) != std::string::npos)
    ++totals.ends[end.words];
  else
    ++totals.ends["another"];
  const RunnerStats s = run.runner->stats();
  totals.ticks += static_cast<int64_t>(s.ticks);
  totals.cycles += s.cycles;
  totals.writes += run.hal->writes;
  totals.chunks += s.chunks;
  totals.refused += s.refused_chunks;
  totals.starved += s.starved_ticks;
  totals.holds += s.safety[static_cast<size_t>(Reason::hold)];
  run.hal->watch.check_all();
}

}  // namespace

TEST(a_million_ticks_with_faults_and_no_two_commands_outside_the_limits) {
  Totals t;
  for (size_t run = 0; t.ticks < kTicks; ++run) live_and_die(kEnds[run % kEnds.size()], t);
  std::printf("     %lld ticks, %llu cycles, %llu chunks, %llu refused; %llu cycles held\n",
              static_cast<long long>(t.ticks), static_cast<unsigned long long>(t.cycles),
              static_cast<unsigned long long>(t.chunks), static_cast<unsigned long long>(t.refused),
              static_cast<unsigned long long>(t.holds));
  for (const auto& [words, n] : t.ends) std::printf("     %4d runs ended by '%s'\n", n, words.c_str());
  // Of what matters there was enough.
  constexpr auto n = static_cast<uint64_t>(kTicks);
  CHECK(t.cycles > 4 * n && t.writes > t.cycles - t.cycles / 100);
  CHECK(t.chunks > n / 20 && t.refused > n / 200 && t.holds > n / 100 && t.starved > n / 1000 && t.resets > n / 10'000);
  for (const End& end : kEnds) CHECK(static_cast<uint64_t>(t.ends[end.words]) >= n / 200'000);
}

CHECK_MAIN()
