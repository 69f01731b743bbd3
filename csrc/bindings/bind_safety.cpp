#include <pybind11/stl.h>

#include "arrays.h"
#include "bind.h"
#include "keywords.h"
#include "runner_options.h"
#include "wamcore/kinematic_workspace.h"
#include "wamcore/safety.h"

namespace wam::bindings {

py::dict reason_counts(const std::function<uint64_t(Reason)>& count) {
  py::dict out;
  for (int r = 1; r < kReasons; ++r) out[name(static_cast<Reason>(r))] = count(static_cast<Reason>(r));
  return out;
}

SafetyOptions safety_options(const py::dict& given) {
  SafetyOptions o;
  std::shared_ptr<KinematicWorkspace> workspace;
  Keywords(given, "SafetyFilter")
      .take("period", o.period)
      .take("horizon", o.horizon)
      .take("dt", o.dt)
      .take("max_obs_age", o.max_obs_age)
      .take("first_step_time", o.first_step_time)
      .take("max_first_step", o.max_first_step)
      .take("range_slack", o.range_slack)
      .take("soft_margin", o.soft_margin)
      .take("hold_time", o.hold_time)
      .take("hold_braking", o.hold_braking)
      .take("standstill", o.standstill)
      .take("seed_slack", o.seed_slack)
      .take("workspace", workspace)
      .finish();
  o.workspace = std::move(workspace);
  return o;
}

namespace {

/// A filter with the verdict of its last step.
struct PySafetyFilter {
  PySafetyFilter(JointLimits limits, SafetyOptions options) : filter(std::move(limits), std::move(options)) {}

  SafetyFilter filter;
  Verdict verdict;

