#include <algorithm>
#include <cmath>

#include "wamcore/error.h"
#include "wamcore/replay_hal.h"

namespace wam {
namespace {

void check(const ReplayOptions& o) {
  const auto refuse = [](const std::string& what) { throw ConfigError("ReplayHal: " + what); };
  const Recording& r = o.recording;
  const size_t wide = r.t_ns.size() * r.joints.size();
  if (wide == 0) refuse("wants a recording of at least one joint and one cycle");
  if (r.measured.size() != wide || r.command.size() != wide)
    refuse("measured and command want " + std::to_string(r.t_ns.size()) + " x " + std::to_string(r.joints.size()) +
           " numbers, got " + std::to_string(r.measured.size()) + " and " + std::to_string(r.command.size()));
  if (std::adjacent_find(r.t_ns.begin(), r.t_ns.end(), std::greater_equal<>()) != r.t_ns.end())
    refuse("wants times that ascend");
  for (const double v : r.measured)
    if (!std::isfinite(v)) refuse("wants finite measurements");
  for (const CameraInfo& c : o.cameras)
    if (c.height < 1 || c.width < 1 || c.height > 16384 || c.width > 16384)
      refuse("camera '" + c.name + "' wants a size of 1 to 16384 pixels");
  if (!(o.tolerance > 0.0)) refuse("tolerance wants a positive number of rad");
}

}  // namespace

ReplayHal::ReplayHal(std::shared_ptr<Clock> clock, ReplayOptions options)
    : clock_(std::move(clock)), options_(std::move(options)) {
  if (!clock_) throw ConfigError("ReplayHal: wants a clock");
  check(options_);
  for (const CameraInfo& c : options_.cameras)
    black_.resize(std::max(black_.size(), static_cast<size_t>(c.height) * static_cast<size_t>(c.width) * 3));
}

Description ReplayHal::configure(const HalConfig&) {
  return {.joints = options_.recording.joints, .cameras = options_.cameras, .has_hw_watchdog = true};
}

void ReplayHal::activate(Mode mode) {
  if (mode != Mode::position) throw RobotError("ReplayHal.activate: knows position mode only");
  begun_ = false;
  row_ = 0;
  halted_ = finished_ = false;
  objection_ = -1;
  active_ = true;
}

size_t ReplayHal::row() noexcept {
  const std::vector<uint64_t>& t = options_.recording.t_ns;
  const uint64_t passed = begun_ ? clock_->now_ns() - began_ns_ : 0;
  while (row_ + 1 < t.size() && t[row_ + 1] - t[0] <= passed) ++row_;
  return row_;
}

Status ReplayHal::read(State& state) noexcept {
  const Recording& r = options_.recording;
  const size_t dof = r.joints.size();
  if (state.q.size() != dof || state.dq.size() != dof || state.tau.size() != dof) return Status::fault;
  const size_t k = row();
  finished_ = k + 1 == r.t_ns.size();
  const size_t before = finished_ || k == 0 ? k : k - 1;
  const double dt = before == k ? 1.0 : static_cast<double>(r.t_ns[k] - r.t_ns[before]) * 1e-9;
  for (size_t j = 0; j < dof; ++j) {
    state.q[j] = r.measured[k * dof + j];
    state.dq[j] = (r.measured[k * dof + j] - r.measured[before * dof + j]) / dt;
    state.tau[j] = 0.0;
  }
  state.t_ns = finished_ || !begun_ ? clock_->now_ns() : began_ns_ + (r.t_ns[k] - r.t_ns[0]);
  return Status::ok;
}

Status ReplayHal::write(const Command& command) noexcept {
  const Recording& r = options_.recording;
  const size_t dof = r.joints.size();
  if (!active_ || command.q.size() != dof) return Status::fault;
  if (halted_ || finished_) return Status::ok;
  if (!begun_) {
    begun_ = true;
    began_ns_ = clock_->now_ns();
  }
  const size_t k = row();
  double worst = deviation_;
  for (size_t j = 0; j < dof; ++j) {
    const double apart = std::abs(command.q[j] - r.command[k * dof + j]);
    worst = std::max(worst, apart);
    if (apart <= options_.tolerance) continue;
    objection_ = static_cast<int64_t>(k * dof + j);
    return Status::fault;
  }
  deviation_ = worst;
  ++compared_;
  return Status::ok;
}

Status ReplayHal::frame(int camera, FrameView& view) noexcept {
  if (camera < 0 || static_cast<size_t>(camera) >= options_.cameras.size()) return Status::fault;
  const CameraInfo& c = options_.cameras[static_cast<size_t>(camera)];
  view = {black_.data(), c.height, c.width, clock_->now_ns()};
  return Status::ok;
}

std::string ReplayHal::error() const {
  if (objection_ < 0) return {};
  const Recording& r = options_.recording;
  const size_t i = static_cast<size_t>(objection_), dof = r.joints.size();
  const double when = static_cast<double>(r.t_ns[i / dof] - r.t_ns[0]) * 1e-9;
  return "the command of joint '" + r.joints[i % dof].name + "' at " + std::to_string(when) + " s is further than " +
         std::to_string(options_.tolerance) + " rad from the recorded " + std::to_string(r.command[i]) + " rad";
}

}  // namespace wam
