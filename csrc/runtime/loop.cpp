#include "loop.h"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <filesystem>

#include "wamcore/error.h"

namespace wam {

const char* name(Execution mode) noexcept {
  static constexpr const char* names[] = {"automatic",  "sync",        "async_switch",     "blend",
                                          "rtc_guided", "rtc_trained", "temporal_ensemble"};
  const auto i = static_cast<size_t>(mode);
  return i < std::size(names) ? names[i] : "unknown";
}

namespace {

constexpr double kAfterStop = 2.0;  // s of the stand behind an emergency stop that belong to its record

void want(bool condition, const std::string& what) {
  if (!condition) throw ConfigError("Runner: " + what);
}

Execution resolve(Execution wish, const Policy& policy) {
  const Continuity can = policy.continuity();
  if (wish == Execution::automatic)
    return can == Continuity::trained  ? Execution::rtc_trained
           : can == Continuity::guided ? Execution::rtc_guided
                                       : Execution::blend;
  want(wish != Execution::rtc_guided || can == Continuity::guided,
       "mode rtc_guided wants a policy whose sampling can be guided; this one's cannot" +
           std::string(can == Continuity::trained ? " (a Session's can with trained_prefix=False)" : ""));
  want(wish != Execution::rtc_trained || can == Continuity::trained,
       "mode rtc_trained wants a policy that was trained with clean prefixes; this one was not");
  return wish;
}

uint64_t to_ns(double seconds) { return static_cast<uint64_t>(std::llround(std::min(seconds, 1e9) * 1e9)); }

void check_options(const RunnerOptions& o, const Policy& policy) {
  want(o.control_hz >= 10.0 && o.control_hz <= 2000.0, "control_hz wants 10 to 2000 Hz");
  want(policy.dt() > 0.0 && policy.dt() <= 10.0, "the policy's dt wants a number in (0, 10] s");
  want(1.0 / o.control_hz <= policy.dt() * (1 + 1e-9),
       "control_hz wants at least one servo cycle for each control tick");
  want(policy.horizon() >= 2, "the policy's chunks want at least 2 rows");
  want(o.execute_horizon >= 0 && o.execute_horizon <= policy.horizon(),
       "execute_horizon wants 0 to the policy's horizon");
  want(o.blend_ticks >= 0.0 && o.blend_ticks <= policy.horizon(), "blend_ticks wants 0 to the policy's horizon");
  want(o.max_obs_age >= 0.0 && o.max_chunk_age >= 0.0, "max_obs_age and max_chunk_age want numbers >= 0 s");
  want(o.max_state_age > 0.0 && o.max_state_age <= 10.0, "max_state_age wants a number in (0, 10] s");
  want(o.command_validity >= 1.0 / o.control_hz && o.command_validity <= 10.0,
       "command_validity wants at least one servo period and at most 10 s");
  want(o.soft_ticks >= -1 && o.soft_ticks <= policy.horizon(), "soft_ticks wants -1 to the policy's horizon");
  want(o.ensemble_decay >= 0.0 && o.ensemble_decay <= 100.0, "ensemble_decay wants 0 to 100");
  want(o.record >= 0.0 && o.record <= 3600.0, "record wants 0 to 3600 s");
}

/// Checks the grippers, and lets their first step be anywhere in their range: opening is no sign of a mistake.
void admit_grippers(RunnerOptions& o, const JointLimits& limits) {
  auto& most = o.safety.max_first_step;
  if (!o.grippers.empty() && most.empty())
    for (const double v : limits.velocity) most.push_back(v * o.safety.first_step_time);
  std::vector<bool> taken(limits.names.size());
  for (const Gripper& g : o.grippers) {
    want(g.joint >= 0 && g.joint < limits.dof() && !taken[static_cast<size_t>(g.joint)],
         "grippers want numbers of joints, each once, got " + std::to_string(g.joint));
    const auto j = static_cast<size_t>(g.joint);
    taken[j] = true;
    const double low = limits.position_min[j], high = limits.position_max[j];
    want(g.open >= low && g.open <= high && g.closed >= low && g.closed <= high && g.open != g.closed,
         "gripper '" + limits.names[j] + "' wants two different positions within the limits for open and closed");
    want(g.hysteresis >= 0.0 && g.hysteresis < 1.0, "a gripper's hysteresis wants a share in [0, 1)");
    if (most.size() == limits.names.size()) most[j] = 2.0 * (high - low);
  }
}

ServoOptions servo_options(const RunnerOptions& o, const Policy& policy) {
  return {.period_ns = to_ns(1.0 / o.control_hz),
          .tick_ns = static_cast<int64_t>(to_ns(policy.dt())),
          .mode = o.mode,
          // a motion ends in its last row, so that the last row is where the next observation is taken at the latest
          .execute_horizon = std::min(o.execute_horizon, policy.horizon() - 1),
          .blend_ns = o.mode == Execution::async_switch ? 0 : static_cast<int64_t>(to_ns(o.blend_ticks * policy.dt())),
          .max_chunk_age_ns = to_ns(o.max_chunk_age > 0.0 ? o.max_chunk_age : 1e9),
          .max_state_age_ns = to_ns(o.max_state_age),
          .command_validity_ns = to_ns(o.command_validity),
          .record_rows = static_cast<size_t>(std::ceil(o.record * o.control_hz)),
          .record_after = o.dump.empty() || o.record == 0.0
                              ? 0
                              : static_cast<size_t>(std::min(kAfterStop, o.record / 2) * o.control_hz) + 1,
          .grippers = o.grippers,
          .clock = o.clock.get()};
}

}  // namespace

Loop::Loop(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits, RunnerOptions options)
    : policy_(std::move(policy)),
      hal_(std::move(hal)),
      options_(std::move(options)),
      ensemble_(options_.ensemble_decay) {
  want(policy_ != nullptr && hal_ != nullptr, "wants a policy and a robot, got none");
  limits.validate();
  want(policy_->dof() == limits.dof(), "the policy commands " + std::to_string(policy_->dof()) +
                                           " joints, the limits are of " + std::to_string(limits.dof()));
  check_options(options_, *policy_);
  options_.mode = resolve(options_.mode, *policy_);
  if (!options_.clock) options_.clock = std::make_shared<SystemClock>();
  if (options_.execute_horizon == 0 && options_.mode == Execution::temporal_ensemble) options_.execute_horizon = 1;
  if (options_.execute_horizon == 0) options_.execute_horizon = std::max(1, policy_->horizon() / 2);
  if (options_.max_obs_age == 0.0)
    options_.max_obs_age = options_.mode == Execution::sync ? 10.0 : policy_->horizon() * policy_->dt();
  options_.safety.period = 1.0 / options_.control_hz;
  options_.safety.horizon = policy_->horizon();
  options_.safety.dt = policy_->dt();
  options_.safety.max_obs_age = options_.max_obs_age;
  admit_grippers(options_, limits);
  servo_options_ = servo_options(options_, *policy_);
  filter_ = std::make_unique<SafetyFilter>(std::move(limits), options_.safety);
  servo_ = std::make_unique<Servo>(*hal_, *filter_, queue_, servo_options_);
}

/// What the rig was measured to be late by. Latencies that leave a chunk no row to come are refused.
ObservationSource::Latency Loop::latencies(const Description& d) const {
  const double most = 0.5 * (policy_->horizon() - 1) * policy_->dt();
  const auto ns = [&](const std::string& who, double seconds) {
    want(seconds >= 0.0 && seconds <= most,
         who + " wants 0 s to " + std::to_string(most) + " s, half of a chunk, got " + std::to_string(seconds));
    return static_cast<int64_t>(to_ns(seconds));
  };
  ObservationSource::Latency out{.state = ns("state_latency", options_.state_latency), .tick = servo_options_.tick_ns};
  for (const CameraInfo& c : d.cameras) {
    const auto stated = options_.camera_latency.find(c.name);
    out.cameras.push_back(ns("camera_latency", stated == options_.camera_latency.end() ? 0.0 : stated->second));
  }
  for (const auto& [name, seconds] : options_.camera_latency)
    want(std::any_of(d.cameras.begin(), d.cameras.end(), [&](const CameraInfo& c) { return c.name == name; }),
         "camera_latency names '" + name + "', which is no camera of the robot");
  return out;
}

void Loop::check_description(const Description& d) const {
  const JointLimits& limits = filter_->limits();
  want(d.joints.size() == limits.names.size(), "the robot has " + std::to_string(d.joints.size()) +
                                                   " joints, the limits are of " + std::to_string(limits.dof()));
  want(d.servo_hz == 0.0 || options_.control_hz <= d.servo_hz * (1 + 1e-9),
       "control_hz is " + std::to_string(options_.control_hz) + ", the robot takes at most " +
           std::to_string(d.servo_hz));
  for (size_t j = 0; j < d.joints.size(); ++j) {
    const JointInfo& joint = d.joints[j];
    const std::string who = "joint " + std::to_string(j) + " ('" + joint.name + "')";
    want(joint.name == limits.names[j], who + " of the robot is '" + limits.names[j] + "' in the limits");
    want((joint.modes & 1u) != 0, who + " takes no position commands");
    want(limits.position_min[j] >= joint.position_min - 1e-9 && limits.position_max[j] <= joint.position_max + 1e-9,
         who + ": the position limits are wider than the robot's own");
    want(limits.velocity[j] <= joint.velocity * (1 + 1e-9), who + ": the velocity limit is above the robot's own");
    want(limits.acceleration[j] <= joint.acceleration * (1 + 1e-9),
         who + ": the acceleration limit is above the robot's own");
    want(limits.jerk_of(static_cast<int>(j)) <= joint.jerk * (1 + 1e-9),
         who + ": the jerk limit is above the robot's own");
  }
}

void Loop::open(uint64_t now_ns) {
  bool active = false;
  try {
    options_.hal.servo_hz = options_.control_hz;
    const Description description = hal_->configure(options_.hal);
    check_description(description);
    {
      const std::scoped_lock lock(mutex_);
      watchdog_ = description.has_hw_watchdog
                      ? "the device stops when commands cease"
                      : "NO HARDWARE WATCHDOG: if this process dies or stalls, the device stays with its last command";
    }
    source_ = std::make_unique<ObservationSource>(description.cameras, policy_->frame_offsets(),
                                                  filter_->limits().dof(), latencies(description));
    scheduler_ =
        std::make_unique<ChunkScheduler>(options_.mode, policy_->horizon() - source_->lag(), options_.execute_horizon);
    hal_->activate(Mode::position);
    active = true;
    servo_->set_epoch(policy_->epoch());
    servo_->start(now_ns);
  } catch (...) {
    options_.clock->run_free();  // a driver's own thread may sleep on it, and nobody moves it for a run that never was
    if (active) abandon();
    hal_->close();
    throw;
  }
}

/// Takes back an activation. What goes wrong here follows from what went wrong before, which is what is told.
void Loop::abandon() noexcept {
  hal_->stop(StopKind::hold);
  try {
    hal_->deactivate();
  } catch (...) {
  }
}

void Loop::leave() {
  hal_->stop(servo_->ending() == Ending::asked ? StopKind::hold : StopKind::soft_stop);
  hal_->deactivate();
}

void Loop::close() noexcept { hal_->close(); }

namespace {

/// A name in the folder that no other run has taken or will take: clocks of simulations all begin at the same time. The
/// draft that write_record renames in the end is the claim on it.
std::string claim_name(const std::filesystem::path& folder, uint64_t now_ns) {
  for (int n = 1;; ++n) {
    const std::string name = "flight-" + std::to_string(now_ns) + (n > 1 ? "-" + std::to_string(n) : "");
    const std::string path = (folder / (name + ".safetensors")).string(), draft = path + ".part";
    std::FILE* file = std::fopen(draft.c_str(), "wbx");
    if (!file && errno == EEXIST) continue;
    if (!file) return path;  // write_record says what is wrong
    std::fclose(file);
    std::error_code error;
    if (!std::filesystem::exists(path, error)) return path;
    std::filesystem::remove(draft, error);
  }
}

}  // namespace

void Loop::write(const RunRecord& record, const std::string& why) {
  std::error_code error;
  std::filesystem::create_directories(options_.dump, error);
  const std::string path = claim_name(options_.dump, options_.clock->now_ns());
  try {
    write_record(record, {why, filter_->limits()}, path);
  } catch (const std::exception& e) {
    const std::scoped_lock lock(mutex_);
    dump_error_ = e.what();
    throw;
  }
  const std::scoped_lock lock(mutex_);
  dumps_.push_back(path);
}

void Loop::dump(const std::string& why) {
  if (options_.dump.empty()) return;
  dump_evidence();
  const std::string words = servo_->last_words();
  const std::scoped_lock one(dumping_);
  write(servo_->record(), !why.empty() ? why : words.empty() ? "asked to stop" : words);
}

void Loop::dump_evidence() noexcept {
  FlightRecorder& recorder = servo_->recorder();
  if (!recorder.has_evidence()) return;
  const std::scoped_lock one(dumping_);
  if (!recorder.has_evidence()) return;
  try {
    write(recorder.evidence(), "emergency stop: braked, and latched until a reset");
  } catch (const std::exception& e) {
    std::fprintf(stderr, "wamcore: the flight record of an emergency stop is lost: %s\n", e.what());
  }
  recorder.release_evidence();
}

void Loop::check_ending() const {
  const std::string words = servo_->last_words();
  if (!words.empty()) throw RobotError("Runner: " + words);
}

bool Loop::observe(uint64_t now_ns) {
  servo_->set_epoch(policy_->epoch());  // here, for a reset also counts while an inference goes on
  servo_->view().fetch();
  const ServoView& view = servo_->view().latest();
  const int64_t position = view.paused ? view.position_ns : static_cast<int64_t>(now_ns) - view.origin_ns;
  const int64_t tick = Timeline(servo_options_.tick_ns).tick_at(position);
  const auto newest = source_->newest();
  // While the robot waits, its tick is looked at again once in a tick's time: the scene may move.
  const bool again =
      view.paused && newest && now_ns >= newest->sample_ns + static_cast<uint64_t>(servo_options_.tick_ns);
  bool sampled = false;
  if (!newest || tick > newest->tick || again) sampled = source_->sample(*hal_, tick, now_ns, view);
  const std::scoped_lock lock(mutex_);
  const bool news = sampled || seen_.paused != view.paused || seen_.decided != view.decided;
  seen_ = {view.paused, view.decided, view.executing};
  return news;
}

uint64_t Loop::next_look(uint64_t now_ns) const noexcept {
  const ServoView& view = servo_->view().latest();
  // A paused time line may run on at any cycle, and an inference that follows another at once waits for the servo's
  // decision about that; otherwise often enough to notice that the time line was stopped.
  if (view.paused || thinking_.load(std::memory_order_relaxed) || view.decided != queue_.sent_count())
    return now_ns + 2 * servo_options_.period_ns;
  const int64_t into = (static_cast<int64_t>(now_ns) - view.origin_ns) % servo_options_.tick_ns;
  const auto left = static_cast<uint64_t>(servo_options_.tick_ns - std::max<int64_t>(into, 0));
  return now_ns + std::min<uint64_t>(left, 20'000'000);
}

bool Loop::inference_due() noexcept {
  if (servo_->counters().phase.load(std::memory_order_relaxed) == Phase::estop) return false;
  const auto newest = source_->newest();
  if (!newest || servo_->pause_wanted()) return false;
  Seen seen;
  {
    const std::scoped_lock lock(mutex_);
    seen = seen_;
  }
  // Until the servo has decided about all we sent, nobody knows whether it waits, and which chunk there is to continue.
  if (seen.decided != queue_.sent_count()) return false;
  return scheduler_->due(newest->tick, newest->sample_ns, seen.paused, /*retry=*/refused() != refused_before_);
}

uint64_t Loop::refused() const noexcept {
  return servo_->counters().refused_chunks.load(std::memory_order_relaxed) +
         refused_here_.load(std::memory_order_relaxed);
}

void Loop::give_up_after_refusals() {
  const uint64_t admitted = servo_->counters().chunks.load(std::memory_order_relaxed), now = refused();
  if (admitted != admitted_before_) {
    admitted_before_ = admitted;
    streak_start_ = now;
  }
  refused_before_ = now;
  if (now - streak_start_ < kMaxRefusals) return;
  throw RobotError("Runner: " + std::to_string(now - streak_start_) + " chunks in a row were refused. " +
                   servo_->objections());
}

/// Fills plan_ with what the chunk in execution still has to say from `obs_tick` on, which is `lag` ticks ago; false if
/// there is nothing to continue, because the robot stands or the mode does not ask for it.
bool Loop::plan_to_continue(int64_t obs_tick, int lag) {
  if (options_.mode != Execution::rtc_guided && options_.mode != Execution::rtc_trained) return false;
  Seen seen;
  {
    const std::scoped_lock lock(mutex_);
    seen = seen_;
  }
  if (seen.paused || seen.executing < 0) return false;
  for (const ActionChunk& old : sent_) {
    if (static_cast<int64_t>(old.sequence) != seen.executing || old.horizon == 0) continue;
    const int64_t from = obs_tick - old.obs_tick;
    if (from < -old.horizon || from >= old.horizon) return false;
    plan_.rows = std::min(old.horizon, old.horizon - static_cast<int>(from));
    // The row of the tick in which the chunk takes over is frozen as well: that is where the seam lies.
    plan_.frozen = std::min(scheduler_->delay() + lag + 1, plan_.rows);
    if (options_.soft_ticks >= 0) plan_.rows = std::min(plan_.rows, plan_.frozen + options_.soft_ticks);
    plan_.q.clear();
    for (int i = 0; i < plan_.rows; ++i) {  // before its first row the robot stood there
      const double* row = old.row(static_cast<int>(std::max<int64_t>(from + i, 0)));
      plan_.q.insert(plan_.q.end(), row, row + old.dof);
    }
    return true;
  }
  return false;
}

Waypoints* Loop::infer() {
  const auto newest = source_->newest();
  scheduler_->started(newest->tick, newest->sample_ns);
  thinking_.store(true, std::memory_order_relaxed);
  give_up_after_refusals();
  Waypoints* slot = spare_ ? spare_ : queue_.borrow();
  spare_ = nullptr;
  if (!slot) return nullptr;  // the servo has ended and takes nothing any more
  const int lag = source_->assemble(observation_);

  SystemClock wall;
  const uint64_t begin = wall.now_ns();
  const bool continues = plan_to_continue(observation_.tick, lag);
  if (continues)
    policy_->extend(observation_, plan_, slot->chunk);
  else
    policy_->infer(observation_, slot->chunk);
  continued_.fetch_add(continues, std::memory_order_relaxed);
  inference_.add(static_cast<double>(wall.now_ns() - begin) * 1e-9);
  servo_->set_epoch(policy_->epoch());

  Reason reason = filter_->vet(slot->chunk);
  if (reason == Reason::none &&
      (slot->chunk.obs_tick != observation_.tick || slot->chunk.obs_ns != observation_.t_ns)) {
    reason = Reason::mismatch;  // an answer to another question, for instance the last chunk once more
    filter_->reject(reason);
  }
  if (reason != Reason::none) {
    refused_here_.fetch_add(1, std::memory_order_relaxed);
    spare_ = slot;
    thinking_.store(false, std::memory_order_relaxed);
    return nullptr;
  }
  if (options_.mode == Execution::temporal_ensemble) ensemble_.add(slot->chunk);
  slot->curvature.resize(slot->chunk.q.size());
  fit_spline(slot->chunk.q.data(), slot->chunk.horizon, slot->chunk.dof, slot->chunk.dt, slot->curvature.data());
  return slot;
}

void Loop::send(Waypoints* chunk, int ticks) {
  scheduler_->finished(ticks);
  sent_[sent_count_++ % sent_.size()] = chunk->chunk;
  queue_.send(chunk);
  thinking_.store(false, std::memory_order_relaxed);
}

RunnerStats Loop::stats() const {
  const ServoCounters& c = servo_->counters();
  const auto get = [](const std::atomic<uint64_t>& counter) { return counter.load(std::memory_order_relaxed); };
  RunnerStats s;
  s.cycles = get(c.cycles);
  s.ticks = get(c.ticks);
  s.starved_ticks = get(c.starved_ticks);
  s.chunks = get(c.chunks);
  s.refused_chunks = refused();
  s.late_chunks = get(c.late_chunks);
  s.continued_chunks = get(continued_);
  s.mode = options_.mode;
  s.skipped_rows = get(c.skipped_rows);
  s.stale_reads = get(c.stale_reads);
  s.stale_writes = get(c.stale_writes);
  s.fault_bits = c.fault_bits.load(std::memory_order_relaxed);
  s.inference = inference_.quantiles();
  s.cycle = c.cycle.quantiles();
  s.obs_age = c.obs_age.quantiles();
  s.seam_gap = c.seam_gap.quantiles();
  s.seam_jump = c.seam_jump.quantiles();
  for (size_t i = 0; i < s.delay_ticks.size(); ++i) s.delay_ticks[i] = get(c.delay_ticks[i]);
  for (int r = 0; r < kReasons; ++r) s.safety[static_cast<size_t>(r)] = filter_->count_of(static_cast<Reason>(r));
  s.phase = c.phase.load(std::memory_order_relaxed);
  const std::scoped_lock lock(mutex_);
  s.watchdog = watchdog_;
  s.dumps = dumps_;
  s.dump_error = dump_error_;
  return s;
}

}  // namespace wam
