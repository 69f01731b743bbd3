#include <pybind11/stl.h>

#include <algorithm>

#include "arrays.h"
#include "bind.h"
#include "python_hal.h"
#include "wamcore/clock.h"
#include "wamcore/hal_plugin.h"
#include "wamcore/mock_hal.h"
#include "wamcore/observe.h"

namespace wam::bindings {
namespace {

void bind_clocks(py::module_& m) {
  py::class_<Clock, py::smart_holder>(m, "Clock", "Monotonic time; see SystemClock and ManualClock.")
      .def("now_ns", &Clock::now_ns, "Monotonic time, ns.");
  py::class_<SystemClock, Clock, py::smart_holder>(m, "SystemClock", "The machine's monotonic clock.")
      .def(py::init<>());
  py::class_<ManualClock, Clock, py::smart_holder>(m, "ManualClock", "A clock that moves only when told to.")
      .def(py::init<uint64_t>(), py::arg("start_ns") = 1'000'000'000)
      .def("advance", &ManualClock::advance, py::arg("ns"), py::call_guard<py::gil_scoped_release>(),
           "Moves time forward by `ns` nanoseconds.")
      .def("wait_for_sleepers", &ManualClock::wait_for_sleepers, py::arg("count"), py::arg("patience") = 10.0,
           py::call_guard<py::gil_scoped_release>(),
           "Waits until `count` threads sleep on this clock, `patience` s at most; says whether they do.");
}

void bind_hal_values(py::module_& m) {
  py::enum_<Mode>(m, "Mode", "What the numbers of a command mean.")
      .value("position", Mode::position, "rad")
      .value("velocity", Mode::velocity, "rad/s")
      .value("effort", Mode::effort, "N m")
      .value("impedance", Mode::impedance, "position, velocity, gains and effort together");
  py::enum_<Status>(m, "Status", "What a real-time call reports.")
      .value("ok", Status::ok, "done")
      .value("stale", Status::stale, "nothing new")
      .value("retry", Status::retry, "a passing hiccup")
      .value("fault", Status::fault, "ends the run")
      .value("estop", Status::estop, "the emergency stop is pressed: brakes and stands until Runner.reset()");
  py::enum_<StopKind>(m, "StopKind", "How to stop.")
      .value("hold", StopKind::hold, "keep the position under power")
      .value("soft_stop", StopKind::soft_stop, "brake along a controlled path")
      .value("cut", StopKind::cut, "cut the drives");
  constexpr double inf = std::numeric_limits<double>::infinity();
  py::class_<JointInfo>(m, "JointInfo", "One joint as its driver describes it; rad, rad/s, rad/s^2, rad/s^3.")
      .def(py::init([](std::string name, double low, double high, double velocity, double acceleration, double jerk) {
             return JointInfo{std::move(name), low, high, velocity, acceleration, jerk};
           }),
           py::arg("name"), py::arg("position_min") = -inf, py::arg("position_max") = inf, py::arg("velocity") = inf,
           py::arg("acceleration") = inf, py::arg("jerk") = inf)
      .def_readwrite("name", &JointInfo::name, "Of the joint.")
      .def_readwrite("position_min", &JointInfo::position_min, "rad (m for a sliding joint); infinite: not stated.")
      .def_readwrite("position_max", &JointInfo::position_max, "rad (m for a sliding joint); infinite: not stated.")
      .def_readwrite("velocity", &JointInfo::velocity, "Largest, rad/s; infinite: not stated.")
      .def_readwrite("acceleration", &JointInfo::acceleration, "Largest, rad/s^2; infinite: not stated.")
      .def_readwrite("jerk", &JointInfo::jerk, "Largest, rad/s^3; infinite: not stated.");
  py::class_<CameraInfo>(m, "CameraInfo", "One camera as its driver describes it; pixels, Hz (0 = on demand).")
      .def(py::init([](std::string name, int height, int width, double hz) {
             return CameraInfo{std::move(name), height, width, hz};
           }),
           py::arg("name"), py::arg("height"), py::arg("width"), py::arg("hz") = 0.0)
      .def_readwrite("name", &CameraInfo::name, "Of the camera.")
      .def_readwrite("height", &CameraInfo::height, "Pixels.")
      .def_readwrite("width", &CameraInfo::width, "Pixels.")
      .def_readwrite("hz", &CameraInfo::hz, "Frames a second; 0 = on demand.");
  py::class_<Description>(m, "Description", "What a driver offers; the order of joints is that of every vector.")
      .def(py::init([](std::vector<JointInfo> joints, std::vector<CameraInfo> cameras, double servo_hz, bool watchdog) {
             return Description{std::move(joints), std::move(cameras), servo_hz, watchdog};
           }),
           py::arg("joints"), py::arg("cameras") = std::vector<CameraInfo>(), py::arg("servo_hz") = 0.0,
           py::arg("has_hw_watchdog") = false)
      .def_readwrite("joints", &Description::joints, "list of JointInfo.")
      .def_readwrite("cameras", &Description::cameras, "list of CameraInfo.")
      .def_readwrite("servo_hz", &Description::servo_hz, "Fastest command rate, Hz; 0 = any.")
      .def_readwrite("has_hw_watchdog", &Description::has_hw_watchdog,
                     "The device itself refuses commands after valid_until_ns.");
  py::class_<HalConfig>(m, "HalConfig", "Settings a driver may need: servo_hz and its own parameters.")
      .def(py::init([](double servo_hz, std::map<std::string, std::string> parameters) {
             return HalConfig{servo_hz, std::move(parameters)};
           }),
           py::arg("servo_hz") = 0.0, py::arg("parameters") = std::map<std::string, std::string>())
      .def_readwrite("servo_hz", &HalConfig::servo_hz, "Rate of read and write, Hz; 0 = not known yet.")
      .def_readwrite("parameters", &HalConfig::parameters, "The driver's own settings, {str: str}.");
  py::class_<OwnedState>(
      m, "State",
      "Measured joints.\n\nArgs:\n    q: float64 [dof], rad.\n    dq: float64 [dof], rad/s.\n"
      "    tau: float64 [dof], N m.\n    t_ns: when they were measured, monotonic, ns; 0 = at the call.\n"
      "    fault_bits: the driver's own code; 0 = healthy.\n\n"
      "Raises:\n    ShapeError: an array is not one-dimensional.")
      .def(py::init([](const Doubles& q, const Doubles& dq, const Doubles& tau, uint64_t t_ns, uint32_t fault_bits) {
             return OwnedState{to_vector(q, "State: q"), to_vector(dq, "State: dq"), to_vector(tau, "State: tau"), t_ns,
                               fault_bits};
           }),
           py::arg("q"), py::arg("dq") = Doubles(0), py::arg("tau") = Doubles(0), py::arg("t_ns") = 0,
           py::arg("fault_bits") = 0)
      .def_property_readonly(
          "q", [](const OwnedState& s) { return to_array(s.q); }, "Positions, float64 [dof], rad.")
      .def_property_readonly(
          "dq", [](const OwnedState& s) { return to_array(s.dq); }, "Velocities, float64 [dof], rad/s.")
      .def_property_readonly(
          "tau", [](const OwnedState& s) { return to_array(s.tau); },
          "Torques, float64 [dof], N m; zero where not measured.")
      .def_readonly("t_ns", &OwnedState::t_ns, "When they were measured, monotonic, ns.")
      .def_readonly("fault_bits", &OwnedState::fault_bits, "The driver's own code; 0 = healthy.");
  py::class_<OwnedCommand>(m, "Command", "One command; the device must refuse it after valid_until_ns.")
      .def(py::init([](const Doubles& q, uint64_t t_ns, uint64_t valid_until_ns) {
             return OwnedCommand{.q = to_vector(q, "Command: q"), .t_ns = t_ns, .valid_until_ns = valid_until_ns};
           }),
           py::arg("q"), py::arg("t_ns"), py::arg("valid_until_ns"))
      .def_property_readonly(
          "q", [](const OwnedCommand& c) { return to_array(c.q); }, "float64 [dof], rad.")
      .def_property_readonly(
          "dq", [](const OwnedCommand& c) { return to_array(c.dq); }, "float64 [dof], rad/s.")
      .def_readonly("t_ns", &OwnedCommand::t_ns, "When it was issued, monotonic, ns.")
      .def_readonly("valid_until_ns", &OwnedCommand::valid_until_ns, "Dead-man time, monotonic, ns.")
      .def_readonly("mode", &OwnedCommand::mode, "What its numbers mean.");
}

OwnedState read_state(Hal& hal) {
  const size_t dof = hal.configure({}).joints.size();
  OwnedState owned{.q = std::vector<double>(dof), .dq = std::vector<double>(dof), .tau = std::vector<double>(dof)};
  State state{.q = owned.q, .dq = owned.dq, .tau = owned.tau};
  if (hal.read(state) != Status::ok) throw RobotError("Hal.read: nothing was measured. " + hal.error());
  owned.t_ns = state.t_ns;
  owned.fault_bits = state.fault_bits;
  return owned;
}

Status write_command(Hal& hal, const OwnedCommand& c) {
  return hal.write({.t_ns = c.t_ns, .valid_until_ns = c.valid_until_ns, .mode = c.mode, .q = c.q, .dq = c.dq});
}

py::array grab_frame(Hal& hal, int camera) {
  FrameView view;
  Status status;
  {
    const py::gil_scoped_release nogil;
    status = hal.frame(camera, view);
  }
  if (status != Status::ok)
    throw RobotError("Hal.frame: camera " + std::to_string(camera) + " has no frame. " + hal.error());
  return py::array_t<uint8_t>({view.height, view.width, 3}, view.rgb);
}

std::shared_ptr<MockHal> make_mock(std::shared_ptr<Clock> clock, const std::vector<std::string>& joints,
                                   const std::vector<CameraInfo>& cameras, const Doubles& start, double time_constant,
                                   size_t record_commands) {
  MockOptions options;
  for (const std::string& name : joints) options.joints.push_back({.name = name});
  options.cameras = cameras;
  options.start = to_vector(start, "MockHal: start");
  options.time_constant = time_constant;
  options.record_commands = record_commands;
  return std::make_shared<MockHal>(clock ? std::move(clock) : std::make_shared<SystemClock>(), std::move(options));
}

void bind_mock(py::module_& m) {
  py::class_<MockHal, Hal, py::smart_holder>(
      m, "MockHal",
      "A robot in memory: a first-order plant with its own watchdog; FaultInjector makes it fail.\n\n"
      "Args:\n    joints: their names.\n    clock: the runner's clock; None = the machine's.\n"
      "    cameras: list of CameraInfo.\n    start: float64 [dof], rad.\n    time_constant: s.\n"
      "    record_commands: how many commands to keep.",
      py::release_gil_before_calling_cpp_dtor())
      .def(py::init(&make_mock), py::arg("clock") = nullptr, py::kw_only(), py::arg("joints"),
           py::arg("cameras") = std::vector<CameraInfo>(), py::arg("start") = Doubles(0),
           py::arg("time_constant") = 0.05, py::arg("record_commands") = 0)
      .def_property_readonly(
          "position", [](const MockHal& self) { return to_array(self.position()); },
          "Where the plant is, float64 [dof], rad.")
      .def_property_readonly(
          "commands",
          [](const MockHal& self) {
            const auto q = self.commands();
            const auto dof = static_cast<py::ssize_t>(self.position().size());
            return to_array(q, {static_cast<py::ssize_t>(q.size()) / dof, dof});
          },
          "The kept commands, float64 [n, dof], rad.")
      .def_property_readonly(
          "command_times", [](const MockHal& self) { return to_array(self.command_times()); },
          "When the kept commands were issued, uint64 [n], ns.")
      .def_property_readonly("lapses", &MockHal::lapses, "How often the watchdog found the last command expired.")
      .def_property_readonly("active", &MockHal::active, "Whether it takes commands.")
      .def_property_readonly("stops", &MockHal::stops, "Calls of stop() so far.");
}

}  // namespace

void bind_hal(py::module_& m) {
  bind_clocks(m);
  bind_hal_values(m);
  using nogil = py::call_guard<py::gil_scoped_release>;
  py::class_<Hal, PythonHal, py::smart_holder>(
      m, "Hal",
      "A robot driver. Subclass it with\n\n"
      "    configure(config) -> Description      connect; a second call returns the same description\n"
      "    activate(mode)                        release the brakes, hold the measured position\n"
      "    read() -> q, (q, dq) or State         rad, rad/s\n"
      "    write(command)                        refuse it after command.valid_until_ns\n"
      "    deactivate()   stop(kind)   close()\n"
      "    frame(camera) -> uint8 [height, width, 3] or (image, t_ns)     if there are cameras\n\n"
      "read, write and frame may return a Status instead. A Runner calls all of them from one thread of their own, a\n"
      "VirtualRunner from the caller's. What they raise stops the robot and is raised from Runner.wait().",
      py::release_gil_before_calling_cpp_dtor())
      .def(py::init<>())
      .def("configure", &Hal::configure, py::arg("config") = HalConfig{}, nogil(),
           "Connects without moving anything; a second call returns the same Description. Raises RobotError.")
      .def("activate", &Hal::activate, py::arg("mode") = Mode::position, nogil(),
           "Releases the brakes and holds the measured position. Raises RobotError.")
      .def("read", &read_state, nogil(), "Measures the joints: a State, rad and rad/s. Raises RobotError.")
      .def("write", &write_command, py::arg("command"), nogil(),
           "Issues a Command, rad; the device must refuse it after its valid_until_ns. Returns a Status.")
      .def("deactivate", &Hal::deactivate, nogil(), "Ends command mode in a controlled way. Raises RobotError.")
      .def("stop", &Hal::stop, py::arg("kind") = StopKind::soft_stop, nogil(), "Stops at once; from any thread.")
      .def("close", &Hal::close, nogil(), "Disconnects; the driver may be configured again.")
      .def("frame", &grab_frame, py::arg("camera"),
           "The newest frame of camera number `camera`, uint8 [height, width, 3]. Raises RobotError.")
      .def("error", &Hal::error, "What the last fault was, in words.");
  bind_mock(m);
  m.def(
      "observe",
      [](Hal& hal, int64_t tick, const Description* description) {
        return description ? observe(hal, *description, tick) : observe(hal, tick);
      },
      py::arg("hal"), py::arg("tick") = 0, py::arg("description") = nullptr, nogil(),
      "One look at a robot: the newest frame of each camera and the measured joints.\n\n"
      "Args:\n    hal: the robot driver.\n    tick: control tick to write into the Observation.\n"
      "    description: what hal.configure(...) gave; None: it is asked by configure(HalConfig()).\n\n"
      "Raises:\n    RobotError: the joints or a camera could not be read.");
  m.def("load_hal", &load_hal, py::arg("library"), py::arg("name") = "",
        R"(Loads a robot driver from a shared library that speaks wamcore/hal_abi.h.

Args:
    library: path, or a name that the system's loader finds.
    name: which of the library's drivers.
Raises:
    RobotError: no such library or driver, or it speaks another ABI.)");
}

}  // namespace wam::bindings