  py::array_t<double> finish(Verdict v, const std::vector<double>& out) {
    if (v.phase == Phase::unseeded) throw RobotError("SafetyFilter: seed it with measured joints first");
    verdict = v;
    return to_array(out);
  }
  std::vector<double> room() const { return std::vector<double>(filter.limits().names.size()); }
};

JointLimits make_limits(std::vector<std::string> names, const Doubles& low, const Doubles& high,
                        const Doubles& velocity, const Doubles& acceleration, const std::optional<Doubles>& jerk) {
  JointLimits limits{std::move(names),
                     to_vector(low, "JointLimits: position_min"),
                     to_vector(high, "JointLimits: position_max"),
                     to_vector(velocity, "JointLimits: velocity"),
                     to_vector(acceleration, "JointLimits: acceleration"),
                     jerk ? to_vector(*jerk, "JointLimits: jerk") : std::vector<double>{}};
  limits.validate();
  return limits;
}

LinkFrame make_frame(const py::handle& given) {
  LinkFrame f;
  std::string motion = "fixed";
  Keywords(given.cast<py::dict>(), "Workspace: frames")
      .take("parent", f.parent)
      .take("position", f.position)
      .take("rotation", f.rotation)
      .take("motion", motion)
      .take("joint", f.joint)
      .take("axis", f.axis)
      .take("scale", f.scale)
      .take("offset", f.offset)
      .finish();
  if (motion != "fixed" && motion != "hinge" && motion != "slide")
    throw ConfigError("Workspace: frames: motion wants 'fixed', 'hinge' or 'slide', got '" + motion + "'");
  f.motion = motion == "hinge" ? Motion::hinge : motion == "slide" ? Motion::slide : Motion::fixed;
  return f;
}

BodySphere make_sphere(const py::handle& given) {
  BodySphere s;
  Keywords(given.cast<py::dict>(), "Workspace: spheres")
      .take("frame", s.frame)
      .take("centre", s.centre)
      .take("radius", s.radius)
      .finish();
  return s;
}

Region make_region(const py::handle& given) {
  static const std::map<std::string, RegionShape> shapes = {{"half_space", RegionShape::half_space},
                                                            {"box", RegionShape::box},
                                                            {"cylinder", RegionShape::cylinder},
                                                            {"sphere", RegionShape::sphere}};
  Region r;
  std::string shape = "box";
  std::vector<double> size;
  Keywords(given.cast<py::dict>(), "Workspace: regions")
      .take("shape", shape)
      .take("keep_out", r.keep_out)
      .take("centre", r.centre)
      .take("rotation", r.rotation)
      .take("size", size)
      .finish();
  const auto found = shapes.find(shape);
  if (found == shapes.end() || size.size() > r.size.size())
    throw ConfigError("Workspace: regions: wanted 'half_space', 'box', 'cylinder' or 'sphere', got '" + shape + "'");
  r.shape = found->second;
  std::copy(size.begin(), size.end(), r.size.begin());
  return r;
}

std::shared_ptr<KinematicWorkspace> make_workspace(int dof, const py::list& frames, const py::list& spheres,
                                                   const py::list& regions, double margin,
                                                   std::vector<std::array<int, 2>> apart) {
  WorkspaceOptions o{.dof = dof, .apart = std::move(apart), .margin = margin};
  for (const py::handle& one : frames) o.frames.push_back(make_frame(one));
  for (const py::handle& one : spheres) o.spheres.push_back(make_sphere(one));
  for (const py::handle& one : regions) o.regions.push_back(make_region(one));
  return std::make_shared<KinematicWorkspace>(std::move(o));
}

void bind_workspace(py::module_& m) {
  py::class_<KinematicWorkspace, py::smart_holder>(
      m, "Workspace",
      "Where a robot may be: every sphere on it stays inside or outside convex regions. Computed in C++.\n\n"
      "Args:\n    dof: joints.\n"
      "    frames: [{parent: number of an earlier frame or -1, position: m [3], rotation: quaternion w x y z,\n"
      "        motion: 'fixed', 'hinge' or 'slide', joint: number or -1, axis: [3], scale, offset}].\n"
      "    spheres: [{frame: number, centre: m [3], radius: m}].\n"
      "    regions: [{shape: 'half_space', 'box', 'cylinder' or 'sphere', keep_out: bool, centre: m [3],\n"
      "        rotation: quaternion w x y z, size: m; half edges, (radius, half height) or (radius,)}].\n"
      "    margin: m that the spheres keep away from every border.\n"
      "    apart: [(sphere, sphere)], numbers of spheres that must not touch each other.\n\n"
      "Raises:\n    ConfigError: numbers that do not fit together.")
      .def(py::init(&make_workspace), py::arg("dof"), py::arg("frames"), py::arg("spheres"), py::arg("regions"),
           py::arg("margin") = 0.01, py::arg("apart") = std::vector<std::array<int, 2>>())
      .def(
          "allows",
          [](const KinematicWorkspace& w, const Doubles& q) { return w.allows(to_vector(q, "Workspace.allows: q")); },
          py::arg("q"), "Whether the joints may be at q, float64 [dof] rad.")
      .def(
          "clearance",
          [](const KinematicWorkspace& w, const Doubles& q) {
            return w.clearance(to_vector(q, "Workspace.clearance: q"));
          },
          py::arg("q"), "Smallest distance from what is forbidden, less the margin, m; negative: q is forbidden.")
      .def(
          "centres",
          [](const KinematicWorkspace& w, const Doubles& q) {
            const std::vector<double> c = w.centres(to_vector(q, "Workspace.centres: q"));
            return to_array(c, {static_cast<py::ssize_t>(c.size() / 3), 3});
          },
          py::arg("q"), "Where the spheres are, float64 [spheres, 3] m.");
}

}  // namespace

void bind_safety(py::module_& m) {
  bind_workspace(m);
  py::class_<JointLimits>(m, "JointLimits",
                          "What each joint may do.\n\n"
                          "Args:\n    names: [dof] joint names, in the robot's order.\n"
                          "    position_min, position_max: float64 [dof], rad.\n    velocity: float64 [dof], rad/s.\n"
                          "    acceleration: float64 [dof], rad/s^2.\n"
                          "    jerk: float64 [dof], rad/s^3; None: each acceleration limit over 20 ms.\n\n"
                          "Raises:\n    ConfigError: an entry is missing, not finite or contradictory.")
      .def(py::init(&make_limits), py::arg("names"), py::arg("position_min"), py::arg("position_max"),
           py::arg("velocity"), py::arg("acceleration"), py::arg("jerk") = py::none())
      .def_property_readonly("dof", &JointLimits::dof, "Joints.")
      .def_readonly("names", &JointLimits::names, "[dof], in the robot's order.")
      .def_property_readonly(
          "position_min", [](const JointLimits& l) { return to_array(l.position_min); }, "float64 [dof], rad.")
      .def_property_readonly(
          "position_max", [](const JointLimits& l) { return to_array(l.position_max); }, "float64 [dof], rad.")
      .def_property_readonly(
          "velocity", [](const JointLimits& l) { return to_array(l.velocity); }, "float64 [dof], rad/s.")
      .def_property_readonly(
          "acceleration", [](const JointLimits& l) { return to_array(l.acceleration); }, "float64 [dof], rad/s^2.")
      .def_property_readonly(
          "jerk",
          [](const JointLimits& l) {
            std::vector<double> jerk;
            for (int j = 0; j < l.dof(); ++j) jerk.push_back(l.jerk_of(j));
            return to_array(jerk);
          },
          "float64 [dof], rad/s^3.");

  using Filter = PySafetyFilter;
  py::class_<Filter>(
      m, "SafetyFilter",
      "The last word before the robot; not a certified safety function. A Runner has its own.\n\n"
      "Args:\n    limits: JointLimits.\n    options: period (s), horizon, dt (s), max_obs_age (s),\n"
      "        first_step_time (s), max_first_step ([dof] rad), range_slack (rad), soft_margin (rad), hold_time (s),\n"
      "        hold_braking, standstill (rad/s), seed_slack (rad), workspace; see wamcore/safety.h.\n\n"
      "Raises:\n    ConfigError: limits or options are unusable.")
      .def(py::init([](JointLimits limits, const py::kwargs& options) {
             return std::make_unique<Filter>(std::move(limits), safety_options(options));
           }),
           py::arg("limits"))
      .def(
          "seed", [](Filter& f, const Doubles& q) { return f.filter.seed(to_vector(q, "SafetyFilter.seed: q")); },
          py::arg("measured"), "Starts from measured joints [dof] rad at a stand; False if they are unusable.")
      .def(
          "vet", [](Filter& f, const ActionChunk& chunk) { return name(f.filter.vet(chunk)); }, py::arg("chunk"),
          "Checks shape, numbers and range of a chunk; returns the first objection or 'none'.")
      .def(
          "admit",
          [](Filter& f, const ActionChunk& chunk, const Doubles& measured, int64_t tick, uint64_t t_ns,
             uint32_t epoch) {
            return name(f.filter.admit(chunk, {.tick = tick, .t_ns = t_ns, .epoch = epoch},
                                       to_vector(measured, "SafetyFilter.admit: measured")));
          },
          py::arg("chunk"), py::arg("measured"), py::kw_only(), py::arg("tick"), py::arg("t_ns"), py::arg("epoch") = 0,
          "Decides whether a chunk may be executed now; returns the first objection or 'none'.")
      .def(
          "step",
          [](Filter& f, const std::optional<Doubles>& target) {
            std::vector<double> out = f.room(), goal;
            if (target) goal = to_vector(*target, "SafetyFilter.step: target");
            if (target && goal.size() != out.size())
              throw ShapeError("SafetyFilter.step: target wants " + std::to_string(out.size()) + " joints, got " +
                               std::to_string(goal.size()));
            return f.finish(f.filter.step(goal, out), out);
          },
          py::arg("target") = py::none(), "The command of this period, float64 [dof] rad; None = nothing fresh.")
      .def(
          "wait",
          [](Filter& f) {
            std::vector<double> out = f.room();
            return f.finish(f.filter.wait(out), out);
          },
          "The command of this period while the robot waits on purpose.")
      .def(
          "shut_down", [](Filter& f) { f.filter.shut_down(); }, "Brakes for good.")
      .def(
          "estop", [](Filter& f) { f.filter.estop(); }, "Latches the emergency stop.")
      .def(
          "reset",
          [](Filter& f, const Doubles& q, const Doubles& dq) {
            return f.filter.reset(to_vector(q, "SafetyFilter.reset: q"), to_vector(dq, "SafetyFilter.reset: dq"));
          },
          py::arg("measured"), py::arg("measured_velocity"),
          "Clears a stop at a stand, given float64 [dof] rad and rad/s; says whether it did.")
      .def_property_readonly(
          "phase", [](const Filter& f) { return name(f.verdict.phase); },
          "Phase after the last command, one of PHASES.")
      .def_property_readonly(
          "reason", [](const Filter& f) { return name(f.verdict.reason); },
          "The first stage that changed the last command, or 'none'.")
      .def_property_readonly(
          "velocity",
          [](const Filter& f) {
            std::vector<double> v = f.room();
            for (size_t j = 0; j < v.size(); ++j) v[j] = f.filter.velocity(static_cast<int>(j));
            return to_array(v);
          },
          "Commanded velocity, float64 [dof], rad/s.")
      .def_property_readonly(
          "counters", [](const Filter& f) { return reason_counts([&](Reason r) { return f.filter.count_of(r); }); },
          "{stage: chunks refused or periods changed}.");
  const auto names = [](int n, auto kind) {
    py::list list;
    for (int i = 0; i < n; ++i) list.append(name(static_cast<decltype(kind)>(i)));
    return py::tuple(list);
  };
  m.attr("REASONS") = names(kReasons, Reason::none);
  m.attr("PHASES") = names(kPhases, Phase::unseeded);
}

}  // namespace wam::bindings
