#pragma once

#include <pybind11/pybind11.h>

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "wamcore/hal.h"

namespace wam::bindings {

/// A State that owns its numbers.
struct OwnedState {
  std::vector<double> q, dq, tau;  // [dof]; dq and tau may be empty
  uint64_t t_ns = 0;
  uint32_t fault_bits = 0;
};

/// A Command that owns its numbers.
struct OwnedCommand {
  std::vector<double> q, dq;  // [dof]
  uint64_t t_ns = 0, valid_until_ns = 0;
  Mode mode = Mode::position;
};

/// A driver written in Python. Every call takes the interpreter lock, so it must never run on a servo thread: Runner
/// puts a ProxyHal before it. What Python raises becomes a RobotError or, in read, write and frame, a fault with a
/// text.
class PythonHal final : public Hal, public pybind11::trampoline_self_life_support {
 public:
  Description configure(const HalConfig& config) override;
  void activate(Mode mode) override;
  Status read(State& state) noexcept override;
  Status write(const Command& command) noexcept override;
  void deactivate() override;
  void stop(StopKind kind) noexcept override;
  void close() noexcept override;
  Status frame(int camera, FrameView& view) noexcept override;
  std::string error() const override;

 private:
  template <typename Body>
  void set_up(const char* name, Body body);
  template <typename Body>
  Status real_time(const char* name, Body body) noexcept;
  pybind11::function method(const char* name) const;
  void remember(const char* name, const std::string& what) noexcept;

  mutable std::mutex mutex_;
  std::string error_;                           // guarded by mutex_
  std::atomic<bool> unstopped_{false};          // stop() has raised: nobody knows whether the robot stands
  std::map<int, std::vector<uint8_t>> images_;  // by camera: the last frame, rgb
};

}  // namespace wam::bindings
