#pragma once

#include <atomic>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "wamcore/clock.h"
#include "wamcore/hal.h"

namespace wam {

/// A run to play back: n servo cycles of dof joints, as a flight record has them.
struct Recording {
  std::vector<JointInfo> joints;
  std::vector<uint64_t> t_ns;    // [n] monotonic, ns
  std::vector<double> measured;  // [n, dof] rad
  std::vector<double> command;   // [n, dof] rad
};

struct ReplayOptions {
  Recording recording;
  std::vector<CameraInfo> cameras;                             // black: a recording holds no pictures
  double tolerance = std::numeric_limits<double>::infinity();  // rad a command may be from the recorded one
};

/// A robot that measures what was recorded, at the times it was recorded, whatever it is told; after the last cycle it
/// stands. What it is told is compared with what the recorded robot was told in the same cycle: beyond the tolerance
/// write() is a fault, else the largest difference is kept.
class WAMCORE_API ReplayHal final : public Hal {
 public:
  /// Throws ConfigError for a recording that is empty, not finite, or whose times do not ascend.
  ReplayHal(std::shared_ptr<Clock> clock, ReplayOptions options);

  Description configure(const HalConfig& config) override;
  void activate(Mode mode) override;
  Status read(State& state) noexcept override;
  Status write(const Command& command) noexcept override;
  void deactivate() override { active_ = false; }
  void stop(StopKind) noexcept override { halted_ = true; }
  void close() noexcept override { active_ = false; }
  Status frame(int camera, FrameView& view) noexcept override;
  std::string error() const override;

  /// Whether the last cycle has been measured.
  bool finished() const { return finished_; }
  /// Commands compared so far, and their largest difference from the recorded ones, rad.
  uint64_t compared() const { return compared_; }
  double deviation() const { return deviation_; }

 private:
  size_t row() noexcept;

  std::shared_ptr<Clock> clock_;
  ReplayOptions options_;
  bool begun_ = false;     // a command has come; of the servo thread, like the next two
  uint64_t began_ns_ = 0;  // when it came: that is the first recorded cycle
  size_t row_ = 0;
  std::vector<uint8_t> black_;  // the largest camera's frame
  std::atomic<bool> active_{false}, halted_{false}, finished_{false};
  std::atomic<uint64_t> compared_{0};
  std::atomic<double> deviation_{0.0};
  std::atomic<int64_t> objection_{-1};  // cycle * dof + joint of the command that was refused
};

}  // namespace wam
