#include <algorithm>
#include <cmath>

#include "limiter.h"
#include "wamcore/error.h"
#include "wamcore/safety.h"

namespace wam {
namespace {

// A test compiles this file once for every stage without that stage, and wants the other tests to notice.
#ifdef WAMCORE_WITHOUT_STAGE
constexpr bool has(Reason stage) { return stage != Reason::WAMCORE_WITHOUT_STAGE; }
#else
constexpr bool has(Reason) { return true; }
#endif

constexpr double kNoLimit = 1e6;  // rad, rad/step and so on

bool all_finite(std::span<const double> values) noexcept {
  return std::all_of(values.begin(), values.end(), [](double v) { return std::isfinite(v); });
}

void check(const SafetyOptions& o, const JointLimits& limits) {
  const auto refuse = [](const char* what) { throw ConfigError(std::string("SafetyFilter: ") + what); };
  if (!(o.period > 0.0 && o.period <= 1.0)) refuse("period wants a number in (0, 1] s");
  if (o.horizon < 0 || !(o.dt >= 0.0 && std::isfinite(o.dt))) refuse("horizon and dt want numbers >= 0");
  if (!(o.max_obs_age > 0.0)) refuse("max_obs_age wants a positive number of seconds");
  if (!(o.first_step_time > 0.0)) refuse("first_step_time wants a positive number of seconds");
  if (!o.max_first_step.empty() && o.max_first_step.size() != limits.names.size())
    refuse("max_first_step wants one entry for each joint");
  for (const double step : o.max_first_step)
    if (!(step > 0.0)) refuse("max_first_step wants positive numbers");
  if (!(o.range_slack >= 0.0 && o.seed_slack >= 0.0)) refuse("range_slack and seed_slack want numbers >= 0");
  if (!(o.soft_margin >= 0.0)) refuse("soft_margin wants a number >= 0");
  for (size_t j = 0; j < limits.names.size(); ++j)
    if (!(2.0 * o.soft_margin < limits.position_max[j] - limits.position_min[j]))
      refuse("soft_margin wants less than half of every joint's range");
  if (!(o.hold_time >= 0.0 && o.hold_time <= 3600.0)) refuse("hold_time wants a number in [0, 3600] s");
  if (!(o.hold_braking > 0.0 && o.hold_braking <= 1.0)) refuse("hold_braking wants a fraction in (0, 1]");
  if (!(o.standstill > 0.0)) refuse("standstill wants a positive number of rad/s");
}

}  // namespace

const char* name(Reason reason) noexcept {
  static constexpr const char* names[kReasons] = {"none",     "shape",    "non_finite",   "range",     "mismatch",
                                                  "epoch",    "sequence", "obs_age",      "chunk_age", "first_step",
                                                  "position", "jerk",     "acceleration", "velocity",  "workspace",
                                                  "hold",     "stop",     "estop"};
  const auto i = static_cast<size_t>(reason);
  return i < kReasons ? names[i] : "unknown";
}

const char* name(Phase phase) noexcept {
  static constexpr const char* names[kPhases] = {"unseeded", "follow", "hold", "stop", "stopped", "estop"};
  const auto i = static_cast<size_t>(phase);
  return i < kPhases ? names[i] : "unknown";
}

Workspace::~Workspace() = default;

struct SafetyFilter::Joint {
  JointBounds bounds;
  JointMotion motion;
  double max_first_step;   // rad
  double previous_target;  // rad
};

SafetyFilter::SafetyFilter(JointLimits limits, SafetyOptions options)
    : limits_(std::move(limits)), options_(std::move(options)) {
  limits_.validate();
  check(options_, limits_);
  joints_ = std::make_unique<Joint[]>(limits_.names.size());
  before_ = std::make_unique<Joint[]>(limits_.names.size());
  pose_.resize(limits_.names.size());
  const double h = options_.period;
  for (size_t j = 0; j < limits_.names.size(); ++j) {
    Joint& joint = joints_[j];
    const double low = has(Reason::position) ? limits_.position_min[j] : -kNoLimit;
    const double high = has(Reason::position) ? limits_.position_max[j] : kNoLimit;
    const double acceleration = has(Reason::acceleration) ? limits_.acceleration[j] * h * h : kNoLimit;
    const double jerk = has(Reason::jerk) ? limits_.jerk_of(static_cast<int>(j)) * h * h * h : kNoLimit;
    joint.bounds = {.position_min = low,
                    .position_max = high,
                    .soft_min = low + options_.soft_margin,
                    .soft_max = high - options_.soft_margin,
                    .velocity = has(Reason::velocity) ? limits_.velocity[j] * h : kNoLimit,
                    .acceleration = acceleration,
                    .jerk = std::min(jerk, 2.0 * acceleration)};  // which is all there can be in one step
    joint.max_first_step =
        options_.max_first_step.empty() ? limits_.velocity[j] * options_.first_step_time : options_.max_first_step[j];
  }
  hold_steps_ = static_cast<uint64_t>(std::ceil(options_.hold_time / options_.period));
}

SafetyFilter::~SafetyFilter() = default;

bool SafetyFilter::seed(std::span<const double> measured) noexcept {
  if (measured.size() != limits_.names.size() || !all_finite(measured)) return false;
  for (size_t j = 0; j < measured.size(); ++j)
    if (measured[j] < limits_.position_min[j] - options_.seed_slack ||
        measured[j] > limits_.position_max[j] + options_.seed_slack)
      return false;
  for (size_t j = 0; j < measured.size(); ++j)
    pose_[j] = std::clamp(measured[j], limits_.position_min[j], limits_.position_max[j]);
  if (has(Reason::workspace) && options_.workspace && !options_.workspace->allows(pose_)) {
    count(Reason::workspace);
    return false;
  }
  for (size_t j = 0; j < measured.size(); ++j) joints_[j].motion = {.q = pose_[j]};
  phase_ = Phase::hold;
  starved_steps_ = 0;
  has_sequence_ = false;
  return true;
}

bool SafetyFilter::fits(const ActionChunk& chunk) const noexcept {
  if (chunk.horizon < 1 || chunk.dof != limits_.dof()) return false;
  if (chunk.q.size() != static_cast<size_t>(chunk.horizon) * limits_.names.size()) return false;
  if (options_.horizon != 0 && chunk.horizon != options_.horizon) return false;
  if (!(chunk.dt > 0.0 && chunk.dt <= 1e3)) return false;
  return options_.dt == 0.0 || std::abs(chunk.dt - options_.dt) <= 1e-9 * options_.dt;
}

bool SafetyFilter::in_range(const ActionChunk& chunk) const noexcept {
  for (size_t i = 0; i < chunk.q.size(); ++i) {
    const size_t j = i % limits_.names.size();
    if (chunk.q[i] < limits_.position_min[j] - options_.range_slack ||
        chunk.q[i] > limits_.position_max[j] + options_.range_slack)
      return false;
  }
  return true;
}

Reason SafetyFilter::objection(const ActionChunk& chunk) const noexcept {
  if (has(Reason::shape) && !fits(chunk)) return Reason::shape;
  if (has(Reason::non_finite) && !all_finite(chunk.q)) return Reason::non_finite;
  if (has(Reason::range) && !in_range(chunk)) return Reason::range;
  return Reason::none;
}

Reason SafetyFilter::freshness(const ActionChunk& chunk, const Moment& now) const noexcept {
  // An observation from the future has the wrong clock or the wrong tick; its age means nothing.
  if (has(Reason::mismatch) && (chunk.obs_ns > now.t_ns || chunk.obs_tick > now.tick)) return Reason::mismatch;
  if (has(Reason::epoch) && (chunk.epoch != now.epoch || chunk.obs_ns < now.since_ns)) return Reason::epoch;
  if (has(Reason::sequence) && has_sequence_ && chunk.epoch == sequence_epoch_ && chunk.sequence <= sequence_)
    return Reason::sequence;
  const double age = static_cast<double>(now.t_ns - chunk.obs_ns) * 1e-9;
  if (has(Reason::obs_age) && age > options_.max_obs_age) return Reason::obs_age;
  if (has(Reason::chunk_age) && now.tick - chunk.horizon >= chunk.obs_tick) return Reason::chunk_age;
  return Reason::none;
}

bool SafetyFilter::begins_here(const ActionChunk& chunk, const Moment& now,
                               std::span<const double> measured) const noexcept {
  if (measured.size() != limits_.names.size()) return false;
  const double* row = chunk.row(static_cast<int>(now.tick - chunk.obs_tick));
  for (size_t j = 0; j < measured.size(); ++j)
    if (!(std::abs(row[j] - measured[j]) <= joints_[j].max_first_step)) return false;
  return true;
}

Reason SafetyFilter::vet(const ActionChunk& chunk) noexcept {
  const Reason reason = objection(chunk);
  if (reason != Reason::none) count(reason);
  return reason;
}

Reason SafetyFilter::admit(const ActionChunk& chunk, const Moment& now, std::span<const double> measured) noexcept {
  Reason reason = objection(chunk);
  if (reason == Reason::none) reason = freshness(chunk, now);
  if (reason == Reason::none && has(Reason::first_step) && !begins_here(chunk, now, measured))
    reason = Reason::first_step;
  if (reason == Reason::none && latched()) reason = Reason::estop;
  if (reason != Reason::none) {
    count(reason);
    return reason;
  }
  has_sequence_ = true;
  sequence_ = chunk.sequence;
  sequence_epoch_ = chunk.epoch;
  return reason;
}

Verdict SafetyFilter::follow_target(std::span<const double> target) noexcept {
  if (options_.workspace) std::copy_n(joints_.get(), target.size(), before_.get());
  Limited any;
  const bool resumes = phase_ != Phase::follow;  // then the target before this one says nothing about its velocity
  for (size_t j = 0; j < target.size(); ++j) {
    Joint& joint = joints_[j];
    const Limited limited = follow(joint.motion, target[j], resumes ? target[j] : joint.previous_target, joint.bounds);
    joint.previous_target = target[j];
    any.position |= limited.position;
    any.jerk |= limited.jerk;
    any.acceleration |= limited.acceleration;
    any.velocity |= limited.velocity;
  }
  phase_ = Phase::follow;
  starved_steps_ = 0;
  Reason first = Reason::none;
  const auto note = [&](bool changed, Reason reason) {
    if (!changed) return;
    count(reason);
    if (first == Reason::none) first = reason;
  };
  note(any.position, Reason::position);
  note(any.jerk, Reason::jerk);
  note(any.acceleration, Reason::acceleration);
  note(any.velocity, Reason::velocity);
  if (!workspace_allows()) {  // back, and one step along the way to a stand, which was allowed when it was chosen
    std::copy_n(before_.get(), target.size(), joints_.get());
    for (size_t j = 0; j < target.size(); ++j) brake(joints_[j].motion, joints_[j].bounds);
    note(true, Reason::workspace);
  }
  return {phase_, first};
}

bool SafetyFilter::workspace_allows() noexcept {
  if (!has(Reason::workspace) || !options_.workspace) return true;
  for (size_t j = 0; j < pose_.size(); ++j) pose_[j] = joints_[j].motion.q;
  if (!options_.workspace->allows(pose_)) return false;
  for (size_t j = 0; j < pose_.size(); ++j) pose_[j] += joints_[j].motion.stop.end();
  return options_.workspace->allows(pose_);
}

Verdict SafetyFilter::slow_down(Phase phase) noexcept {
  const size_t dof = limits_.names.size();
  bool gently = phase == Phase::hold;
  if (gently) {
    if (options_.workspace) std::copy_n(joints_.get(), dof, before_.get());
    for (size_t j = 0; j < dof; ++j) hold(joints_[j].motion, options_.hold_braking, joints_[j].bounds);
    gently = workspace_allows();
    if (!gently) std::copy_n(before_.get(), dof, joints_.get());
  }
  for (size_t j = 0; j < dof && !gently; ++j) brake(joints_[j].motion, joints_[j].bounds);
  phase_ = phase == Phase::stop && standing() ? Phase::stopped : phase;
  const Reason reason = phase == Phase::hold ? Reason::hold : phase == Phase::estop ? Reason::estop : Reason::stop;
  return {phase_, reason};
}

Verdict SafetyFilter::step(std::span<const double> target, std::span<double> out) noexcept {
  if (phase_ == Phase::unseeded || out.size() != limits_.names.size()) return {Phase::unseeded, Reason::shape};
  Verdict verdict;
  Reason fault = Reason::none;
  if (!target.empty() && target.size() != limits_.names.size()) fault = Reason::shape;
  if (has(Reason::non_finite) && fault == Reason::none && !all_finite(target)) fault = Reason::non_finite;
  if (fault != Reason::none) count(fault);

  if (phase_ == Phase::stop || phase_ == Phase::stopped || shut_down_.load(std::memory_order_relaxed)) {
    verdict = slow_down(Phase::stop);
  } else if (latched()) {
    verdict = slow_down(Phase::estop);
  } else if (!target.empty() && fault == Reason::none) {
    verdict = follow_target(target);
  } else if (!has(Reason::stop) || (++starved_steps_ <= hold_steps_ && has(Reason::hold))) {
    verdict = slow_down(Phase::hold);
  } else {
    verdict = slow_down(Phase::stop);
  }
  if (verdict.phase != Phase::follow) count(verdict.reason);
  for (size_t j = 0; j < out.size(); ++j) out[j] = joints_[j].motion.q;
  return verdict;
}

Verdict SafetyFilter::wait(std::span<double> out) noexcept {
  const bool free = phase_ == Phase::follow || phase_ == Phase::hold;
  if (!free || latched() || shut_down_.load(std::memory_order_relaxed)) return step({}, out);
  if (out.size() != limits_.names.size()) return {phase_, Reason::shape};
  slow_down(Phase::hold);
  starved_steps_ = 0;
  for (size_t j = 0; j < out.size(); ++j) out[j] = joints_[j].motion.q;
  return {phase_, Reason::none};
}

bool SafetyFilter::latched() const noexcept {
  return has(Reason::estop) && estops_.load(std::memory_order_relaxed) != estops_cleared_;
}

bool SafetyFilter::standing() const noexcept {
  for (size_t j = 0; j < limits_.names.size(); ++j)
    if (joints_[j].motion.v != 0.0 || joints_[j].motion.a != 0.0) return false;
  return true;
}

bool SafetyFilter::reset(std::span<const double> measured, std::span<const double> measured_velocity) noexcept {
  const uint64_t requests = estops_.load(std::memory_order_relaxed);  // one that comes while we look stays latched
  if (phase_ == Phase::unseeded || phase_ == Phase::follow || phase_ == Phase::hold) return false;
  if (!standing() || measured_velocity.size() != limits_.names.size()) return false;
  for (const double v : measured_velocity)
    if (!(std::abs(v) <= options_.standstill)) return false;
  if (!seed(measured)) return false;
  estops_cleared_ = requests;
  shut_down_.store(false, std::memory_order_relaxed);
  return true;
}

uint64_t SafetyFilter::count_of(Reason reason) const noexcept {
  const auto i = static_cast<size_t>(reason);
  return i < kReasons ? counts_[i].load(std::memory_order_relaxed) : 0;
}

double SafetyFilter::position(int j) const noexcept { return joints_[static_cast<size_t>(j)].motion.q; }
double SafetyFilter::velocity(int j) const noexcept {
  return joints_[static_cast<size_t>(j)].motion.v / options_.period;
}
double SafetyFilter::acceleration(int j) const noexcept {
  return joints_[static_cast<size_t>(j)].motion.a / (options_.period * options_.period);
}

}  // namespace wam
