#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <mutex>

#include "arrays.h"
#include "bind.h"
#include "callback_errors.h"
#include "hal/proxy.h"
#include "keywords.h"
#include "python_hal.h"
#include "runner_options.h"
#include "wamcore/fault_injector.h"
#include "wamcore/virtual_runner.h"

namespace wam::bindings {
namespace {

Execution execution(const std::string& text) {
  std::string all;
  for (auto mode = Execution::automatic; mode <= Execution::temporal_ensemble;
       mode = static_cast<Execution>(static_cast<int>(mode) + 1)) {
    if (text == name(mode)) return mode;
    all += std::string(all.empty() ? "'" : ", '") + name(mode) + "'";
  }
  throw ConfigError("Runner: mode wants one of " + all + ", got '" + text + "'");
}

Realtime realtime(const std::string& text) {
  if (text == "ignore") return Realtime::ignore;
  if (text == "prefer") return Realtime::prefer;
  if (text == "enforce") return Realtime::enforce;
  throw ConfigError("Runner: realtime wants 'ignore', 'prefer' or 'enforce', got '" + text + "'");
}

RunnerOptions runner_options(const py::dict& given) {
  RunnerOptions o;
  std::string mode = "automatic", wish = "ignore";
  py::dict safety;
  py::list grippers;
  Keywords(given, "Runner")
      .take("grippers", grippers)
      .take("control_hz", o.control_hz)
      .take("execute_horizon", o.execute_horizon)
      .take("blend_ticks", o.blend_ticks)
      .take("soft_ticks", o.soft_ticks)
      .take("ensemble_decay", o.ensemble_decay)
      .take("cpu", o.cpu)
      .take("max_obs_age", o.max_obs_age)
      .take("max_chunk_age", o.max_chunk_age)
      .take("camera_latency", o.camera_latency)
      .take("state_latency", o.state_latency)
      .take("max_state_age", o.max_state_age)
      .take("command_validity", o.command_validity)
      .take("record", o.record)
      .take("dump", o.dump)
      .take("priority", o.priority)
      .take("clock", o.clock)
      .take("parameters", o.hal.parameters)
      .take("mode", mode)
      .take("realtime", wish)
      .take("safety", safety)
      .finish();
  for (const py::handle& one : grippers) {
    Gripper g;
    Keywords(one.cast<py::dict>(), "Runner: grippers")
        .take("joint", g.joint)
        .take("open", g.open)
        .take("closed", g.closed)
        .take("hysteresis", g.hysteresis)
        .finish();
    o.grippers.push_back(g);
  }
  o.mode = execution(mode);
  o.realtime = realtime(wish);
  o.safety = safety_options(safety);
  return o;
}

py::dict to_dict(const Quantiles& q) {
  py::dict d;
  d["p50"] = q.p50;
  d["p99"] = q.p99;
  d["p999"] = q.p999;
  d["max"] = q.max;
  d["count"] = q.count;
  return d;
}

py::dict to_dict(const RunnerStats& s) {
  py::dict d;
  d["seconds"] = s.seconds;
  d["cycles"] = s.cycles;
  d["overruns"] = s.overruns;
  d["ticks"] = s.ticks;
  d["starved_ticks"] = s.starved_ticks;
  d["chunks"] = s.chunks;
  d["refused_chunks"] = s.refused_chunks;
  d["late_chunks"] = s.late_chunks;
  d["continued_chunks"] = s.continued_chunks;
  d["mode"] = name(s.mode);
  d["skipped_rows"] = s.skipped_rows;
  d["stale_reads"] = s.stale_reads;
  d["stale_writes"] = s.stale_writes;
  d["fault_bits"] = s.fault_bits;
  d["inference"] = to_dict(s.inference);
  d["cycle"] = to_dict(s.cycle);
  d["obs_age"] = to_dict(s.obs_age);
  d["seam_gap"] = to_dict(s.seam_gap);
  d["seam_jump"] = to_dict(s.seam_jump);
  py::dict delays;
  for (size_t i = 0; i < s.delay_ticks.size(); ++i)
    if (s.delay_ticks[i]) delays[py::int_(i)] = s.delay_ticks[i];
  d["delay_ticks"] = delays;
  d["safety"] = reason_counts([&](Reason r) { return s.safety[static_cast<size_t>(r)]; });
  d["phase"] = name(s.phase);
  d["realtime"] = s.realtime;
  d["watchdog"] = s.watchdog;
  d["dumps"] = s.dumps;
  d["dump_error"] = s.dump_error;
  return d;
}

py::dict to_dict(const RunRecord& r) {
  const auto n = static_cast<py::ssize_t>(r.t_ns.size()), dof = static_cast<py::ssize_t>(r.dof);
  py::dict d;
  d["t_ns"] = to_array(r.t_ns);
  d["tick"] = to_array(r.tick);
  d["command"] = to_array(r.command, {n, dof});
  d["reference"] = to_array(r.reference, {n, dof});
  d["measured"] = to_array(r.measured, {n, dof});
  d["phase"] = to_array(r.phase);
  d["reason"] = to_array(r.reason);
  d["chunk"] = to_array(r.chunk);
  d["obs_age"] = to_array(r.obs_age);
  d["seam"] = to_array(r.seam);
  return d;
}

/// A Runner that Python can leave at any moment: with-blocks, Ctrl-C and the end of the interpreter all stop the robot.
class PyRunner : public Runner {
 public:
  using Runner::Runner;

