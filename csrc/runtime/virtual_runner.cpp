#include "wamcore/virtual_runner.h"

#include <algorithm>
#include <cmath>
#include <exception>

#include "loop.h"
#include "wamcore/error.h"

namespace wam {
namespace {

RunnerOptions with_manual_clock(RunnerOptions options) {
  if (!options.clock)
    options.clock = std::make_shared<ManualClock>(1'000'000'000);  // any start but 0, which means unset
  if (!std::dynamic_pointer_cast<ManualClock>(options.clock))
    throw ConfigError("VirtualRunner: clock wants a ManualClock");
  return options;
}

}  // namespace

struct VirtualRunner::State {
  State(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits, RunnerOptions options)
      : loop(std::move(policy), std::move(hal), std::move(limits), with_manual_clock(std::move(options))),
        clock(std::static_pointer_cast<ManualClock>(loop.options().clock)) {}

  Loop loop;
  std::shared_ptr<ManualClock> clock;
  std::vector<int> delay_ticks;
  size_t inferences = 0;
  bool started = false;
  bool opened = false;   // the robot has to be left and closed
  bool running = false;  // and the servo goes on
  bool within = false;   // a step, which driver and policy are called from
  uint64_t start_ns = 0;

  Waypoints* pending = nullptr;  // a chunk that is on its way
  bool in_flight = false;        // an inference, refused or not, that has not come back yet
  int pending_delay = 0;         // ticks
  uint64_t arrival_ns = 0;

  void deliver(uint64_t now_ns) {
    if (!in_flight || now_ns < arrival_ns) return;
    in_flight = false;
    if (pending) loop.send(pending, pending_delay);
    pending = nullptr;
  }
  void look_and_think(uint64_t now_ns) {
    loop.observe(now_ns);
    loop.dump_evidence();
    deliver(now_ns);
    if (in_flight || !loop.inference_due()) return;
    pending_delay = delay_ticks[inferences++ % delay_ticks.size()];
    pending = loop.infer();
    in_flight = true;
    arrival_ns = now_ns + static_cast<uint64_t>(pending_delay) * static_cast<uint64_t>(loop.tick_ns());
    deliver(now_ns);
  }
  /// Brakes if need be, leaves and closes the robot, once. Returns what went wrong on the way out.
  std::exception_ptr shut(const std::string& why = {}) noexcept {
    if (!opened) return nullptr;
    opened = false;
    if (running) {
      loop.servo().shut_down();
      do clock->advance(loop.period_ns());
      while (loop.cycle(clock->now_ns()));
    }
    running = false;
    std::exception_ptr error;
    try {
      loop.leave();
    } catch (...) {
      error = std::current_exception();
    }
    loop.close();
    try {
      loop.dump(why);
    } catch (...) {
      if (!error) error = std::current_exception();
    }
    return error;
  }
};

VirtualRunner::VirtualRunner(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits,
                             RunnerOptions options, std::vector<int> delay_ticks)
    : state_(std::make_unique<State>(std::move(policy), std::move(hal), std::move(limits), std::move(options))) {
  if (delay_ticks.empty()) throw ConfigError("VirtualRunner: delay_ticks wants at least one number");
  for (const int d : delay_ticks)
    if (d < 0 || d > 10'000) throw ConfigError("VirtualRunner: delay_ticks wants numbers from 0 to 10000");
  state_->delay_ticks = std::move(delay_ticks);
}

VirtualRunner::~VirtualRunner() { state_->shut(); }

void VirtualRunner::start() {
  State& s = *state_;
  if (s.started) throw RobotError("VirtualRunner.start: a runner runs once; make another");
  s.started = true;
  s.start_ns = s.clock->now_ns();
  s.loop.open(s.start_ns);
  s.opened = s.running = true;
  try {
    s.look_and_think(s.start_ns);
  } catch (...) {
    s.shut();
    throw;
  }
}

bool VirtualRunner::step() {
  State& s = *state_;
  if (!s.running) return false;
  if (s.within) throw RobotError("VirtualRunner.step: wants no step that goes on; a driver or policy is part of one");
  struct Within {
    explicit Within(bool& f) : flag(f) { flag = true; }
    ~Within() { flag = false; }
    bool& flag;
  } within(s.within);
  s.clock->advance(s.loop.period_ns());
  const uint64_t now = s.clock->now_ns();
  try {
    s.deliver(now);
    if (s.loop.cycle(now)) {
      s.look_and_think(now);
      return true;
    }
    s.running = false;
    s.loop.check_ending();
    return false;
  } catch (const std::exception& e) {
    s.shut(e.what());
    throw;
  }
}

void VirtualRunner::run(double seconds) {
  if (std::isnan(seconds)) throw InputError("VirtualRunner.run: wanted a number of seconds, got nan");
  const auto length = static_cast<uint64_t>(std::llround(std::clamp(seconds, 0.0, 1e9) * 1e9));
  const uint64_t end = state_->clock->now_ns() + length;
  while (state_->clock->now_ns() < end && step()) {
  }
}

void VirtualRunner::run_until(int64_t tick) {
  while (state_->running && this->tick() < tick && step()) {
  }
}

void VirtualRunner::stop() {
  if (const std::exception_ptr error = state_->shut()) std::rethrow_exception(error);
}

void VirtualRunner::estop() noexcept { state_->loop.filter().estop(); }

void VirtualRunner::pause() noexcept { state_->loop.servo().set_paused(true); }
void VirtualRunner::resume() noexcept { state_->loop.servo().set_paused(false); }

bool VirtualRunner::reset() {
  State& s = *state_;
  s.loop.servo().request_reset();
  bool done = false;
  while (!s.loop.servo().reset_decided(done) && step()) {
  }
  return done;
}

bool VirtualRunner::running() const noexcept { return state_->running; }
int64_t VirtualRunner::tick() const noexcept { return state_->loop.servo().tick(); }
const std::shared_ptr<ManualClock>& VirtualRunner::clock() const noexcept { return state_->clock; }

RunnerStats VirtualRunner::stats() const {
  RunnerStats stats = state_->loop.stats();
  stats.seconds = static_cast<double>(state_->clock->now_ns() - state_->start_ns) * 1e-9;
  stats.realtime = "virtual time";
  return stats;
}

RunRecord VirtualRunner::record() const { return state_->loop.servo().record(); }

}  // namespace wam
