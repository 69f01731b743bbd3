#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "wamcore/export.h"

namespace wam {

/// What the numbers of a command mean to the joints. `impedance` uses q, dq, kp, kd and tau together.
enum class Mode : uint8_t { position, velocity, effort, impedance };

/// What a real-time call reports. `stale`: nothing new; `retry`: a passing hiccup; `fault` ends the run;
/// `estop` latches the emergency stop, which Runner::reset clears.
enum class Status : uint8_t { ok, stale, retry, fault, estop };

/// How to stop: keep the position under power, brake along a controlled path, or cut the drives.
enum class StopKind : uint8_t { hold, soft_stop, cut };

/// One joint as its driver describes it; an infinite limit means "not stated".
struct JointInfo {
  std::string name;
  double position_min = -std::numeric_limits<double>::infinity();  // rad (m for a sliding joint)
  double position_max = std::numeric_limits<double>::infinity();   // rad
  double velocity = std::numeric_limits<double>::infinity();       // rad/s
  double acceleration = std::numeric_limits<double>::infinity();   // rad/s^2
  double jerk = std::numeric_limits<double>::infinity();           // rad/s^3
  uint32_t modes = 1;                                              // bit i set: Mode(i) is supported
};

/// One camera as its driver describes it.
struct CameraInfo {
  std::string name;
  int height = 0;   // pixels
  int width = 0;    // pixels
  double hz = 0.0;  // frames per second; 0 = on demand
};

/// What a driver offers. The order of joints is the order of every vector that crosses the interface.
struct Description {
  std::vector<JointInfo> joints;
  std::vector<CameraInfo> cameras;
  double servo_hz = 0.0;         // fastest command rate, Hz; 0 = any
  bool has_hw_watchdog = false;  // the device itself refuses commands after valid_until_ns
};

/// Settings a driver may need; which parameters it knows is its own affair.
struct HalConfig {
  double servo_hz = 0.0;  // rate at which read and write will be called, Hz; 0 = not known yet
  std::map<std::string, std::string> parameters;
};

/// Measured joints. The caller owns the storage; each span has one entry per joint.
struct State {
  uint64_t t_ns = 0;        // when it was measured, monotonic ns; left at 0 it means "at the call"
  std::span<double> q;      // [dof] rad
  std::span<double> dq;     // [dof] rad/s
  std::span<double> tau;    // [dof] N m; zero where it is not measured
  uint32_t fault_bits = 0;  // the driver's own code; 0 = healthy
};

/// One command. An empty span means "not commanded". After valid_until_ns the device must refuse it and stop.
struct Command {
  uint64_t t_ns = 0;            // when it was issued, monotonic ns
  uint64_t valid_until_ns = 0;  // dead-man time, monotonic ns
  Mode mode = Mode::position;
  std::span<const double> q;    // [dof] rad
  std::span<const double> dq;   // [dof] rad/s
  std::span<const double> tau;  // [dof] N m
  std::span<const double> kp;   // [dof] N m/rad
  std::span<const double> kd;   // [dof] N m s/rad
};

/// The newest frame of a camera; `rgb` stays valid until the next call of frame() for the same camera.
struct FrameView {
  const uint8_t* rgb = nullptr;  // [height, width, 3]
  int height = 0;                // pixels
  int width = 0;                 // pixels
  uint64_t t_ns = 0;             // mid-exposure, monotonic ns; left at 0 it means "at the call"
};

/// A robot driver: the only thing between wamcore and the machine.
/// Life cycle: configure -> activate -> (read, write)* -> deactivate -> close. `stop` may come from any thread at any
/// time, and frame comes from a thread of its own while the servo thread reads, writes and deactivates: what they share
/// is the driver's to guard. Otherwise one method runs at a time. read, write and frame have bounded duration, and read
/// and write run on the servo thread: they allocate nothing and take no lock there, least of all one that frame holds.
class WAMCORE_API Hal {
 public:
  virtual ~Hal();
  /// Connects without moving anything; may block. A second call returns the same description. Throws RobotError.
  virtual Description configure(const HalConfig& config) = 0;
  /// Releases the brakes and holds the measured position. Throws RobotError.
  virtual void activate(Mode mode) = 0;
  /// Measures the joints.
  virtual Status read(State& state) noexcept = 0;
  /// Issues a command; the device must refuse it after `valid_until_ns`.
  virtual Status write(const Command& command) noexcept = 0;
  /// Ends command mode in a controlled way; may block. Throws RobotError.
  virtual void deactivate() = 0;
  /// Stops at once, from any thread.
  virtual void stop(StopKind kind) noexcept = 0;
  /// Disconnects; the driver may be configured again.
  virtual void close() noexcept = 0;
  /// Fetches the newest frame of camera number `camera` of the description. The default has no cameras.
  virtual Status frame(int camera, FrameView& view) noexcept;
  /// Says in words what the last fault was; never called on the servo thread.
  virtual std::string error() const;
};

}  // namespace wam
