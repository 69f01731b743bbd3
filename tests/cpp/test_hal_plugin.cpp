// A driver from a shared library: the example is driven like any other, and what is no driver is refused.
#include "check.h"
#include "robot_fixture.h"
#include "wamcore/hal_plugin.h"

using namespace wam;
using namespace fixture;

namespace {

/// Stands for a vendor's library.
struct Bus {
  void open(const std::string& name) { port = name; }
  void enable() { enabled = true; }
  bool angles(double* q, double* dq) noexcept {
    std::copy(at, at + kDof, q);
    std::fill(dq, dq + kDof, 0.0);
    return true;
  }
  bool move(const double* q, uint64_t) noexcept { return std::copy(q, q + kDof, at), enabled; }
  void disable() { enabled = false; }
  void halt() noexcept {}
  void close() noexcept { port.clear(); }
  std::string port;
  bool enabled = false;
  double at[kDof] = {};
};
#include "../../examples/driver.h"

JointLimits vendor_limits() {
  JointLimits l = limits();
  l.names = {"shoulder", "elbow"};
  return l;
}

}  // namespace

TEST(a_driver_in_a_library_is_driven) {
  const auto hal = load_hal(WAMCORE_VENDOR_HAL, "vendor");
  VirtualRunner runner(sine_policy(), hal, vendor_limits(), {.command_validity = 10, .record = 60});
  runner.start();  // a slow machine takes longer for a virtual tick than a command usually lives
  runner.run(6.0);
  const RunRecord r = runner.record();
  CHECK(runner.running() && runner.stats().chunks > 5);
  CHECK(worst(r.command, vendor_limits(), 1.0 / 200, {0, 0}).within());
  CHECK(runner.stats().watchdog == "the device stops when commands cease");
  CHECK_NEAR(r.measured[r.measured.size() - 1], r.command[r.command.size() - 3], 1e-12);  // where it was told to be
  runner.stop();
}

TEST(its_device_stops_when_commands_cease) {
  const auto hal = load_hal(WAMCORE_VENDOR_HAL);
  CHECK(hal->configure({}).has_hw_watchdog);
  hal->activate(Mode::position);
  const std::vector<double> there{0.3, -0.2}, farther{0.5, -0.4};
  std::vector<double> q(kDof), dq(kDof), tau(kDof);
  State state{.q = q, .dq = dq, .tau = tau};
  const Command lasting{.t_ns = 5, .valid_until_ns = 3'600'000'000'000, .q = farther};
  CHECK(hal->write({.t_ns = 5, .valid_until_ns = 5, .q = farther}) == Status::fault);  // dead on arrival
  CHECK(hal->write({.t_ns = 5, .valid_until_ns = 6, .q = there}) == Status::ok);       // and a nanosecond later expired
  while (hal->read(state) == Status::ok && state.fault_bits == 0) {
  }
  CHECK(state.fault_bits == 1 && q == there);
  CHECK(hal->write(lasting) == Status::fault && hal->read(state) == Status::ok && q == there);
  hal->activate(Mode::position);
  CHECK(hal->write(lasting) == Status::ok && hal->read(state) == Status::ok && q == farther && state.fault_bits == 0);
}

TEST(the_driver_of_the_readme_drives) {
  const auto hal = std::make_shared<Arm>();
  VirtualRunner runner(sine_policy(), hal, vendor_limits(), {.hal = {.parameters = {{"port", "usb"}}}});
  runner.start();
  runner.run(3.0);
  CHECK(runner.running() && runner.stats().chunks > 2);
  runner.stop();
}

TEST(its_own_limits_and_errors_are_heard) {
  JointLimits wide = vendor_limits();
  wide.velocity = {4, 4};
  VirtualRunner runner(sine_policy(), load_hal(WAMCORE_VENDOR_HAL), wide);
  CHECK_THROWS(runner.start(), ConfigError, "velocity limit is above");
  const auto hal = load_hal(WAMCORE_VENDOR_HAL);
  CHECK_THROWS(hal->configure({.parameters = {{"baud", "9600"}}}), RobotError, "knows the parameter 'port' only");
  CHECK_THROWS(hal->configure({.parameters = {{"port", "/dev/null"}}}), RobotError, "nobody answers");
  CHECK(hal->configure({.parameters = {{"port", "/dev/ttyUSB0"}}}).joints[1].name == "elbow");
  CHECK_THROWS(hal->activate(Mode::effort), RobotError, "activate");
  hal->activate(Mode::position);
  std::vector<double> q(kDof), dq(kDof), tau(kDof), three(3);
  State state{.q = q, .dq = dq, .tau = tau}, wrong{.q = three, .dq = dq, .tau = tau};
  CHECK(hal->read(state) == Status::ok && hal->read(wrong) == Status::fault);
  CHECK(hal->write({.valid_until_ns = 1, .q = three}) == Status::fault);  // another number of joints
  FrameView view;
  CHECK(hal->frame(0, view) == Status::fault);
}

TEST(what_is_no_driver_is_refused) {
  CHECK_THROWS(load_hal("/nowhere/libnothing.so"), RobotError, "/nowhere/libnothing.so");
  CHECK_THROWS(load_hal(WAMCORE_VENDOR_HAL, "another"), RobotError, "no driver 'another'");
  CHECK_THROWS(load_hal("libm.so.6"), RobotError, "exports no wamcore_hal_open");
}

CHECK_MAIN()
