#include <dlfcn.h>

#include <vector>

#include "wamcore/error.h"
#include "wamcore/hal_abi.h"
#include "wamcore/hal_plugin.h"

namespace wam {
namespace {

constexpr int kMost = 1024;  // joints or cameras

Status status_of(int code) noexcept {
  return code >= 0 && code <= static_cast<int>(Status::estop) ? static_cast<Status>(code) : Status::fault;
}

struct Library {
  void* handle = nullptr;
  ~Library() {
    if (handle) dlclose(handle);
  }
};

class PluginHal final : public Hal {
 public:
  PluginHal(std::shared_ptr<Library> library, const wamcore_hal& driver, std::string name)
      : library_(std::move(library)), driver_(driver), name_(std::move(name)) {}
  ~PluginHal() override {
    if (driver_.destroy) driver_.destroy(driver_.self);
  }

  Description configure(const HalConfig& config) override {
    std::vector<const char*> keys, values;
    for (const auto& [key, value] : config.parameters) keys.push_back(key.c_str()), values.push_back(value.c_str());
    const wamcore_hal_description* d = nullptr;
    check(driver_.configure(driver_.self, config.servo_hz, keys.data(), values.data(),
                            static_cast<int32_t>(keys.size()), &d),
          "configure");
    if (!d || d->joint_count < 1 || d->joint_count > kMost || !d->joints || d->camera_count < 0 ||
        d->camera_count > kMost || (d->camera_count > 0 && (!d->cameras || !driver_.frame)))
      throw RobotError(name_ + ".configure: gave no usable description");
    Description out{.servo_hz = d->servo_hz, .has_hw_watchdog = d->has_hw_watchdog != 0};
    for (int32_t j = 0; j < d->joint_count; ++j) {
      const wamcore_hal_joint& x = d->joints[j];
      out.joints.push_back({text(x.name), x.position_min, x.position_max, x.velocity, x.acceleration, x.jerk, x.modes});
    }
    for (int32_t c = 0; c < d->camera_count; ++c)
      out.cameras.push_back({text(d->cameras[c].name), d->cameras[c].height, d->cameras[c].width, d->cameras[c].hz});
    dof_ = out.joints.size();
    return out;
  }
  void activate(Mode mode) override { check(driver_.activate(driver_.self, static_cast<int32_t>(mode)), "activate"); }
  Status read(State& s) noexcept override {
    if (s.q.size() != dof_ || s.dq.size() != dof_ || s.tau.size() != dof_) return Status::fault;
    wamcore_hal_state state{.t_ns = s.t_ns, .q = s.q.data(), .dq = s.dq.data(), .tau = s.tau.data(), .fault_bits = 0};
    const Status status = status_of(driver_.read(driver_.self, &state));
    s.t_ns = state.t_ns;
    s.fault_bits = state.fault_bits;
    return status;
  }
  Status write(const Command& c) noexcept override {
    const auto all = [&](std::span<const double> x) { return x.size() == dof_ ? x.data() : nullptr; };
    const wamcore_hal_command command{.t_ns = c.t_ns,
                                      .valid_until_ns = c.valid_until_ns,
                                      .mode = static_cast<int32_t>(c.mode),
                                      .q = all(c.q),
                                      .dq = all(c.dq),
                                      .tau = all(c.tau),
                                      .kp = all(c.kp),
                                      .kd = all(c.kd)};
    return status_of(driver_.write(driver_.self, &command));
  }
  void deactivate() override { check(driver_.deactivate(driver_.self), "deactivate"); }
  void stop(StopKind kind) noexcept override { driver_.stop(driver_.self, static_cast<int32_t>(kind)); }
  void close() noexcept override { driver_.close(driver_.self); }
  Status frame(int camera, FrameView& view) noexcept override {
    if (!driver_.frame) return Status::fault;
    wamcore_hal_frame frame{};
    const Status status = status_of(driver_.frame(driver_.self, camera, &frame));
    view = {frame.rgb, frame.height, frame.width, frame.t_ns};
    return status;
  }
  std::string error() const override { return driver_.error ? text(driver_.error(driver_.self)) : std::string(); }

 private:
  static std::string text(const char* s) { return s ? s : ""; }
  void check(int code, const char* what) const {
    if (code != WAMCORE_HAL_OK) throw RobotError(name_ + "." + what + ": " + error());
  }

  std::shared_ptr<Library> library_;  // unloaded after the driver is gone
  wamcore_hal driver_;
  std::string name_;
  size_t dof_ = 0;
};

}  // namespace

std::shared_ptr<Hal> load_hal(const std::string& library, const std::string& name) {
  const auto refuse = [&](const std::string& what) -> RobotError {
    return RobotError("load_hal: " + library + ": " + what);
  };
  auto loaded = std::make_shared<Library>();
  loaded->handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!loaded->handle) throw refuse(dlerror());
  const auto open = reinterpret_cast<wamcore_hal_open_function>(dlsym(loaded->handle, "wamcore_hal_open"));
  if (!open) throw refuse("exports no wamcore_hal_open");
  wamcore_hal driver{};
  if (open(name.c_str(), &driver) != 0) throw refuse("has no driver '" + name + "'");
  if (driver.abi != WAMCORE_HAL_ABI || driver.size != sizeof(wamcore_hal))
    throw refuse("speaks ABI " + std::to_string(driver.abi) + " (" + std::to_string(driver.size) + " bytes), wanted " +
                 std::to_string(WAMCORE_HAL_ABI) + " (" + std::to_string(sizeof(wamcore_hal)) + ")");
  if (!driver.configure || !driver.activate || !driver.read || !driver.write || !driver.deactivate || !driver.stop ||
      !driver.close)
    throw refuse("a function is missing: configure, activate, read, write, deactivate, stop and close are all needed");
  return std::make_shared<PluginHal>(std::move(loaded), driver, name.empty() ? library : name);
}

}  // namespace wam
