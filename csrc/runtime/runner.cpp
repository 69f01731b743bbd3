#include "wamcore/runner.h"

#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>

#include "loop.h"
#include "realtime.h"
#include "wamcore/error.h"

namespace wam {
namespace {

/// The run whose thread this is.
thread_local const void* own_run = nullptr;

}  // namespace

struct Runner::State {
  State(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits, RunnerOptions options)
      : loop(std::move(policy), std::move(hal), std::move(limits), std::move(options)) {}

  Loop loop;
  std::thread servo, observer, inference;
  std::atomic<bool> running{false};   // from start() until the servo thread has left the robot
  std::atomic<bool> quit{false};      // observer and inference shall end
  std::atomic<bool> opened{false};    // the driver has to be closed
  std::atomic<bool> orphaned{false};  // the runner was destroyed by one of its own threads
  std::atomic<uint64_t> overruns{0};
  uint64_t start_ns = 0;
  std::atomic<uint64_t> end_ns{0};  // 0 = still running

  mutable std::mutex mutex;         // guards what follows
  std::condition_variable changed;  // any of it, or running or quit
  std::exception_ptr error;         // the first thing that went wrong
  std::string realtime = "not started";
  bool servo_up = false;
  uint64_t news = 0;  // counts what the inference should look at
  bool started = false;

  std::mutex stopping;  // stop() runs once at a time

  void fail(std::exception_ptr what) {
    {
      const std::scoped_lock lock(mutex);
      if (!error) error = std::move(what);
    }
    loop.servo().shut_down();
    changed.notify_all();
  }
  std::string words_of_error() {
    const std::scoped_lock lock(mutex);
    try {
      if (error) std::rethrow_exception(error);
    } catch (const std::exception& e) {
      return e.what();
    }
    return {};
  }
  void close() noexcept {
    if (opened.exchange(false)) loop.close();
  }
  void run_servo();
  void serve_cycles();
  void run_observer();
  void run_inference();
  bool is_own_thread() const { return own_run == this; }
  /// First thing a thread does: nothing before start() has put down its handle, for the thread may destroy the runner.
  void enter_thread() {
    own_run = this;
    const std::scoped_lock gate(mutex);
  }
};

void Runner::State::run_servo() {
  bool go = true;
  try {
    const std::string granted = enter_realtime(loop.options().realtime, loop.options().priority, loop.options().cpu);
    const std::scoped_lock lock(mutex);
    realtime = granted;
  } catch (...) {
    fail(std::current_exception());
    go = false;
  }
  {
    const std::scoped_lock lock(mutex);
    servo_up = true;
  }
  changed.notify_all();
  if (go) serve_cycles();
  quit = true;  // nobody asks a driver for pictures that is being left; who sleeps now is told below
  // The loop is over and with it the real-time rules: leave the robot in order, whatever ended the run. What ended it
  // is noted first: the driver's words may be others after it has failed to stop as well.
  try {
    loop.check_ending();
  } catch (...) {
    fail(std::current_exception());
  }
  try {
    loop.leave();
  } catch (...) {
    fail(std::current_exception());
  }
  try {
    loop.dump(words_of_error());
  } catch (...) {
    fail(std::current_exception());
  }
  end_ns = loop.clock().now_ns();
  running = false;
  changed.notify_all();
  if (orphaned) close();
}

void Runner::State::serve_cycles() {
  const uint64_t period = loop.period_ns();
  uint64_t next = loop.clock().now_ns();
  while (true) {
    next += period;
    loop.clock().sleep_until(next);
    const uint64_t now = loop.clock().now_ns();
    if (now >= next + period) {  // late by whole cycles: they are skipped, never caught up with
      const uint64_t missed = (now - next) / period;
      overruns.fetch_add(missed, std::memory_order_relaxed);
      next += missed * period;
    }
    if (!loop.cycle(now)) return;
  }
}

void Runner::State::run_observer() {
  try {
    while (!quit) {
      if (loop.observe(loop.clock().now_ns())) {
        {
          const std::scoped_lock lock(mutex);
          ++news;
        }
        changed.notify_all();
      }
      loop.dump_evidence();
      loop.clock().sleep_until(loop.next_look(loop.clock().now_ns()));
    }
  } catch (...) {
    fail(std::current_exception());
  }
}

void Runner::State::run_inference() {
  try {
    uint64_t seen = 0;
    while (!quit) {
      if (!loop.inference_due()) {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return quit || news != seen; });
        seen = news;
        continue;
      }
      const uint64_t begin = loop.clock().now_ns();
      Waypoints* chunk = loop.infer();
      const auto took = static_cast<int64_t>(loop.clock().now_ns() - begin);
      if (chunk) loop.send(chunk, static_cast<int>((took + loop.tick_ns() - 1) / loop.tick_ns()));
    }
  } catch (...) {
    fail(std::current_exception());
  }
}

