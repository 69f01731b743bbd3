#include <algorithm>
#include <cmath>

#include "wamcore/error.h"
#include "wamcore/mock_hal.h"

namespace wam {

MockOptions MockOptions::like(const Embodiment& embodiment) {
  MockOptions out;
  const JointLimits& l = embodiment.limits;
  for (size_t j = 0; j < l.names.size(); ++j) {
    out.joints.push_back({.name = l.names[j],
                          .position_min = l.position_min[j],
                          .position_max = l.position_max[j],
                          .velocity = l.velocity[j],
                          .acceleration = l.acceleration[j]});
    out.start.push_back((l.position_min[j] + l.position_max[j]) / 2);
  }
  for (const CameraSpec& c : embodiment.cameras) out.cameras.push_back({c.name, c.height, c.width});
  return out;
}

MockHal::MockHal(std::shared_ptr<Clock> clock, MockOptions options)
    : clock_(std::move(clock)), options_(std::move(options)) {
  const size_t dof = options_.joints.size();
  if (!clock_ || dof == 0) throw ConfigError("MockHal: wants a clock and at least one joint");
  if (!options_.start.empty() && options_.start.size() != dof)
    throw ConfigError("MockHal: start wants one entry for each of the " + std::to_string(dof) + " joints, got " +
                      std::to_string(options_.start.size()));
  if (!(options_.time_constant >= 0.0)) throw ConfigError("MockHal: time_constant wants a number >= 0 s");
  q_ = options_.start;
  q_.resize(dof, 0.0);
  dq_.resize(dof, 0.0);
  goal_ = q_;
  kept_times_.reserve(options_.record_commands);
  kept_.reserve(options_.record_commands * dof);
  for (const CameraInfo& c : options_.cameras)
    images_.emplace_back(static_cast<size_t>(c.height) * static_cast<size_t>(c.width) * 3);
  frames_.resize(images_.size());
}

Description MockHal::configure(const HalConfig&) {
  return {.joints = options_.joints, .cameras = options_.cameras, .has_hw_watchdog = true};
}

void MockHal::activate(Mode mode) {
  if (mode != Mode::position) throw RobotError("MockHal.activate: knows position mode only");
  const std::scoped_lock lock(mutex_);
  now_ns_ = clock_->now_ns();
  goal_ = q_;
  lapsed_ = true;
  halted_ = false;
  active_ = true;
}

void MockHal::advance() noexcept {
  const uint64_t now = clock_->now_ns();
  // The command in force counts until it expires; from then on the device stands where it is.
  const uint64_t driven_until = lapsed_ || halted_ ? now_ns_ : std::min(now, std::max(valid_until_ns_, now_ns_));
  const double dt = static_cast<double>(driven_until - now_ns_) * 1e-9;
  const double share = options_.time_constant > 0.0 ? 1.0 - std::exp(-dt / options_.time_constant) : dt > 0.0;
  const bool stands = driven_until == now_ns_ || driven_until < now;
  for (size_t j = 0; j < q_.size(); ++j) {
    const double step = (goal_[j] - q_[j]) * share;
    q_[j] += step;
    if (now > now_ns_) dq_[j] = stands ? 0.0 : step / dt;
  }
  if (!lapsed_ && now > valid_until_ns_) {
    lapsed_ = true;
    ++lapses_;
  }
  now_ns_ = std::max(now, now_ns_);
}

Status MockHal::read(State& state) noexcept {
  const std::scoped_lock lock(mutex_);
  advance();
  std::copy(q_.begin(), q_.end(), state.q.begin());
  std::copy(dq_.begin(), dq_.end(), state.dq.begin());
  std::fill(state.tau.begin(), state.tau.end(), 0.0);
  state.t_ns = now_ns_;
  return Status::ok;
}

Status MockHal::write(const Command& command) noexcept {
  const std::scoped_lock lock(mutex_);
  advance();
  if (!active_ || command.q.size() != q_.size()) return Status::fault;
  if (halted_) return Status::ok;
  std::copy(command.q.begin(), command.q.end(), goal_.begin());
  valid_until_ns_ = command.valid_until_ns;
  lapsed_ = false;
  if (kept_times_.size() < options_.record_commands) {  // within the reserved room: no allocation
    kept_times_.push_back(command.t_ns);
    kept_.insert(kept_.end(), command.q.begin(), command.q.end());
  }
  return Status::ok;
}

void MockHal::deactivate() { active_ = false; }

void MockHal::stop(StopKind kind) noexcept {
  halted_ = true;
  last_stop_ = kind;
  ++stops_;
}

void MockHal::close() noexcept { active_ = false; }

Status MockHal::frame(int camera, FrameView& view) noexcept {
  const auto c = static_cast<size_t>(camera);
  if (camera < 0 || c >= images_.size()) return Status::fault;
  std::fill(images_[c].begin(), images_[c].end(), static_cast<uint8_t>(frames_[c]++));
  view = {images_[c].data(), options_.cameras[c].height, options_.cameras[c].width, clock_->now_ns()};
  return Status::ok;
}

std::vector<double> MockHal::position() const {
  const std::scoped_lock lock(mutex_);
  return q_;
}

std::vector<uint64_t> MockHal::command_times() const {
  const std::scoped_lock lock(mutex_);
  return kept_times_;
}

std::vector<double> MockHal::commands() const {
  const std::scoped_lock lock(mutex_);
  return kept_;
}

uint64_t MockHal::lapses() const {
  const std::scoped_lock lock(mutex_);
  return lapses_;
}

}  // namespace wam
