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

}  // namespace

ObservationSource::ObservationSource(std::vector<CameraInfo> cameras, std::vector<int> offsets, int dof)
    : cameras_(std::move(cameras)), offsets_(std::move(offsets)) {
  for (const CameraInfo& c : cameras_)
    if (c.height < 1 || c.width < 1 || c.height > 16384 || c.width > 16384)
      throw ConfigError("ObservationSource: camera '" + c.name + "' wants a size of 1 to 16384 pixels");
  ring_.resize(reach(offsets_) + 1);
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
      frame.t_ns = view.t_ns ? view.t_ns : now_ns;
    } else if (status == Status::fault || status == Status::estop) {
      throw RobotError("ObservationSource: camera '" + cameras_[c].name + "' failed: " + hal.error());
    } else if (frame.t_ns == 0) {
      return false;  // nothing yet; an older frame would have stood in, with its own time
    }
  }
  draft_.tick = tick;
  draft_.sample_ns = now_ns;
  draft_.state_ns = joints.state_ns;
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

void ObservationSource::assemble(Observation& out) const {
  const std::scoped_lock lock(mutex_);
  const Sample& last = ring_[(count_ - 1) % ring_.size()];
  out.tick = last.tick;
  out.t_ns = last.state_ns;
  out.state = last.state;
  out.cameras.resize(cameras_.size());
  for (size_t c = 0; c < cameras_.size(); ++c) {
    CameraFrames& camera = out.cameras[c];
    camera.name = cameras_[c].name;
    camera.frames = static_cast<int>(offsets_.size());
    camera.height = cameras_[c].height;
    camera.width = cameras_[c].width;
    camera.rgb.clear();
    for (const int offset : offsets_) {
      const std::vector<uint8_t>& rgb = nearest(last.tick + offset).frames[c].rgb;
      camera.rgb.insert(camera.rgb.end(), rgb.begin(), rgb.end());
    }
    out.t_ns = std::min(out.t_ns, last.frames[c].t_ns);
  }
}

}  // namespace wam