Runner::Runner(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits, RunnerOptions options)
    : state_(std::make_shared<State>(std::move(policy), std::move(hal), std::move(limits), std::move(options))) {}

Runner::~Runner() {
  stop();
  State& s = *state_;
  if (!s.is_own_thread()) return;
  // A thread cannot join itself: it and the others end by themselves, and the servo thread closes the robot.
  s.orphaned = true;
  for (std::thread* t : {&s.servo, &s.observer, &s.inference})
    if (t->joinable()) t->detach();
  if (!s.running) s.close();
}

void Runner::start() {
  const std::shared_ptr<State> keep = state_;  // the policy may destroy this runner before start() returns
  State& s = *keep;
  {
    const std::scoped_lock lock(s.mutex);
    if (s.started) throw RobotError("Runner.start: a runner runs once; make another");
    s.started = true;
  }
  s.start_ns = s.loop.clock().now_ns();
  s.loop.open(s.start_ns);
  s.opened = true;
  s.running = true;
  try {
    const auto run = [&](void (State::*body)()) {
      return std::thread([keep, body] {
        keep->enter_thread();
        (keep.get()->*body)();
      });
    };
    std::unique_lock lock(s.mutex);
    s.servo = run(&State::run_servo);
    s.changed.wait(lock, [&] { return s.servo_up; });
    if (s.error) std::rethrow_exception(s.error);
    s.observer = run(&State::run_observer);
    s.inference = run(&State::run_inference);
  } catch (...) {
    stop();
    throw;
  }
}

void Runner::wait(double seconds) {
  if (std::isnan(seconds)) throw InputError("Runner.wait: wanted a number of seconds, got nan");
  State& s = *state_;
  Clock& clock = s.loop.clock();
  const double limited = seconds < 1e9 ? (seconds > 0.0 ? seconds : 0.0) : 1e9;
  const uint64_t deadline = clock.now_ns() + static_cast<uint64_t>(limited * 1e9);
  std::unique_lock lock(s.mutex);
  while (s.running && clock.now_ns() < deadline) {
    // In short naps: the injected clock need not move with the machine's.
    const uint64_t left = std::min<uint64_t>(deadline - clock.now_ns(), 20'000'000);
    s.changed.wait_for(lock, std::chrono::nanoseconds(left));
  }
  if (s.error && !s.running) std::rethrow_exception(s.error);
}

void Runner::stop() noexcept {
  State& s = *state_;
  s.loop.servo().shut_down();
  {
    const std::scoped_lock state_lock(s.mutex);
    s.quit = true;
  }
  s.changed.notify_all();
  if (s.is_own_thread()) return;  // the policy or the driver asks: the run ends by itself, somebody else joins
  const std::scoped_lock lock(s.stopping);
  s.loop.clock().run_free();
  if (s.servo.joinable()) s.servo.join();
  if (s.observer.joinable()) s.observer.join();
  if (s.inference.joinable()) s.inference.join();
  s.close();
}

void Runner::estop() noexcept { state_->loop.filter().estop(); }

void Runner::pause() noexcept { state_->loop.servo().set_paused(true); }
void Runner::resume() noexcept { state_->loop.servo().set_paused(false); }

bool Runner::reset() {
  State& s = *state_;
  if (s.is_own_thread() && s.servo.get_id() == std::this_thread::get_id())
    throw RobotError("Runner.reset: wants another thread than the servo's, which would wait for itself");
  s.loop.servo().request_reset();
  bool done = false;
  std::unique_lock lock(s.mutex);
  while (s.running && !s.loop.servo().reset_decided(done)) s.changed.wait_for(lock, std::chrono::milliseconds(1));
  return done;
}

bool Runner::running() const noexcept { return state_->running; }

RunnerStats Runner::stats() const {
  const State& s = *state_;
  RunnerStats stats = s.loop.stats();
  stats.overruns = s.overruns.load(std::memory_order_relaxed);
  const uint64_t end = s.end_ns.load();
  const std::scoped_lock lock(s.mutex);
  if (s.started)
    stats.seconds = static_cast<double>((end ? end : s.loop.options().clock->now_ns()) - s.start_ns) * 1e-9;
  stats.realtime = s.realtime;
  return stats;
}

RunRecord Runner::record() const {
  if (state_->running) throw RobotError("Runner.record: wanted a run that has ended, stop() it first");
  return state_->loop.servo().record();
}

}  // namespace wam
