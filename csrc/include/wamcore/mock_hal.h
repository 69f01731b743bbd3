#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "wamcore/clock.h"
#include "wamcore/embodiment.h"
#include "wamcore/hal.h"

namespace wam {

struct WAMCORE_API MockOptions {
  std::vector<JointInfo> joints;
  std::vector<CameraInfo> cameras;
  std::vector<double> start;    // [dof] rad; empty = zeros
  double time_constant = 0.05;  // s, of the first-order plant; 0 = it is where it is told to be
  size_t record_commands = 0;   // how many commands to keep

  /// The joints, their limits and the cameras that a model was trained with; it starts in the middle of the limits.
  static MockOptions like(const Embodiment& embodiment);
};

/// A robot that exists only in memory: a first-order plant that follows position commands, with the watchdog a real
/// device should have: it stands where it is as soon as the last command has expired. It moves with its clock, whenever
/// it is read or written. Its cameras show one grey level, which counts their frames. FaultInjector makes it fail.
class WAMCORE_API MockHal final : public Hal {
 public:
  /// Throws ConfigError for unusable options. `clock` is the runner's clock.
  MockHal(std::shared_ptr<Clock> clock, MockOptions options);

  Description configure(const HalConfig& config) override;
  void activate(Mode mode) override;
  Status read(State& state) noexcept override;
  Status write(const Command& command) noexcept override;
  void deactivate() override;
  void stop(StopKind kind) noexcept override;
  void close() noexcept override;
  Status frame(int camera, FrameView& view) noexcept override;

  /// Where the plant is, rad.
  std::vector<double> position() const;
  /// The kept commands, oldest first: their times (ns) and positions [n, dof] (rad).
  std::vector<uint64_t> command_times() const;
  std::vector<double> commands() const;
  /// How often the watchdog found the last command expired.
  uint64_t lapses() const;
  /// Stops so far, and the last of them.
  uint64_t stops() const { return stops_; }
  StopKind last_stop() const { return last_stop_; }
  bool active() const { return active_; }

 private:
  void advance() noexcept;

  std::shared_ptr<Clock> clock_;
  MockOptions options_;
  std::atomic<uint64_t> stops_{0};
  std::atomic<StopKind> last_stop_{StopKind::hold};
  std::atomic<bool> active_{false};
  std::atomic<bool> halted_{false};  // stop() was called: commands are ignored until the next activate()

  mutable std::mutex mutex_;           // a mock's luxury: a real driver's read and write take no lock
  std::vector<double> q_, dq_, goal_;  // [dof] rad, rad/s
  uint64_t now_ns_ = 0;                // when the plant was advanced last
  uint64_t valid_until_ns_ = 0;
  bool lapsed_ = true;  // the command in force has expired
  uint64_t lapses_ = 0;
  std::vector<uint64_t> kept_times_;          // [n] ns
  std::vector<double> kept_;                  // [n, dof] rad
  std::vector<std::vector<uint8_t>> images_;  // [camera][height, width, 3]
  std::vector<uint64_t> frames_;              // [camera] delivered
};

}  // namespace wam
