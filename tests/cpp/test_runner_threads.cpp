// Runs with real threads on a clock that the test moves, and proofs about the servo thread: it allocates nothing, takes
// no lock, and outlives whatever policy and driver do.
#include <dlfcn.h>
#include <pthread.h>

#include <cerrno>
#include <cstdlib>
#include <new>
#include <thread>

#include "check.h"
#include "hal/proxy.h"
#include "robot_fixture.h"
#include "wamcore/kinematic_workspace.h"
#include "wamcore/runner.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define WAMCORE_TEST_HOOKS 0  // the sanitizers bring their own malloc and mutexes
#else
#define WAMCORE_TEST_HOOKS 1
#endif

namespace {

thread_local bool watched = false;  // this thread is a servo thread in its loop
std::atomic<uint64_t> allocations{0}, releases{0}, locks{0};

}  // namespace

// operator new and delete, aligned or not, of libstdc++ come down to these.
#if WAMCORE_TEST_HOOKS
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
void* malloc(size_t n) {
  if (watched) ++allocations;
  return __libc_malloc(n);
}
void* calloc(size_t n, size_t size) {
  if (watched) ++allocations;
  return __libc_calloc(n, size);
}
void* realloc(void* p, size_t n) {
  if (watched) ++allocations;
  return __libc_realloc(p, n);
}
void* memalign(size_t alignment, size_t n) {
  if (watched) ++allocations;
  return __libc_memalign(alignment, n);
}
void* aligned_alloc(size_t alignment, size_t n) { return memalign(alignment, n); }
int posix_memalign(void** out, size_t alignment, size_t n) {
  if (alignment % sizeof(void*) != 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  void* p = memalign(alignment, n);
  if (!p) return ENOMEM;
  *out = p;
  return 0;
}
void free(void* p) {
  if (watched && p) ++releases;
  __libc_free(p);
}
int pthread_mutex_lock(pthread_mutex_t* mutex) {
  static const auto real = reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, "pthread_mutex_lock"));
  if (watched) ++locks;
  return real(mutex);
}
}
#endif

using namespace wam;
using namespace fixture;

namespace {

/// A robot that is where it is told to be, without a lock or an allocation.
class BareHal : public Hal {
 public:
  Description configure(const HalConfig&) override { return {.joints = robot().joints}; }
  void activate(Mode) override { active = true; }
  Status read(State& state) noexcept override {
    if (reads == fail_at) return Status::fault;
    ++reads;
    std::copy(q, q + kDof, state.q.begin());
    std::fill(state.dq.begin(), state.dq.end(), 0.0);
    return Status::ok;
  }
  Status write(const Command& command) noexcept override {
    std::copy(command.q.begin(), command.q.end(), q);
    ++writes;
    last_valid_ns = command.valid_until_ns;
    return Status::ok;
  }
  void deactivate() override { active = false; }
  void stop(StopKind) noexcept override { ++stops; }
  void close() noexcept override { ++closes; }
  std::string error() const override { return "the wire is cut"; }

