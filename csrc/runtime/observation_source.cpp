#include "observation_source.h"

#include <algorithm>

#include "wamcore/error.h"

namespace wam {
namespace {

size_t reach(const std::vector<int>& offsets) {
  if (offsets.empty() || offsets.back() != 0 || !std::is_sorted(offsets.begin(), offsets.end()))
    throw ConfigError("ObservationSource: frame offsets want an ascending list that ends in 0");
  if (offsets.front() < -10'000) throw ConfigError("ObservationSource: frame offsets want at most 10000 ticks back");
  return static_cast<size_t>(-offsets.front());
}

/// A time before `t_ns`; 0 is kept, for it means "never".
uint64_t earlier(uint64_t t_ns, int64_t by) {
  return t_ns == 0 || by <= 0 ? t_ns : t_ns - std::min(static_cast<uint64_t>(by), t_ns - 1);
}

}  // namespace

ObservationSource::ObservationSource(std::vector<CameraInfo> cameras, std::vector<int> offsets, int dof,
                                     Latency latency)
    : cameras_(std::move(cameras)), offsets_(std::move(offsets)), latency_(std::move(latency)) {
  const auto ticks = [&](int64_t ns) { return static_cast<int>((ns + latency_.tick / 2) / latency_.tick); };
  latency_.cameras.resize(cameras_.size());
  for (const int64_t ns : latency_.cameras) camera_ticks_.push_back(ticks(ns));
  state_ticks_ = lag_ = ticks(latency_.state);
  for (const int t : camera_ticks_) lag_ = std::max(lag_, t);
  for (const CameraInfo& c : cameras_)
    if (c.height < 1 || c.width < 1 || c.height > 16384 || c.width > 16384)
      throw ConfigError("ObservationSource: camera '" + c.name + "' wants a size of 1 to 16384 pixels");
  ring_.resize(reach(offsets_) + static_cast<size_t>(lag_) + 1);
  draft_.frames.resize(cameras_.size());
  draft_.state.resize(static_cast<size_t>(dof));
  for (size_t c = 0; c < cameras_.size(); ++c)
    draft_.frames[c].rgb.resize(static_cast<size_t>(cameras_[c].height) * cameras_[c].width * 3);
  std::fill(ring_.begin(), ring_.end(), draft_);
}

bool ObservationSource::sample(Hal& hal, int64_t tick, uint64_t now_ns, const ServoView& joints) {
  for (size_t c = 0; c < cameras_.size(); ++c) {
    FrameView view;
    const Status status = hal.frame(static_cast<int>(c), view);
    Frame& frame = draft_.frames[c];
    if (status == Status::ok) {
      if (!view.rgb || view.height != cameras_[c].height || view.width != cameras_[c].width)
        throw RobotError("ObservationSource: camera '" + cameras_[c].name + "' gave " + std::to_string(view.height) +
                         " x " + std::to_string(view.width) + " pixels, its description says " +
                         std::to_string(cameras_[c].height) + " x " + std::to_string(cameras_[c].width));
      std::copy(view.rgb, view.rgb + frame.rgb.size(), frame.rgb.begin());
      frame.t_ns = earlier(view.t_ns ? view.t_ns : now_ns, latency_.cameras[c]);
    } else if (status == Status::fault || status == Status::estop) {
      throw RobotError("ObservationSource: camera '" + cameras_[c].name + "' failed: " + hal.error());
    } else if (frame.t_ns == 0) {
      return false;  // nothing yet; an older frame would have stood in, with its own time
    }
  }
  draft_.tick = tick;
  draft_.sample_ns = now_ns;
  draft_.paused = joints.paused;
  draft_.state_ns = earlier(joints.state_ns, latency_.state);
  draft_.state = joints.q;

  const std::scoped_lock lock(mutex_);
  if (count_ == 0 || ring_[(count_ - 1) % ring_.size()].tick != tick) ++count_;
  ring_[(count_ - 1) % ring_.size()] = draft_;  // a copy: the draft's frames stand in for ones that do not come
  return true;
}

std::optional<ObservationSource::Newest> ObservationSource::newest() const {
  const std::scoped_lock lock(mutex_);
  if (count_ == 0) return std::nullopt;
  const Sample& last = ring_[(count_ - 1) % ring_.size()];
  return Newest{last.tick, last.sample_ns};
}

const ObservationSource::Sample& ObservationSource::nearest(int64_t tick) const {
  const size_t kept = std::min(count_, ring_.size());
  for (size_t back = 0; back < kept; ++back) {
    const Sample& sample = ring_[(count_ - 1 - back) % ring_.size()];
    if (sample.tick <= tick || back + 1 == kept) return sample;
  }
  return ring_[0];
}

int ObservationSource::assemble(Observation& out) const {
  const std::scoped_lock lock(mutex_);
  const Sample& last = ring_[(count_ - 1) % ring_.size()];
  // While the robot stands and waits its tick does not change: the newest of everything is of that tick.
  const int lag = last.paused ? 0 : lag_;
  out.tick = last.tick - lag;
  const Sample& joints = nearest(out.tick + (last.paused ? 0 : state_ticks_));
  out.t_ns = joints.state_ns;
  out.state = joints.state;
  out.cameras.resize(cameras_.size());
  for (size_t c = 0; c < cameras_.size(); ++c) {
    CameraFrames& camera = out.cameras[c];
    camera.name = cameras_[c].name;
    camera.frames = static_cast<int>(offsets_.size());
    camera.height = cameras_[c].height;
    camera.width = cameras_[c].width;
    camera.rgb.clear();
    const int64_t arrived = out.tick + (last.paused ? 0 : camera_ticks_[c]);  // tick in which this tick's frame came
    for (const int offset : offsets_) {
      const std::vector<uint8_t>& rgb = nearest(arrived + offset).frames[c].rgb;
      camera.rgb.insert(camera.rgb.end(), rgb.begin(), rgb.end());
    }
    out.t_ns = std::min(out.t_ns, nearest(arrived).frames[c].t_ns);
  }
  return lag;
}

}  // namespace wam
