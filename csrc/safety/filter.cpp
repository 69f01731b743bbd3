#include <algorithm>
#include <cmath>

#include "limiter.h"
#include "wamcore/error.h"
#include "wamcore/safety.h"

namespace wam {
namespace {

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
  if (!(o.hold_time >= 0.0 && o.hold_time <= 3600.0)) refuse("hold_time wants a number in [0, 3600] s");
  if (!(o.hold_braking > 0.0 && o.hold_braking <= 1.0)) refuse("hold_braking wants a fraction in (0, 1]");
  if (!(o.standstill > 0.0)) refuse("standstill wants a positive number of rad/s");
}

}  // namespace

const char* name(Reason reason) noexcept {
  static constexpr const char* names[kReasons] = {
      "none",      "shape",      "non_finite", "range",        "mismatch", "epoch", "sequence", "obs_age",
      "chunk_age", "first_step", "position",   "acceleration", "velocity", "hold",  "stop",     "estop"};
  const auto i = static_cast<size_t>(reason);
  return i < kReasons ? names[i] : "unknown";
}

const char* name(Phase phase) noexcept {
  static constexpr const char* names[kPhases] = {"unseeded", "follow", "hold", "stop", "stopped", "estop"};
  const auto i = static_cast<size_t>(phase);
  return i < kPhases ? names[i] : "unknown";
}

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
  for (size_t j = 0; j < limits_.names.size(); ++j) {
    Joint& joint = joints_[j];
    joint.bounds = {limits_.position_min[j], limits_.position_max[j], limits_.velocity[j], limits_.acceleration[j],
                    options_.period};
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
    joints_[j].motion = {.q = std::clamp(measured[j], limits_.position_min[j], limits_.position_max[j])};
  phase_ = Phase::hold;
  starved_steps_ = 0;
  has_sequence_ = false;
  return true;
}

Reason SafetyFilter::objection(const ActionChunk& chunk) const noexcept {
  const int dof = limits_.dof();
  if (chunk.horizon < 1 || chunk.dof != dof || chunk.q.size() != static_cast<size_t>(chunk.horizon) * dof)
    return Reason::shape;
  if (options_.horizon != 0 && chunk.horizon != options_.horizon) return Reason::shape;
  if (!(chunk.dt > 0.0 && chunk.dt <= 1e3)) return Reason::shape;
  if (options_.dt != 0.0 && std::abs(chunk.dt - options_.dt) > 1e-9 * options_.dt) return Reason::shape;
  if (!all_finite(chunk.q)) return Reason::non_finite;
  for (int i = 0; i < chunk.horizon; ++i)
    for (int j = 0; j < dof; ++j) {
      const double q = chunk.row(i)[j];
      if (q < limits_.position_min[j] - options_.range_slack || q > limits_.position_max[j] + options_.range_slack)
        return Reason::range;
    }
  return Reason::none;
}

Reason SafetyFilter::freshness(const ActionChunk& chunk, const Moment& now) const noexcept {
  // An observation from the future has the wrong clock or the wrong tick; its age means nothing.
  if (chunk.obs_ns > now.t_ns || chunk.obs_tick > now.tick) return Reason::mismatch;
  if (chunk.epoch != now.epoch || chunk.obs_ns < now.since_ns) return Reason::epoch;
  if (has_sequence_ && chunk.epoch == sequence_epoch_ && chunk.sequence <= sequence_) return Reason::sequence;
  if (static_cast<double>(now.t_ns - chunk.obs_ns) * 1e-9 > options_.max_obs_age) return Reason::obs_age;
  if (now.tick - chunk.obs_tick >= chunk.horizon) return Reason::chunk_age;
  return Reason::none;
}

Reason SafetyFilter::first_step(const ActionChunk& chunk, const Moment& now,
                                std::span<const double> measured) const noexcept {
  if (measured.size() != limits_.names.size()) return Reason::first_step;
  const double* row = chunk.row(static_cast<int>(now.tick - chunk.obs_tick));
  for (size_t j = 0; j < measured.size(); ++j)
    if (!(std::abs(row[j] - measured[j]) <= joints_[j].max_first_step)) return Reason::first_step;
  return Reason::none;
}