  double q[kDof] = {};
  std::atomic<bool> active{false};
  std::atomic<uint64_t> reads{0}, writes{0}, stops{0}, closes{0}, last_valid_ns{0};
  uint64_t fail_at = UINT64_MAX;
};

/// How far the clock of a test may run ahead of the threads.
struct Pace {
  int sleepers = 2;        // that sleep before it moves: servo and observer
  double patience = 0.02;  // s of the machine's time that is waited for them; they may have ended
  /// A policy that is waited for when 1.2 s have passed since its last answer, or since the servo took one up. Without
  /// this a thread that the machine lets wait for 10 ms is seconds late on this clock, and its chunks are rightly
  /// refused. It wants an execute_horizon of 8 ticks or less. Each step waits a little only: what is late may be an
  /// answer on its way, which needs the clock to move.
  const TestPolicy* policy = nullptr;
};

/// Moves the clock in servo periods, at that pace, until the time is over or the run has ended.
void drive(ManualClock& clock, const Runner& runner, double seconds, const Pace& pace = {}) {
  const uint64_t end = clock.now_ns() + static_cast<uint64_t>(seconds * 1e9);
  uint64_t answers = 0, heard_ns = clock.now_ns();
  const SystemClock wall;
  while (clock.now_ns() < end && runner.running()) {
    clock.wait_for_sleepers(pace.sleepers, pace.patience);
    const auto heard = [&] { return pace.policy->answers + runner.stats().chunks; };
    const uint64_t until = wall.now_ns() + 20'000'000;
    while (pace.policy && heard_ns + 1'200'000'000 < clock.now_ns() && heard() == answers && runner.running() &&
           wall.now_ns() < until)
      std::this_thread::yield();
    if (pace.policy && heard() != answers) {
      answers = heard();
      heard_ns = clock.now_ns();
    }
    clock.advance(5'000'000);
  }
}

struct ThreadedRun {
  std::shared_ptr<ManualClock> clock = std::make_shared<ManualClock>(1'000'000'000);
  std::shared_ptr<MockHal> hal;
  std::shared_ptr<FaultInjector> faults;  // around it
  std::unique_ptr<Runner> runner;

  explicit ThreadedRun(std::shared_ptr<Policy> policy, RunnerOptions options = {}, MockOptions mock = robot()) {
    hal = std::make_shared<MockHal>(clock, std::move(mock));
    options.clock = clock;
    go_on(options);
    options.record = 60;
    options.safety.hold_time = 100;  // this machine may be slow: a late chunk is no fault here
    faults = std::make_shared<FaultInjector>(hal, clock);
    runner = std::make_unique<Runner>(std::move(policy), faults, limits(), options);
  }
};

/// A workspace of two links that allows every pose, at the full cost.
std::shared_ptr<const Workspace> everywhere() {
  WorkspaceOptions o{.dof = kDof};
  for (int j = 0; j < kDof; ++j)
    o.frames.push_back({.parent = j - 1, .position = {0.3, 0, 0}, .motion = Motion::hinge, .joint = j});
  for (int i = 0; i < 8; ++i) o.spheres.push_back({.frame = i % kDof, .centre = {0.1, 0, 0}, .radius = 0.05});
  for (const RegionShape shape : {RegionShape::box, RegionShape::cylinder, RegionShape::sphere})
    o.regions.push_back({.shape = shape, .size = {9, 9, 9}});
  o.regions.push_back({.shape = RegionShape::half_space, .centre = {0, 0, -9}});
  return std::make_shared<KinematicWorkspace>(std::move(o));
}

}  // namespace

TEST(threads_follow_the_plan_and_stop_in_order) {
  for (const Execution mode : {Execution::blend, Execution::sync}) {
    const auto policy = sine_policy(64);
    ThreadedRun run(policy, {.mode = mode, .execute_horizon = 8}, robot(1));
    run.runner->start();
    drive(*run.clock, *run.runner, 8.0, {.patience = 5.0, .policy = policy.get()});
    CHECK(run.runner->running());
    run.runner->wait(0.0);
    run.runner->stop();
    run.runner->stop();
    CHECK(!run.runner->running() && !run.hal->active() && run.hal->stops() == 1);
    const RunnerStats s = run.runner->stats();
    CHECK(s.chunks >= 2 && s.cycles >= 1600 && s.refused_chunks == 0);
    const WorstRatio w = worst(run.hal->commands(), limits(), 1.0 / 200, {0, 0});
    CHECK(w.within());
    if (mode == Execution::sync) continue;  // there the arm stands while it waits, and blends on from a stand
    const RunRecord r = run.runner->record();
    size_t on_plan = 0;
    for (size_t k = 0; k < r.t_ns.size(); ++k)
      on_plan += r.phase[k] == static_cast<uint8_t>(Phase::follow) && r.tick[k] > 3 &&
                 std::abs(r.command[k * kDof] - sine(r.tick[k], 0)) < 1e-3;
    CHECK(on_plan > 500);
  }
}

TEST(a_driver_may_stamp_its_joints_with_the_time_of_the_reading) {
  const auto clock = std::make_shared<SystemClock>();  // on which that is a little after the cycle began
  const auto hal = std::make_shared<MockHal>(clock, robot());
  Runner runner(sine_policy(), hal, limits(),
                {.control_hz = 100.0, .max_state_age = 1.0, .safety = {.first_step_time = kFirstStep}, .clock = clock});
  runner.start();
  const uint64_t patience = clock->now_ns() + 20'000'000'000;
  while (runner.stats().chunks < 2 && runner.running() && clock->now_ns() < patience) runner.wait(0.01);
  runner.stop();
  CHECK(runner.stats().chunks >= 2 && runner.stats().safety[static_cast<size_t>(Reason::first_step)] == 0);
}

TEST(a_policy_that_throws_in_its_thread_is_heard) {
  auto policy = std::make_shared<TestPolicy>(
      [](const Observation& o, ActionChunk& c) {
        fill_sine(o, c);
        if (c.sequence == 2) throw InputError("no such prompt");
      },
      64);
  ThreadedRun run(policy, {.execute_horizon = 4});
  run.runner->start();
  drive(*run.clock, *run.runner, 20.0, {.policy = policy.get()});
  CHECK(!run.runner->running());
  CHECK_THROWS(run.runner->wait(1.0), InputError, "no such prompt");
  CHECK_THROWS(run.runner->wait(1.0), InputError, "no such prompt");  // each time it is asked
  run.runner->stop();
  CHECK(!run.hal->active());
  CHECK(worst(run.hal->commands(), limits(), 1.0 / 200, {0, 0}).acceleration <= 1 + 1e-6);
}

TEST(a_driver_fault_in_its_thread_is_heard) {
  ThreadedRun run(sine_policy(64));
  run.faults->inject({.from = 200});
  run.runner->start();
  drive(*run.clock, *run.runner, 20.0);
  CHECK_THROWS(run.runner->wait(1.0), RobotError, "could not read the joints: injected fault");
  // The observer has ended as well: nobody asks a driver that was left. It may have been on its way to a last sleep.
  bool alone = false;
  for (int i = 0; i < 4 && !alone; ++i) {
    run.clock->advance(1'000'000'000);
    alone = !run.clock->wait_for_sleepers(1, 0.3);
  }
  CHECK(alone);
  const auto policy = sine_policy(64);
  ThreadedRun camera(policy, {.execute_horizon = 8}, robot(1));
  camera.faults->inject({.call = HalCall::frame, .from = 50});
  camera.runner->start();
  drive(*camera.clock, *camera.runner, 20.0, {.policy = policy.get()});
  CHECK_THROWS(camera.runner->wait(1.0), RobotError, "camera 'cam0'");
  ThreadedRun leaving(sine_policy(64));
  leaving.faults->inject({.call = HalCall::deactivate});
  leaving.runner->start();
  drive(*leaving.clock, *leaving.runner, 1.0);
  leaving.runner->stop();
  CHECK_THROWS(leaving.runner->wait(0.0), RobotError, "deactivate");
}

TEST(a_robot_that_does_not_start_leaves_nothing_behind) {
  ThreadedRun run(sine_policy());
  run.faults->inject({.call = HalCall::activate});
  CHECK_THROWS(run.runner->start(), RobotError, "activate");
  CHECK(!run.runner->running());
  CHECK_THROWS(run.runner->start(), RobotError, "once");
  run.runner->stop();
  CHECK_THROWS(run.runner->record(); throw RobotError("none"), RobotError, "none");
  const ThreadedRun never(sine_policy());  // and one that is not even started
}

TEST(the_policy_may_stop_its_own_runner) {
  Runner* runner = nullptr;
  auto policy = std::make_shared<TestPolicy>(
      [&](const Observation& o, ActionChunk& c) {
        fill_sine(o, c);
        if (c.sequence == 2) runner->stop();
      },
      64);
  ThreadedRun run(policy, {.execute_horizon = 4});
  runner = run.runner.get();
  run.runner->start();
  drive(*run.clock, *run.runner, 20.0, {.policy = policy.get()});
  CHECK(!run.runner->running());
  run.runner->wait(0.0);
}

TEST(a_runner_may_be_destroyed_by_its_own_policy) {
  std::unique_ptr<Runner> runner;
  std::atomic<bool> destroyed{false};
  auto hal = std::make_shared<BareHal>();
  auto policy = std::make_shared<TestPolicy>(
      [&](const Observation& o, ActionChunk& c) {
        fill_sine(o, c);
        if (c.sequence != 2) return;
        runner.reset();
        destroyed = true;
      },
      64);
  runner = std::make_unique<Runner>(policy, hal, limits(), RunnerOptions{.execute_horizon = 1});
  runner->start();
  while (!destroyed || hal->closes == 0) std::this_thread::yield();
  CHECK(hal->stops == 1 && hal->closes == 1 && !hal->active);
  while (hal.use_count() > 1) std::this_thread::yield();  // the threads let go of everything
}

TEST(stop_from_many_threads_joins_once) {
  ThreadedRun run(sine_policy(64));
  run.runner->start();
  drive(*run.clock, *run.runner, 0.5);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { run.runner->stop(); });
  for (auto& t : threads) t.join();
  CHECK(!run.runner->running() && run.hal->stops() == 1);
}

TEST(estop_and_reset_reach_the_servo_thread) {
  const auto policy = sine_policy(64);
  ThreadedRun run(policy, {.execute_horizon = 8});
  run.runner->start();
  drive(*run.clock, *run.runner, 2.0, {.policy = policy.get()});
  run.runner->estop();
  drive(*run.clock, *run.runner, 2.0);
  CHECK(run.runner->stats().phase == Phase::estop);
  std::atomic<bool> done{false}, result{false};
  std::thread asker([&] {
    result = run.runner->reset();
    done = true;
  });
  while (!done) drive(*run.clock, *run.runner, 0.01);
  asker.join();
  CHECK(result);
  CHECK(run.runner->stats().phase == Phase::hold || run.runner->stats().phase == Phase::follow);
}

namespace {

/// Any driver; the thread that reads it again after the start is the servo's, and watched until it stops the driver.
class WatchedHal final : public Hal {
 public:
  explicit WatchedHal(std::shared_ptr<Hal> inner) : inner_(std::move(inner)) {}
  Description configure(const HalConfig& c) override { return inner_->configure(c); }
  void activate(Mode m) override { inner_->activate(m); }
  Status read(State& s) noexcept override {
    if (reads_++ > 0) watched = true;  // the first read belongs to the thread that starts the run
    return inner_->read(s);
  }
  Status write(const Command& c) noexcept override { return inner_->write(c); }
  void deactivate() override { inner_->deactivate(); }
  void stop(StopKind kind) noexcept override {
    inner_->stop(kind);
    watched = false;
  }
  void close() noexcept override { inner_->close(); }
  std::string error() const override { return inner_->error(); }