  void wait_for(double seconds) {
    if (std::isnan(seconds)) throw InputError("Runner.wait: wanted a number of seconds, got nan");
    const SystemClock wall;
    const uint64_t end = wall.now_ns() + static_cast<uint64_t>(std::clamp(seconds, 0.0, 1e9) * 1e9);
    do {
      const uint64_t now = wall.now_ns();
      const double slice = now < end ? std::min(0.1, static_cast<double>(end - now) * 1e-9) : 0.0;
      try {
        const py::gil_scoped_release nogil;
        wait(slice);
      } catch (...) {
        heard_ = true;
        throw;
      }
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    } while (running() && wall.now_ns() < end);
  }
  /// Stops; throws what ended the run unless wait_for() has thrown it already or another exception is on its way.
  void leave(bool quietly) {
    const py::gil_scoped_release nogil;
    stop();
    if (!quietly && !heard_) wait(0.0);
  }

 private:
  bool heard_ = false;
};

/// Runners that may still have threads when the interpreter ends.
struct LiveRunners {
  std::mutex mutex;
  std::vector<std::weak_ptr<PyRunner>> runners;

  void add(const std::shared_ptr<PyRunner>& runner) {
    const std::scoped_lock lock(mutex);
    std::erase_if(runners, [](const auto& r) { return r.expired(); });
    runners.push_back(runner);
  }
  void stop_all() {
    std::vector<std::shared_ptr<PyRunner>> alive;
    {
      const std::scoped_lock lock(mutex);
      for (const auto& r : runners)
        if (auto runner = r.lock()) alive.push_back(std::move(runner));
    }
    for (const auto& runner : alive) runner->stop();  // outside the lock: it joins
  }
};
LiveRunners& live_runners() {
  static LiveRunners live;
  return live;
}

/// Whether a driver is written in Python, be it inside another.
bool calls_python(const Hal& hal) {
  if (const auto* faulty = dynamic_cast<const FaultInjector*>(&hal)) return calls_python(*faulty->inner());
  return dynamic_cast<const PythonHal*>(&hal) != nullptr;
}

std::shared_ptr<PyRunner> make_runner(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal, JointLimits limits,
                                      const py::kwargs& given) {
  RunnerOptions options = runner_options(given);
  const py::gil_scoped_release nogil;
  if (!options.clock) options.clock = std::make_shared<SystemClock>();
  if (calls_python(*hal))  // never on the servo thread
    hal = std::make_shared<ProxyHal>(std::move(hal), options.clock,
                                     static_cast<uint64_t>(1e9 / std::clamp(options.control_hz, 1.0, 1e4)));
  auto runner = std::make_shared<PyRunner>(std::move(policy), std::move(hal), std::move(limits), std::move(options));
  live_runners().add(runner);
  return runner;
}

std::unique_ptr<VirtualRunner> make_virtual(std::shared_ptr<Policy> policy, std::shared_ptr<Hal> hal,
                                            JointLimits limits, const py::object& delay_ticks,
                                            const py::kwargs& given) {
  RunnerOptions options = runner_options(given);
  auto delays = py::isinstance<py::int_>(delay_ticks) ? std::vector<int>{delay_ticks.cast<int>()}
                                                      : delay_ticks.cast<std::vector<int>>();
  const py::gil_scoped_release nogil;
  return std::make_unique<VirtualRunner>(std::move(policy), std::move(hal), std::move(limits), std::move(options),
                                         std::move(delays));
}

/// Runs `body` without the interpreter lock. A Ctrl-C that hit a callback on this thread is raised as such.
template <typename Body>
void hearing_interrupts(Body body) {
  callback_interrupted = false;
  try {
    const py::gil_scoped_release nogil;
    body();
  } catch (const Error&) {
    raise_interrupt();
    throw;
  }
}

/// Steps while `go` holds; Ctrl-C is heard every few milliseconds.
template <typename Condition>
void step_while(VirtualRunner& runner, Condition go) {
  while (runner.running() && go()) {
    hearing_interrupts([&] {
      for (int i = 0; i < 64 && go() && runner.step(); ++i) {
      }
    });
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  }
}

constexpr const char* kOptions =
    "    control_hz: servo rate, Hz (200).\n"
    "    mode: 'sync' (stand still and infer), 'async_switch', 'blend', 'rtc_guided', 'rtc_trained',\n"
    "        'temporal_ensemble', or 'automatic': rtc where the policy can, else blend; see docs/realtime.md.\n"
    "    execute_horizon: ticks between inference starts (0 = half a chunk).\n"
    "    blend_ticks: length of the seam between two chunks, in control ticks (2).\n"
    "    soft_ticks: rtc_guided: rows after the frozen ones that the old chunk still pulls (2; -1 = all that it has).\n"
    "    ensemble_decay: temporal_ensemble's weights are exp(-decay i), oldest first (0.01).\n"
    "    camera_latency: {camera: s from mid-exposure to the time its frames claim to be of}, measured ({}).\n"
    "    state_latency: the same of the measured joints, s (0).\n"
    "    max_obs_age, max_chunk_age: s (0 = as long as the chunk has rows).\n"
    "    max_state_age, command_validity: s (0.1).\n"
    "    record: s of servo cycles to keep for record() (30).\n"
    "    dump: folder for flight records ('' = nowhere): one at the end of the run, and one 2 s after each emergency\n"
    "        stop, which stats tells as dumps and dump_error; see read_record.\n"
    "    grippers: [{joint: number, open: rad, closed: rad, hysteresis: share}], joints that are not interpolated.\n"
    "    safety: dict of SafetyFilter options.\n"
    "    parameters: dict of strings for Hal.configure.\n"
    "    clock: the Clock to live by (Runner: the machine's; VirtualRunner: a ManualClock of its own).\n";

void bind_threaded(py::module_& m) {
  using nogil = py::call_guard<py::gil_scoped_release>;
  static const std::string doc =
      std::string(
          "Runs a policy on a robot: inference, observation and servo threads.\n\n"
          "Args:\n    policy: a Session or another Policy.\n    hal: the robot driver.\n"
          "    limits: JointLimits.\n") +
      kOptions +
      "    realtime: 'ignore', 'prefer' or 'enforce' SCHED_FIFO and locked memory; priority; cpu (-1 = any core).\n\n"
      "Raises:\n    ConfigError: policy, limits and options do not fit.";
  py::class_<PyRunner, py::smart_holder>(m, "Runner", doc.c_str(), py::release_gil_before_calling_cpp_dtor())
      .def(py::init(&make_runner), py::arg("policy"), py::arg("hal"), py::arg("limits"))
      .def("start", &PyRunner::start, nogil(), "Configures and activates the robot and starts the threads.")
      .def("wait", &PyRunner::wait_for, py::arg("seconds"),
           "Waits until `seconds` have passed or the run has ended; raises what stopped a thread.")
      .def("stop", &PyRunner::stop, nogil(), "Brakes to a stand, deactivates and closes the robot, joins the threads.")
      .def("estop", &PyRunner::estop, nogil(), "Latches the emergency stop.")
      .def("pause", &PyRunner::pause, "Brakes to a stand and holds there until resume().")
      .def("resume", &PyRunner::resume, "Goes on with a chunk from a fresh look at the scene.")
      .def("reset", &PyRunner::reset, nogil(), "Clears a latched emergency stop at a stand; says whether it did.")
      .def("__enter__",
           [](const py::object& self) {
             auto& runner = self.cast<PyRunner&>();
             {
               const py::gil_scoped_release release;
               runner.start();
             }
             return self;
           })
      .def("__exit__", [](PyRunner& self, const py::object& type, const py::args&) { self.leave(!type.is_none()); })
      .def(
          "record", [](const PyRunner& self) { return to_dict(self.record()); },
          "The kept servo cycles as arrays; after stop().")
      .def_property_readonly("running", &PyRunner::running, "Between start() and the end of the run.")
      .def_property_readonly(
          "stats", [](const PyRunner& self) { return to_dict(self.stats()); }, "What the run did so far, as a dict.");
  py::module_::import("atexit").attr("register")(py::cpp_function([] {
    const py::gil_scoped_release release;
    live_runners().stop_all();
  }));
}

void bind_virtual(py::module_& m) {
  using nogil = py::call_guard<py::gil_scoped_release>;
  static const std::string doc =
      std::string(
          "The same run in virtual time on the calling thread: repeatable to the bit.\n\n"
          "Args:\n    policy: a Session or another Policy.\n    hal: the robot driver; it moves with command.t_ns.\n"
          "    limits: JointLimits.\n    delay_ticks: control ticks an inference takes, or a list of them in turn.\n") +
      kOptions + "\nRaises:\n    ConfigError: policy, limits and options do not fit.";
  py::class_<VirtualRunner>(m, "VirtualRunner", doc.c_str(), py::release_gil_before_calling_cpp_dtor())
      .def(py::init(&make_virtual), py::arg("policy"), py::arg("hal"), py::arg("limits"), py::arg("delay_ticks") = 1)
      .def(
          "start", [](VirtualRunner& self) { hearing_interrupts([&] { self.start(); }); },
          "Configures and activates the robot.")
      .def(
          "step",
          [](VirtualRunner& self) {
            bool goes_on = false;
            hearing_interrupts([&] { goes_on = self.step(); });
            return goes_on;
          },
          "One servo cycle; False once the run has ended.")
      .def(
          "run",
          [](VirtualRunner& self, double seconds) {
            if (std::isnan(seconds)) throw InputError("VirtualRunner.run: wanted a number of seconds, got nan");
            const uint64_t end =
                self.clock()->now_ns() + static_cast<uint64_t>(std::clamp(seconds, 0.0, 1e9) * 1e9 + 0.5);
            step_while(self, [&] { return self.clock()->now_ns() < end; });
          },
          py::arg("seconds"), "Runs `seconds` of virtual time, or until the run ends.")
      .def(
          "run_until", [](VirtualRunner& self, int64_t tick) { step_while(self, [&] { return self.tick() < tick; }); },
          py::arg("tick"), "Runs until control tick `tick` begins, or until the run ends.")
      .def("stop", &VirtualRunner::stop, nogil(), "Brakes to a stand, deactivates and closes the robot.")
      .def("estop", &VirtualRunner::estop, "Latches the emergency stop.")
      .def("pause", &VirtualRunner::pause, "Brakes to a stand and holds there until resume().")
      .def("resume", &VirtualRunner::resume, "Goes on with a chunk from a fresh look at the scene.")
      .def("reset", &VirtualRunner::reset, nogil(), "Clears a latched emergency stop at a stand; says whether it did.")
      .def("__enter__",
           [](const py::object& self) {
             auto& runner = self.cast<VirtualRunner&>();
             hearing_interrupts([&] { runner.start(); });
             return self;
           })
      .def("__exit__",
           [](VirtualRunner& self, const py::args&) {
             const py::gil_scoped_release release;
             self.stop();
           })
      .def(
          "record", [](const VirtualRunner& self) { return to_dict(self.record()); },
          "The kept servo cycles as arrays.")
      .def_property_readonly("running", &VirtualRunner::running, "Between start() and the end of the run.")
      .def_property_readonly("tick", &VirtualRunner::tick, "The control tick being executed.")
      .def_property_readonly("clock", &VirtualRunner::clock, "Its virtual time.")
      .def_property_readonly(
          "stats", [](const VirtualRunner& self) { return to_dict(self.stats()); },
          "What the run did so far, as a dict.");
}

}  // namespace

void bind_runner(py::module_& m) {
  bind_threaded(m);
  bind_virtual(m);
}

}  // namespace wam::bindings
