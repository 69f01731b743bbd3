#include <pybind11/stl.h>

#include <limits>

#include "arrays.h"
#include "bind.h"
#include "wamcore/fault_injector.h"
#include "wamcore/replay_hal.h"

namespace wam::bindings {
namespace {

template <typename Kind>
Kind kind_of(const std::string& text, Kind last, const char* what) {
  std::string all;
  for (int i = 0; i <= static_cast<int>(last); ++i) {
    const auto kind = static_cast<Kind>(i);
    if (text == name(kind)) return kind;
    all += std::string(all.empty() ? "'" : ", '") + name(kind) + "'";
  }
  throw ConfigError(std::string("FaultInjector: ") + what + " wants one of " + all + ", got '" + text + "'");
}

HalCall call_of(const std::string& text) { return kind_of(text, HalCall::deactivate, "call"); }

std::shared_ptr<Clock> or_system(std::shared_ptr<Clock> clock) {
  return clock ? std::move(clock) : std::make_shared<SystemClock>();
}

void bind_injector(py::module_& m) {
  py::class_<FaultInjector, Hal, py::smart_holder>(
      m, "FaultInjector",
      "Any driver, with faults; the same faults, seed and calls give the same run.\n\n"
      "Args:\n    inner: the driver.\n    clock: the runner's clock; None = the machine's.\n    seed: of chance.\n\n"
      "Raises:\n    ConfigError: no driver was given.",
      py::release_gil_before_calling_cpp_dtor())
      .def(py::init([](std::shared_ptr<Hal> inner, std::shared_ptr<Clock> clock, uint64_t seed) {
             return std::make_shared<FaultInjector>(std::move(inner), or_system(std::move(clock)), seed);
           }),
           py::arg("inner"), py::arg("clock") = nullptr, py::arg("seed") = 0)
      .def(
          "inject",
          [](FaultInjector& self, const std::string& call, const std::string& kind, uint64_t start, uint64_t count,
             double probability, Status status, int ticks, double seconds, int joint, double value) {
            self.inject({.call = call_of(call),
                         .kind = kind_of(kind, FaultKind::offset, "kind"),
                         .from = start,
                         .count = count,
                         .probability = probability,
                         .status = status,
                         .ticks = ticks,
                         .seconds = seconds,
                         .joint = joint,
                         .value = value});
          },
          py::arg("call"), py::arg("kind") = "answer", py::kw_only(), py::arg("start") = 0,
          py::arg("count") = UINT64_MAX, py::arg("probability") = 1.0, py::arg("status") = Status::fault,
          py::arg("ticks") = 1, py::arg("seconds") = 0.0, py::arg("joint") = -1, py::arg("value") = 0.0,
          "Adds a fault; before the run.\n\n"
          "Args:\n    call: 'configure', 'activate', 'read', 'write', 'frame' or 'deactivate'.\n"
          "    kind: 'answer' (with `status`; a set-up call raises), 'drop', 'freeze' (old time), 'stuck' (time goes "
          "on),\n"
          "        'late' (by `ticks`), 'stall' (`seconds` longer), 'skew' (time stamps off by `seconds`) or 'offset'\n"
          "        (`joint` measured off by `value` rad, -1 = all).\n"
          "    start, count: servo ticks, which are calls of read since activate.\n    probability: of each tick.\n\n"
          "Raises:\n    ConfigError: that call cannot fail so.")
      .def(
          "struck", [](const FaultInjector& self, const std::string& call) { return self.struck(call_of(call)); },
          py::arg("call"), "How many calls a fault has changed.")
      .def_property_readonly("inner", &FaultInjector::inner, "The driver.");
}

std::vector<double> flat(const Doubles& a, size_t rows, size_t dof, const char* what) {
  if (a.ndim() != 2 || static_cast<size_t>(a.shape(0)) != rows || static_cast<size_t>(a.shape(1)) != dof)
    throw ShapeError(std::string("Replay: ") + what + ": wanted [" + std::to_string(rows) + ", " + std::to_string(dof) +
                     "], got " + shape_of(a));
  return {a.data(), a.data() + a.size()};
}

void bind_replay(py::module_& m) {
  using Times = py::array_t<uint64_t, py::array::c_style | py::array::forcecast>;
  py::class_<ReplayHal, Hal, py::smart_holder>(
      m, "ReplayHal",
      "A robot that measures what was recorded, whatever it is told; see wamcore.hal.replay for a file.\n\n"
      "Args:\n    joints: their names.\n    t_ns: of the cycles, uint64 [n], ascending.\n"
      "    measured, command: float64 [n, dof], rad.\n    clock: the runner's clock; None = the machine's.\n"
      "    cameras: list of CameraInfo; their frames are black.\n"
      "    tolerance: rad; a command further from the recorded one is a fault.\n\n"
      "Raises:\n    ConfigError: the recording is empty, not finite, or its times do not ascend.\n"
      "    ShapeError: the arrays do not fit.",
      py::release_gil_before_calling_cpp_dtor())
      .def(py::init([](const std::vector<std::string>& joints, const Times& t_ns, const Doubles& measured,
                       const Doubles& command, std::shared_ptr<Clock> clock, std::vector<CameraInfo> cameras,
                       double tolerance) {
             if (t_ns.ndim() != 1) throw ShapeError("Replay: t_ns: wanted one dimension, got " + shape_of(t_ns));
             const auto rows = static_cast<size_t>(t_ns.size());
             Recording r{.t_ns = {t_ns.data(), t_ns.data() + rows},
                         .measured = flat(measured, rows, joints.size(), "measured"),
                         .command = flat(command, rows, joints.size(), "command")};
             for (const std::string& joint : joints) r.joints.push_back({.name = joint});
             return std::make_shared<ReplayHal>(
                 or_system(std::move(clock)),
                 ReplayOptions{.recording = std::move(r), .cameras = std::move(cameras), .tolerance = tolerance});
           }),
           py::arg("joints"), py::arg("t_ns"), py::arg("measured"), py::arg("command"), py::kw_only(),
           py::arg("clock") = nullptr, py::arg("cameras") = std::vector<CameraInfo>(),
           py::arg("tolerance") = std::numeric_limits<double>::infinity())
      .def_property_readonly("finished", &ReplayHal::finished, "Whether the last cycle has been measured.")
      .def_property_readonly("compared", &ReplayHal::compared, "Commands compared so far.")
      .def_property_readonly("deviation", &ReplayHal::deviation,
                             "Their largest difference from the recorded ones, rad.");
}

}  // namespace

void bind_drivers(py::module_& m) {
  bind_injector(m);
  bind_replay(m);
}

}  // namespace wam::bindings