 private:
  std::shared_ptr<Hal> inner_;
  std::atomic<uint64_t> reads_{0};
};

/// Slowly on from where joint 0 is; joint 1 is a gripper that opens and closes. Each fifth chunk is of NaN.
void fill_with_gripper(const Observation& o, ActionChunk& c) {
  for (int i = 0; i < c.horizon; ++i) {
    c.q[static_cast<size_t>(i * kDof)] = o.state[0] + 0.001 * i;
    c.q[static_cast<size_t>(i * kDof + 1)] = (c.sequence / 2 + static_cast<uint64_t>(i) / 3) % 2 ? 0.3 : 0.0;
  }
  if (c.sequence % 5 == 0) c.q[0] = std::numeric_limits<double>::quiet_NaN();
}

#if WAMCORE_TEST_HOOKS
/// Each kind of hook notices what it is for.
void check_hooks() {
  struct alignas(128) Wide {
    char bytes[128];
  };
  const auto expect = [](uint64_t allocated, uint64_t released, auto&& body) {
    const uint64_t a = allocations, r = releases;
    watched = true;
    body();
    watched = false;
    CHECK(allocations - a == allocated && releases - r == released);
  };
  void* volatile p = nullptr;  // the compiler must not see that nothing is done with what is allocated
  expect(1, 1, [&] { p = std::malloc(1), std::free(p); });
  expect(2, 1, [&] {
    p = std::calloc(1, 1);
    p = std::realloc(p, 1000);
    std::free(p);
  });
  expect(1, 1, [&] { p = std::aligned_alloc(64, 64), std::free(p); });
  expect(1, 1, [&] {
    void* aligned = nullptr;
    CHECK(posix_memalign(&aligned, 64, 64) == 0);
    p = aligned, std::free(p);
  });
  expect(1, 1, [&] { p = new int, delete static_cast<int*>(p); });
  expect(1, 1, [&] { p = new Wide, delete static_cast<Wide*>(p); });
  expect(0, 0, [] { std::free(nullptr); });
  const uint64_t before = locks;
  watched = true;
  std::mutex mutex;
  mutex.lock();
  mutex.unlock();
  watched = false;
  CHECK(locks == before + 1);
}
#endif

}  // namespace

TEST(the_servo_thread_allocates_nothing_and_takes_no_lock) {
  // On the machine's own clock, since the manual one has a lock. It waits for cycles, not for time.
  for (const bool proxied : {false, true}) {
    const auto clock = std::make_shared<SystemClock>();
    std::shared_ptr<Hal> robot = std::make_shared<BareHal>();
    if (proxied) robot = std::make_shared<ProxyHal>(robot, clock, 1'000'000);
    const auto faults = std::make_shared<FaultInjector>(robot, clock);
    faults->inject({.call = HalCall::read, .kind = FaultKind::late, .probability = 0.5, .ticks = 3});
    faults->inject({.call = HalCall::write, .kind = FaultKind::late, .probability = 0.5, .ticks = 3});
    Runner runner(std::make_shared<TestPolicy>(fill_with_gripper), std::make_shared<WatchedHal>(faults), limits(),
                  {.control_hz = 1000,
                   .execute_horizon = 1,
                   .max_state_age = 10,  // a proxy's thread may have to wait on a busy machine
                   .command_validity = 10,
                   .record = 10,
                   .grippers = {{.joint = 1, .open = 0.0, .closed = 0.3}},
                   .safety = {.first_step_time = kFirstStep, .workspace = everywhere(), .hold_time = 100},
                   .clock = clock});
    allocations = releases = locks = 0;
    runner.start();
    while ((runner.stats().cycles < 400 || runner.stats().chunks < 5) && runner.running()) std::this_thread::yield();
    runner.estop();
    while (runner.stats().phase != Phase::estop && runner.running()) std::this_thread::yield();
    while (!runner.reset() && runner.running()) {
    }
    const uint64_t before = runner.stats().cycles;
    while (runner.stats().cycles < before + 200 && runner.running()) std::this_thread::yield();
    runner.stop();
    runner.wait(0);
    CHECK(runner.stats().chunks >= 5 && runner.stats().refused_chunks >= 1);
    const RunRecord record = runner.record();
    double widest = 0.0;  // rad
    for (size_t k = 0; k < record.t_ns.size(); ++k) widest = std::max(widest, record.command[k * kDof + 1]);
    CHECK(widest > 0.0);  // the gripper has moved
#if WAMCORE_TEST_HOOKS
    CHECK(allocations == 0 && releases == 0);
    CHECK(locks == 0);
#endif
  }
#if WAMCORE_TEST_HOOKS
  check_hooks();
#else
  std::printf("     malloc and lock hooks are off in this build: a sanitizer brings its own\n");
#endif
}

TEST(real_time_wishes_are_answered) {
  auto hal = std::make_shared<BareHal>();
  Runner runner(sine_policy(64), hal, limits(),
                {.realtime = Realtime::ignore, .safety = {.first_step_time = kFirstStep}});
  runner.start();
  runner.stop();
  CHECK(runner.stats().realtime == "not asked for");
  CHECK(runner.stats().watchdog.starts_with("NO HARDWARE WATCHDOG: "));
  // An impossible priority is refused on every machine, privileged or not.
  auto other = std::make_shared<BareHal>();
  Runner strict(sine_policy(64), other, limits(), {.realtime = Realtime::enforce, .priority = 1000});
  CHECK_THROWS(strict.start(), RobotError, "SCHED_FIFO 1000 refused");
  CHECK(!strict.running() && other->closes == 1 && !other->active);
}

TEST(a_proxied_driver_is_called_from_one_thread_only) {
  class OneThread final : public BareHal {
   public:
    std::atomic<std::thread::id> mine{std::thread::id()};
    std::atomic<int> strangers{0};
    void look() {
      std::thread::id none;
      if (!mine.compare_exchange_strong(none, std::this_thread::get_id()) && none != std::this_thread::get_id())
        ++strangers;
    }
    Description configure(const HalConfig& c) override { return look(), BareHal::configure(c); }
    void activate(Mode m) override { look(), BareHal::activate(m); }
    Status read(State& s) noexcept override { return look(), BareHal::read(s); }
    Status write(const Command& c) noexcept override { return look(), BareHal::write(c); }
    void deactivate() override { look(), BareHal::deactivate(); }
    void stop(StopKind k) noexcept override { look(), BareHal::stop(k); }
    void close() noexcept override { look(), BareHal::close(); }
  };
  auto clock = std::make_shared<ManualClock>(1'000'000'000);
  auto inner = std::make_shared<OneThread>();
  auto proxy = std::make_shared<ProxyHal>(inner, clock, 5'000'000);
  const auto policy = sine_policy(64);
  Runner runner(policy, proxy, limits(),
                {.execute_horizon = 8,
                 .command_validity = 1,
                 .safety = {.first_step_time = kFirstStep, .hold_time = 100},
                 .clock = clock});
  runner.start();
  drive(*clock, runner, 6.0, {.sleepers = 3, .policy = policy.get()});
  CHECK(runner.running());
  runner.stop();
  runner.wait(0);
  CHECK(inner->strangers == 0 && inner->writes > 500 && inner->closes == 1 && !inner->active);
  CHECK(inner->stops >= 1);
}

TEST(a_proxied_driver_that_fails_is_heard) {
  auto clock = std::make_shared<ManualClock>(1'000'000'000);
  auto inner = std::make_shared<BareHal>();
  inner->fail_at = 100;
  auto proxy = std::make_shared<ProxyHal>(inner, clock, 5'000'000);
  Runner runner(sine_policy(64), proxy, limits(), {.safety = {.first_step_time = kFirstStep}, .clock = clock});
  runner.start();
  drive(*clock, runner, 6.0, {.sleepers = 3});
  CHECK_THROWS(runner.wait(0), RobotError, "the wire is cut");
  runner.stop();
  CHECK(inner->closes == 1);
}

TEST(a_robot_that_was_activated_in_vain_is_deactivated) {
  for (const bool proxied : {false, true}) {
    auto clock = std::make_shared<ManualClock>(1'000'000'000);
    auto inner = std::make_shared<BareHal>();
    inner->q[0] = 5.0;  // rad, far outside the limits
    std::shared_ptr<Hal> hal = inner;
    if (proxied) hal = std::make_shared<ProxyHal>(inner, clock, 5'000'000);
    Runner runner(sine_policy(64), hal, limits(), {.safety = {.first_step_time = kFirstStep}, .clock = clock});
    CHECK_THROWS(runner.start(), RobotError, "inside their limits");
    CHECK(!inner->active && inner->stops == 1 && inner->closes == 1);
  }
  auto clock = std::make_shared<ManualClock>(1'000'000'000);
  auto mute = std::make_shared<BareHal>();
  mute->fail_at = 0;  // the very first read
  ProxyHal proxy(mute, clock, 5'000'000);
  proxy.configure({});
  CHECK_THROWS(proxy.activate(Mode::position), RobotError, "the wire is cut");
  CHECK(!mute->active && mute->stops == 1);
}

/// Lets the thread of a proxy come round n times.
void serve_rounds(ManualClock& clock, int n) {
  for (; n > 0; --n) {
    clock.wait_for_sleepers(1);
    clock.advance(5'000'000);
  }
  clock.wait_for_sleepers(1);
}

TEST(a_proxied_driver_that_takes_no_commands_is_heard_and_stopped) {
  class Refusing final : public BareHal {
   public:
    Status write(const Command& c) noexcept override { return refuses ? Status::retry : BareHal::write(c); }
    std::atomic<bool> refuses{false};
  };
  auto clock = std::make_shared<ManualClock>(1'000'000'000);
  auto inner = std::make_shared<Refusing>();
  ProxyHal proxy(inner, clock, 5'000'000);
  proxy.configure({});
  proxy.activate(Mode::position);
  const std::vector<double> q{0.1, 0.2};
  const auto write = [&] {
    const uint64_t now = clock->now_ns();
    const Status status = proxy.write({.t_ns = now, .valid_until_ns = now + 50'000'000, .q = q});
    serve_rounds(*clock, 1);
    return status;
  };
  for (int i = 0; i < 5; ++i) CHECK(write() == Status::ok);
  inner->refuses = true;
  write();
  for (int i = 0; i < 5; ++i) CHECK(write() == Status::retry);
  CHECK(inner->stops == 0);
  for (int i = 0; i < 10; ++i) write();  // beyond what the last command it took is valid for
  CHECK(inner->stops == 1);
  inner->refuses = false;
  write();
  CHECK(write() == Status::ok);
}

TEST(an_emergency_stop_of_a_proxied_driver_is_heard_however_short) {
  class Pressed final : public BareHal {
   public:
    Status read(State& s) noexcept override {
      const Status status = BareHal::read(s);
      return pressed.exchange(false) ? Status::estop : status;
    }
    std::atomic<bool> pressed{false};
  };
  auto clock = std::make_shared<ManualClock>(1'000'000'000);
  auto inner = std::make_shared<Pressed>();
  ProxyHal proxy(inner, clock, 5'000'000);
  proxy.configure({});
  proxy.activate(Mode::position);
  std::vector<double> q(kDof), dq(kDof), tau(kDof);
  State state{.q = q, .dq = dq, .tau = tau};
  serve_rounds(*clock, 2);
  CHECK(proxy.read(state) == Status::ok);
  inner->pressed = true;
  serve_rounds(*clock, 4);  // pressed in the first of them only, and nobody has read since
  CHECK(proxy.read(state) == Status::estop);
  CHECK(proxy.read(state) == Status::ok);
}

TEST(fault_bits_of_a_driver_are_told) {
  class Ailing final : public BareHal {
   public:
    Status read(State& s) noexcept override {
      const Status status = BareHal::read(s);
      s.fault_bits = reads == 20 ? 0x10 : status == Status::fault ? 0x2 : 0;  // a passing one, and that of the end
      return status;
    }
  };
  for (const bool proxied : {false, true}) {
    auto clock = std::make_shared<ManualClock>(1'000'000'000);
    auto inner = std::make_shared<Ailing>();
    inner->fail_at = 100;
    std::shared_ptr<Hal> hal = inner;
    if (proxied) hal = std::make_shared<ProxyHal>(inner, clock, 5'000'000);
    Runner runner(sine_policy(64), hal, limits(), {.safety = {.first_step_time = kFirstStep}, .clock = clock});
    runner.start();
    CHECK(runner.stats().fault_bits == 0);
    drive(*clock, runner, 6.0, {.sleepers = proxied ? 3 : 2});
    CHECK_THROWS(runner.wait(0), RobotError, "fault bits 0x000000");
    // Behind a proxy the refusal of a command may end the run before the reading that carries the last bits is fetched.
    const uint32_t bits = runner.stats().fault_bits;
    CHECK(bits == 0x12 || (proxied && bits == 0x10));
    runner.stop();
  }
}

TEST(a_reset_within_a_servo_cycle_is_refused) {
  class Asking final : public BareHal {
   public:
    Status read(State& s) noexcept override {
      if (reads == 20 && runner) try {
          runner->reset();
        } catch (const RobotError& e) {
          words = e.what();
        }
      return BareHal::read(s);
    }
    Runner* runner = nullptr;
    std::string words;
  };
  auto clock = std::make_shared<ManualClock>(1'000'000'000);
  auto hal = std::make_shared<Asking>();
  Runner runner(sine_policy(64), hal, limits(), {.safety = {.first_step_time = kFirstStep}, .clock = clock});
  hal->runner = &runner;
  runner.start();
  drive(*clock, runner, 0.5);
  runner.stop();
  CHECK(hal->words.find("another thread than the servo's") != std::string::npos);
}

TEST(a_proxied_driver_is_stopped_when_commands_expire) {
  auto clock = std::make_shared<ManualClock>(1'000'000'000);
  auto inner = std::make_shared<BareHal>();
  ProxyHal proxy(inner, clock, 5'000'000);
  proxy.configure({});
  proxy.activate(Mode::position);
  const auto round = [&](int n) { serve_rounds(*clock, n); };
  const std::vector<double> q{0.1, 0.2};
  const uint64_t now = clock->now_ns();
  CHECK(proxy.write({.t_ns = now, .valid_until_ns = now + 50'000'000, .q = q}) == Status::ok);
  round(5);
  CHECK(inner->writes == 1 && inner->stops == 0);
  round(20);  // the servo thread has died, as far as the driver can tell
  CHECK(inner->stops == 1 && inner->writes == 1);
  // a command that was valid when it was sent, but is not when the driver comes round, is not carried out
  const uint64_t later = clock->now_ns();
  CHECK(proxy.write({.t_ns = later, .valid_until_ns = later - 1, .q = q}) == Status::ok);
  round(3);
  CHECK(inner->writes == 1);
  // and a driver that does not come round is noticed
  CHECK(proxy.write({.t_ns = clock->now_ns() + 100'000'000, .valid_until_ns = UINT64_MAX, .q = q}) == Status::stale);
}

CHECK_MAIN()