Reason SafetyFilter::vet(const ActionChunk& chunk) noexcept {
  const Reason reason = objection(chunk);
  if (reason != Reason::none) count(reason);
  return reason;
}

Reason SafetyFilter::admit(const ActionChunk& chunk, const Moment& now, std::span<const double> measured) noexcept {
  Reason reason = objection(chunk);
  if (reason == Reason::none) reason = freshness(chunk, now);
  if (reason == Reason::none) reason = first_step(chunk, now, measured);
  if (reason == Reason::none && estops_.load(std::memory_order_relaxed) != estops_cleared_) reason = Reason::estop;
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
  Limited any;
  const bool resumes = phase_ != Phase::follow;  // then the target before this one says nothing about its velocity
  for (size_t j = 0; j < target.size(); ++j) {
    Joint& joint = joints_[j];
    const Limited limited = follow(joint.motion, target[j], resumes ? target[j] : joint.previous_target, joint.bounds);
    joint.previous_target = target[j];
    any.position |= limited.position;
    any.acceleration |= limited.acceleration;
    any.velocity |= limited.velocity;
  }
  phase_ = Phase::follow;
  starved_steps_ = 0;
  if (any.position) count(Reason::position);
  if (any.acceleration) count(Reason::acceleration);
  if (any.velocity) count(Reason::velocity);
  return {phase_, any.position       ? Reason::position
                  : any.acceleration ? Reason::acceleration
                  : any.velocity     ? Reason::velocity
                                     : Reason::none};
}

Verdict SafetyFilter::slow_down(Phase phase, double fraction) noexcept {
  for (size_t j = 0; j < limits_.names.size(); ++j) brake(joints_[j].motion, fraction, joints_[j].bounds);
  phase_ = phase == Phase::stop && standing() ? Phase::stopped : phase;
  const Reason reason = phase == Phase::hold ? Reason::hold : phase == Phase::estop ? Reason::estop : Reason::stop;
  return {phase_, reason};
}

Verdict SafetyFilter::step(std::span<const double> target, std::span<double> out) noexcept {
  if (phase_ == Phase::unseeded || out.size() != limits_.names.size()) return {Phase::unseeded, Reason::shape};
  Verdict verdict;
  Reason fault = Reason::none;
  if (!target.empty() && target.size() != limits_.names.size()) fault = Reason::shape;
  if (fault == Reason::none && !all_finite(target)) fault = Reason::non_finite;
  if (fault != Reason::none) count(fault);

  if (phase_ == Phase::stop || phase_ == Phase::stopped || shut_down_.load(std::memory_order_relaxed)) {
    verdict = slow_down(Phase::stop, 1.0);
  } else if (estops_.load(std::memory_order_relaxed) != estops_cleared_) {
    verdict = slow_down(Phase::estop, 1.0);
  } else if (!target.empty() && fault == Reason::none) {
    verdict = follow_target(target);
  } else if (++starved_steps_ <= hold_steps_) {
    verdict = slow_down(Phase::hold, options_.hold_braking);
  } else {
    verdict = slow_down(Phase::stop, 1.0);
  }
  if (verdict.phase != Phase::follow) count(verdict.reason);
  for (size_t j = 0; j < out.size(); ++j) out[j] = joints_[j].motion.q;
  return verdict;
}

Verdict SafetyFilter::wait(std::span<double> out) noexcept {
  const bool free = phase_ == Phase::follow || phase_ == Phase::hold;
  const bool latched = estops_.load(std::memory_order_relaxed) != estops_cleared_;
  if (!free || latched || shut_down_.load(std::memory_order_relaxed)) return step({}, out);
  if (out.size() != limits_.names.size()) return {phase_, Reason::shape};
  slow_down(Phase::hold, options_.hold_braking);
  starved_steps_ = 0;
  for (size_t j = 0; j < out.size(); ++j) out[j] = joints_[j].motion.q;
  return {phase_, Reason::none};
}

bool SafetyFilter::standing() const noexcept {
  for (size_t j = 0; j < limits_.names.size(); ++j)
    if (joints_[j].motion.v != 0.0) return false;
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
double SafetyFilter::velocity(int j) const noexcept { return joints_[static_cast<size_t>(j)].motion.v; }
double SafetyFilter::acceleration(int j) const noexcept { return joints_[static_cast<size_t>(j)].motion.a; }

}  // namespace wam
