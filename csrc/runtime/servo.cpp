#include "servo.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

#include "wamcore/clock.h"
#include "wamcore/error.h"

namespace wam {
namespace {

/// What the servo itself watches, before and behind the filter. The tests are built once without each.
enum class Watch : uint8_t { finite, seeing, chunk_age, epoch, pause, since, device_stop, refused_stop, write_stall };
#ifdef WAMCORE_WITHOUT_WATCH
constexpr bool has(Watch w) { return w != Watch::WAMCORE_WITHOUT_WATCH; }
#else
constexpr bool has(Watch) { return true; }
#endif

bool all_finite(std::span<const double> values) noexcept {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

void increment(std::atomic<uint64_t>& counter, uint64_t by = 1) noexcept {
  counter.fetch_add(by, std::memory_order_relaxed);
}

std::string list(std::span<const double> values) {
  std::string text;
  char number[32];
  for (const double v : values) {
    std::snprintf(number, sizeof number, "%s%.4f", text.empty() ? "" : ", ", v);
    text += number;
  }
  return "[" + text + "] rad";
}

}  // namespace

Servo::Servo(Hal& hal, SafetyFilter& filter, WaypointQueue& queue, const ServoOptions& options)
    : hal_(hal),
      filter_(filter),
      queue_(queue),
      options_(options),
      timeline_(options.tick_ns),
      interpolator_(filter.limits().dof(), options.tick_ns),
      view_({.q = std::vector<double>(filter.limits().names.size())}),
      record_(filter.limits().dof(), options.record_rows, options.record_after),
      dof_(filter.limits().names.size()) {
  for (auto* v : {&read_q_, &read_dq_, &read_tau_, &q_, &dq_, &ref_q_, &ref_v_, &ref_a_, &from_q_, &from_v_, &from_a_,
                  &command_, &last_command_, &speed_})
    v->assign(dof_, 0.0);
  closed_.resize(options.grippers.size());
  for (const Gripper& g : options.grippers) interpolator_.leave_out(static_cast<size_t>(g.joint));
}

void Servo::start(uint64_t now_ns) {
  read_joints(now_ns);
  if (ending_ != Ending::none || state_ns_ == 0)
    throw RobotError("Runner.start: the joints could not be read " + hal_.error());
  if (!filter_.seed(q_)) {
    if (filter_.count_of(Reason::workspace) > 0)
      throw RobotError("Runner.start: the workspace forbids the pose in which the robot stands, " + list(q_) +
                       ": move it out by hand, or give the workspace more room");
    throw RobotError("Runner.start: the measured joints " + list(q_) + " are not all finite and inside their limits");
  }
  last_command_ = q_;
  for (size_t i = 0; i < closed_.size(); ++i) {
    const Gripper& g = options_.grippers[i];
    closed_[i] = (q_[static_cast<size_t>(g.joint)] - g.open) / (g.closed - g.open) >= 0.5;
  }
  refused_ns_.reset();
  current_epoch_ = epoch_.load(std::memory_order_relaxed);
  show(now_ns);
}

void Servo::read_joints(uint64_t now_ns) noexcept {
  State state{.q = read_q_, .dq = read_dq_, .tau = read_tau_};
  const Status status = hal_.read(state);
  if (state.fault_bits) counters_.fault_bits.fetch_or(state.fault_bits, std::memory_order_relaxed);
  if (status == Status::fault) ending_ = Ending::read_fault;
  if (status == Status::estop && has(Watch::device_stop)) filter_.estop();
  if (status != Status::ok || (has(Watch::finite) && !(all_finite(read_q_) && all_finite(read_dq_)))) {
    increment(counters_.stale_reads);
    return;
  }
  std::copy(read_q_.begin(), read_q_.end(), q_.begin());
  std::copy(read_dq_.begin(), read_dq_.end(), dq_.begin());
  state_ns_ = state.t_ns ? state.t_ns : now_ns;
  // Joints that the driver measured within its read() are of this cycle, although that had begun before.
  if (state_ns_ > now_ns && state_ns_ <= options_.clock->now_ns()) state_ns_ = now_ns;
}

bool Servo::seeing(uint64_t now_ns) const noexcept {
  // A measurement from the future comes from another clock: its age cannot be vouched for.
  return !has(Watch::seeing) || (state_ns_ <= now_ns && now_ns - state_ns_ <= options_.max_state_age_ns);
}

void Servo::void_current() noexcept {
  if (Waypoints* old = interpolator_.release()) queue_.give_back(old);
  timeline_.pause(last_position_ns_);
  on_reference_ = false;
}

void Servo::handle_reset(uint64_t now_ns) noexcept {
  if (reset_.load(std::memory_order_acquire) != Reset::requested) return;
  const bool done = seeing(now_ns) && filter_.reset(q_, dq_);
  if (done) {
    void_current();
    since_ns_ = now_ns;
    std::copy(q_.begin(), q_.end(), last_command_.begin());
  }
  reset_.store(done ? Reset::done : Reset::refused, std::memory_order_release);
}

bool Servo::reset_decided(bool& done) const noexcept {
  const Reset reset = reset_.load(std::memory_order_acquire);
  done = reset == Reset::done;
  return reset == Reset::done || reset == Reset::refused;
}

void Servo::handle_epoch() noexcept {
  const uint32_t epoch = epoch_.load(std::memory_order_relaxed);
  if (epoch == current_epoch_) return;
  current_epoch_ = epoch;
  if (has(Watch::epoch))
    void_current();  // the reset was asked for: the robot holds until the first chunk of the new epoch
}

void Servo::handle_pause(uint64_t now_ns) noexcept {
  const bool wanted = pause_.load(std::memory_order_relaxed);
  if (wanted && !pausing_ && has(Watch::pause)) void_current();
  if (!wanted && pausing_ && has(Watch::since)) since_ns_ = now_ns;  // what was seen before may not be there any more
  pausing_ = wanted;
}

/// The motion to blend from: the reference if the robot is on it, else what was last commanded, one period on.
void Servo::motion_before(int64_t position_ns) noexcept {
  if (on_reference_ && interpolator_.sample(position_ns, {from_q_, from_v_, from_a_})) return;
  const double period = static_cast<double>(options_.period_ns) * 1e-9;
  for (size_t j = 0; j < dof_; ++j) {
    const int joint = static_cast<int>(j);
    from_v_[j] = filter_.velocity(joint);
    from_q_[j] = filter_.position(joint) + from_v_[j] * period;
    from_a_[j] = from_v_[j] != 0.0 ? filter_.acceleration(joint) : 0.0;  // a joint that stands has no braking left
  }
}

void Servo::switch_to(Waypoints* next, uint64_t now_ns) noexcept {
  // A paused time line goes on one period after the position at which it stopped; if it was paused for no time at all
  // (simulated sync mode), this continues it without a trace.
  if (timeline_.paused())
    timeline_.resume(timeline_.position(now_ns) + static_cast<int64_t>(options_.period_ns), now_ns);
  const int64_t position = timeline_.position(now_ns);
  motion_before(position);
  Waypoints* old = interpolator_.release();
  const double gap = interpolator_.switch_to(next, position, options_.blend_ns, {from_q_, from_v_, from_a_});
  if (old) queue_.give_back(old);
  counters_.seam_gap.add(gap);
  seam_ = gap;
  switched_ = true;
}

void Servo::take_chunks(uint64_t now_ns) noexcept {
  while (Waypoints* next = queue_.take()) {
    if (pausing_) {  // nobody's fault
      queue_.give_back(next);
      queue_.decided();
      continue;
    }
    const int64_t position = timeline_.position(now_ns), tick = timeline_.tick_at(position);
    const Moment moment{.tick = tick, .t_ns = now_ns, .epoch = current_epoch_, .since_ns = since_ns_};
    const std::span<const double> measured = seeing(now_ns) ? std::span<const double>(q_) : std::span<const double>();
    if (filter_.admit(next->chunk, moment, measured) != Reason::none) {
      increment(counters_.refused_chunks);
      queue_.give_back(next);
    } else {
      const auto row = static_cast<uint64_t>(tick - next->chunk.obs_tick);
      increment(counters_.chunks);
      increment(counters_.skipped_rows, row);
      increment(counters_.delay_ticks[std::min<size_t>(row, counters_.delay_ticks.size() - 1)]);
      if (!timeline_.paused() && !interpolator_.sample(position, {ref_q_, ref_v_, ref_a_}))
        increment(counters_.late_chunks);
      switch_to(next, now_ns);
    }
    queue_.decided();
  }
}

bool Servo::reference_at(int64_t position_ns, uint64_t now_ns) noexcept {
  const Waypoints* current = interpolator_.current();
  if (!current || !seeing(now_ns)) return false;
  if (has(Watch::chunk_age) && now_ns - current->chunk.obs_ns > options_.max_chunk_age_ns) return false;
  if (!interpolator_.sample(position_ns, {ref_q_, ref_v_, ref_a_})) return false;
  decide_grippers(position_ns);
  return true;
}

/// Puts the grippers' decisions in place of what was interpolated for them. The row that counts is the one of this
/// tick.
void Servo::decide_grippers(int64_t position_ns) noexcept {
  const ActionChunk& chunk = interpolator_.current()->chunk;
  const int64_t row = std::clamp<int64_t>(timeline_.tick_at(position_ns) - chunk.obs_tick, 0, chunk.horizon - 1);
  for (size_t i = 0; i < closed_.size(); ++i) {
    const Gripper& g = options_.grippers[i];
    const auto j = static_cast<size_t>(g.joint);
    const double wish = (chunk.row(static_cast<int>(row))[j] - g.open) / (g.closed - g.open);
    if (std::abs(wish - 0.5) > 0.5 * g.hysteresis) closed_[i] = wish > 0.5;
    ref_q_[j] = closed_[i] ? g.closed : g.open;
    ref_v_[j] = ref_a_[j] = 0.0;
  }
}

void Servo::write_command(uint64_t now_ns) noexcept {
  for (size_t j = 0; j < dof_; ++j) speed_[j] = filter_.velocity(static_cast<int>(j));
  const Command command{.t_ns = now_ns,
                        .valid_until_ns = now_ns + options_.command_validity_ns,
                        .mode = Mode::position,
                        .q = command_,
                        .dq = speed_};
  switch (hal_.write(command)) {
    case Status::ok:
      refused_ns_.reset();
      break;
    case Status::stale:
    case Status::retry:
      increment(counters_.stale_writes);
      // From the first refusal on: a gap of the servo's own, on a machine with too much to do, is not the driver's.
      if (!refused_ns_) refused_ns_ = now_ns;
      if (has(Watch::write_stall) && now_ns - *refused_ns_ > options_.command_validity_ns)
        ending_ = Ending::write_stall;
      break;
    case Status::fault:
      ending_ = Ending::write_fault;
      break;
    case Status::estop:
      if (has(Watch::refused_stop)) filter_.estop();
      break;
  }
}

bool Servo::cycle(uint64_t now_ns) noexcept {
  if (ending_ != Ending::none) return false;
  increment(counters_.cycles);
  switched_ = false;
  read_joints(now_ns);
  if (ending_ != Ending::none) return false;
  const SystemClock wall;
  const uint64_t begin = wall.now_ns();
  handle_reset(now_ns);
  handle_epoch();
  handle_pause(now_ns);
  take_chunks(now_ns);

  const bool waiting = timeline_.paused();
  const int64_t position = timeline_.position(now_ns);
  const bool fresh = !waiting && reference_at(position, now_ns);
  if (waiting)
    verdict_ = filter_.wait(command_);
  else
    verdict_ = filter_.step(fresh ? std::span<const double>(ref_q_) : std::span<const double>(), command_);
  on_reference_ = fresh && verdict_.phase == Phase::follow && verdict_.reason == Reason::none;
  uint64_t spent = wall.now_ns() - begin;
  write_command(now_ns);
  const uint64_t written = wall.now_ns();
  if (verdict_.phase == Phase::stopped)
    ending_ = asked_.load(std::memory_order_relaxed) ? Ending::asked : Ending::watchdog;

  account(fresh, now_ns);
  const Waypoints* current = interpolator_.current();
  if (options_.mode == Execution::sync && current && seeing(now_ns) &&
      position >= (current->chunk.obs_tick + options_.execute_horizon) * options_.tick_ns)
    timeline_.pause(position);
  show(now_ns);
  std::copy(command_.begin(), command_.end(), last_command_.begin());
  spent += wall.now_ns() - written;
  counters_.cycle.add(static_cast<double>(spent) * 1e-9);
  return ending_ == Ending::none;
}

void Servo::account(bool fresh, uint64_t now_ns) noexcept {
  const int64_t position = timeline_.position(now_ns);
  const int64_t passed = timeline_.tick_at(position) - timeline_.tick_at(last_position_ns_);
  if (passed > 0) increment(counters_.ticks, static_cast<uint64_t>(passed));
  if (passed > 0 && !fresh && !timeline_.paused()) increment(counters_.starved_ticks, static_cast<uint64_t>(passed));
  last_position_ns_ = position;
  counters_.phase.store(verdict_.phase, std::memory_order_relaxed);

  const Waypoints* current = interpolator_.current();
  if (fresh) counters_.obs_age.add(static_cast<double>(now_ns - current->chunk.obs_ns) * 1e-9);
  if (switched_) {
    const double period = static_cast<double>(options_.period_ns) * 1e-9;
    double jump = 0.0;
    for (size_t j = 0; j < dof_; ++j)
      jump = std::max(jump, std::abs(command_[j] - last_command_[j]) - std::abs(ref_v_[j]) * period);
    counters_.seam_jump.add(jump);
  }
  record_.append({.t_ns = now_ns,
                  .tick = static_cast<double>(position) / static_cast<double>(options_.tick_ns),
                  .command = command_,
                  .reference = fresh ? std::span<const double>(ref_q_) : std::span<const double>(),
                  .measured = q_,
                  .phase = verdict_.phase,
                  .reason = verdict_.reason,
                  .chunk = current ? static_cast<int64_t>(current->chunk.sequence) : -1,
                  .obs_age = current ? static_cast<double>(now_ns - current->chunk.obs_ns) * 1e-9
                                     : std::numeric_limits<double>::quiet_NaN(),
                  .seam = switched_ ? seam_ : 0.0});
}

void Servo::show(uint64_t now_ns) noexcept {
  ServoView& view = view_.draft();
  view.position_ns = timeline_.position(now_ns);
  view.origin_ns = timeline_.origin_ns();
  view.paused = timeline_.paused();
  view.decided = queue_.decided_count();
  const Waypoints* current = interpolator_.current();
  view.executing = current ? static_cast<int64_t>(current->chunk.sequence) : -1;
  view.state_ns = state_ns_;
  std::copy(q_.begin(), q_.end(), view.q.begin());
  view_.publish();
}

void Servo::shut_down() noexcept {
  asked_.store(true, std::memory_order_relaxed);
  filter_.shut_down();
}

std::string Servo::objections() const {
  std::string text = "Safety stages that objected:";
  for (int r = 1; r < kReasons; ++r)
    if (const uint64_t n = filter_.count_of(static_cast<Reason>(r)))
      text += std::string(" ") + name(static_cast<Reason>(r)) + "=" + std::to_string(n);
  return text + ".";
}

std::string Servo::last_words() const {
  std::string why;
  switch (ending_) {
    case Ending::none:
    case Ending::asked:
      return {};
    case Ending::watchdog:
      why = "no admissible command for too long; the robot was braked to a stand. " + objections();
      break;
    case Ending::read_fault:
      why = "the driver could not read the joints: " + hal_.error() + ".";
      break;
    case Ending::write_fault:
      why = "the driver did not take a command: " + hal_.error() + ".";
      break;
    case Ending::write_stall:
      why = "the driver took no command for longer than one is valid; it is too slow for this control rate. " +
            hal_.error();
      break;
  }
  if (const uint32_t bits = counters_.fault_bits.load(std::memory_order_relaxed)) {
    char text[48];
    std::snprintf(text, sizeof text, " The driver reported fault bits 0x%08x.", static_cast<unsigned>(bits));
    why += text;
  }
  return why + " Last measured " + list(q_) + ", last commanded " + list(last_command_) + ".";
}

}  // namespace wam
