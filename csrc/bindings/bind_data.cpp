#include <pybind11/stl.h>

#include <atomic>

#include "arrays.h"
#include "bind.h"
#include "callback_errors.h"
#include "wamcore/channel_policy.h"
#include "wamcore/error.h"
#include "wamcore/policy.h"

namespace wam::bindings {
namespace {

CameraFrames to_frames(const std::string& name, const py::object& value) {
  if (!py::isinstance<py::array_t<uint8_t>>(value))
    throw ShapeError("Observation: camera '" + name + "' wants a uint8 array, got " + type_of(value));
  const auto a = py::array_t<uint8_t, py::array::c_style | py::array::forcecast>::ensure(value);
  const bool single = a.ndim() == 3;
  if ((!single && a.ndim() != 4) || a.shape(a.ndim() - 1) != 3 || a.size() == 0)
    throw ShapeError("Observation: camera '" + name + "' wants [frames, height, width, 3] or [height, width, 3], got " +
                     shape_of(a));
  CameraFrames out;
  out.name = name;
  out.frames = single ? 1 : static_cast<int>(a.shape(0));
  out.height = static_cast<int>(a.shape(a.ndim() - 3));
  out.width = static_cast<int>(a.shape(a.ndim() - 2));
  out.rgb.assign(a.data(), a.data() + a.size());
  return out;
}

Observation make_observation(const py::dict& cameras, const Doubles& state, int64_t tick, uint64_t t_ns) {
  Observation obs;
  for (const auto& [name, value] : cameras)
    obs.cameras.push_back(to_frames(name.cast<std::string>(), value.cast<py::object>()));
  obs.state = to_vector(state, "Observation: state");
  obs.tick = tick;
  obs.t_ns = t_ns;
  return obs;
}

py::dict cameras_of(const py::object& self) {
  const auto& obs = self.cast<const Observation&>();
  py::dict out;
  for (const CameraFrames& c : obs.cameras)
    out[py::str(c.name)] = array_view(c.rgb.data(), {c.frames, c.height, c.width, 3}, self);
  return out;
}

ActionChunk make_chunk(const Doubles& q, double dt, const Observation* obs, int64_t obs_tick, uint64_t obs_ns,
                       uint64_t sequence, uint32_t epoch) {
  if (q.ndim() != 2) throw ShapeError("ActionChunk: q wants [horizon, dof], got shape " + shape_of(q));
  ActionChunk chunk;
  chunk.horizon = static_cast<int>(q.shape(0));
  chunk.dof = static_cast<int>(q.shape(1));
  chunk.dt = dt;
  chunk.obs_tick = obs ? obs->tick : obs_tick;
  chunk.obs_ns = obs ? obs->t_ns : obs_ns;
  chunk.sequence = sequence;
  chunk.epoch = epoch;
  chunk.q.assign(q.data(), q.data() + q.size());
  return chunk;
}

Continuity continuity_named(const std::string& text) {
  if (text == "guided") return Continuity::guided;
  if (text == "trained") return Continuity::trained;
  return Continuity::none;
}

/// A policy written in Python. It is called on the runner's inference thread, never on the servo thread.
class PyPolicy final : public Policy, public py::trampoline_self_life_support {
 public:
  void infer(const Observation& obs, ActionChunk& out) override {
    const py::gil_scoped_acquire gil;
    try {
      const py::function f = method("infer");
      // The Python side gets its own copy: it may keep it, and `obs` is reused.
      const py::object chunk = f(py::cast(obs, py::return_value_policy::copy));
      if (!py::isinstance<ActionChunk>(chunk))
        throw RobotError("Policy.infer: wanted an ActionChunk back, got " + type_of(chunk));
      out = chunk.cast<const ActionChunk&>();
    } catch (const py::error_already_set& e) {  // translated here, where the interpreter lock is held
      throw RobotError("Policy.infer: " + words_of(e));
    }
  }
  void extend(const Observation& obs, const Continuation& plan, ActionChunk& out) override {
    const py::gil_scoped_acquire gil;
    try {
      const py::object seen = py::cast(obs, py::return_value_policy::copy);
      const auto rows = static_cast<py::ssize_t>(plan.rows), numbers = static_cast<py::ssize_t>(plan.q.size());
      const py::array targets = to_array(plan.q, {rows, rows > 0 ? numbers / rows : 0});
      const py::object chunk = method("extend")(seen, targets, plan.frozen);
      if (!py::isinstance<ActionChunk>(chunk))
        throw RobotError("Policy.extend: wanted an ActionChunk back, got " + type_of(chunk));
      out = chunk.cast<const ActionChunk&>();
    } catch (const py::error_already_set& e) {
      throw RobotError("Policy.extend: " + words_of(e));
    }
  }
  Continuity continuity() const noexcept override {
    const py::gil_scoped_acquire gil;
    try {
      if (const py::function f = py::get_override(static_cast<const Policy*>(this), "continuity"))
        return continuity_named(f().cast<std::string>());
    } catch (py::error_already_set& e) {  // noexcept here: what it cannot say it cannot do
      e.discard_as_unraisable("Policy.continuity");
    } catch (const std::exception&) {
      return Continuity::none;
    }
    return Policy::continuity();
  }
  double dt() const override { return call<double>("dt"); }
  int horizon() const override { return call<int>("horizon"); }
  int dof() const override { return call<int>("dof"); }
  std::vector<int> frame_offsets() const override {
    const py::gil_scoped_acquire gil;
    if (!py::get_override(static_cast<const Policy*>(this), "frame_offsets")) return Policy::frame_offsets();
    return call<std::vector<int>>("frame_offsets");
  }
  uint32_t epoch() const noexcept override {
    if (no_epoch_) return Policy::epoch();  // asked often, from a thread that should not wait for the interpreter
    const py::gil_scoped_acquire gil;
    try {
      if (const py::function f = py::get_override(static_cast<const Policy*>(this), "epoch"))
        return f().cast<uint32_t>();
      no_epoch_ = true;
    } catch (const std::exception& e) {  // noexcept here; an epoch that nobody has voids every chunk
      PyErr_WriteUnraisable(nullptr);
      return UINT32_MAX;
    }
    return Policy::epoch();
  }

 private:
  mutable std::atomic<bool> no_epoch_{false};  // the subclass defines none
  py::function method(const char* name) const {
    py::function f = py::get_override(static_cast<const Policy*>(this), name);
    if (!f) throw RobotError(std::string("Policy.") + name + " is not implemented");
    return f;
  }
  template <typename T>
  T call(const char* name) const {
    const py::gil_scoped_acquire gil;
    try {
      return method(name)().cast<T>();
    } catch (const RobotError&) {
      throw;
    } catch (const py::error_already_set& e) {
      throw RobotError(std::string("Policy.") + name + ": " + words_of(e));
    } catch (const std::exception& e) {  // a value of another type
      throw RobotError(std::string("Policy.") + name + ": " + e.what());
    }
  }
};

}  // namespace

void bind_data(py::module_& m) {
  py::class_<Observation>(m, "Observation",
                          "What the robot saw and felt at one control tick.\n\n"
                          "Args:\n"
                          "    cameras: {name: uint8 [frames, height, width, 3] oldest first, or [height, width, 3]}.\n"
                          "    state: float64 [state_dim], rad (or the embodiment's unit).\n"
                          "    tick: absolute control tick of the newest frame and the state.\n"
                          "    t_ns: monotonic time of the same, ns.\n\n"
                          "Raises:\n"
                          "    ShapeError: an image is not uint8 or has another shape.")
      .def(py::init(&make_observation), py::arg("cameras") = py::dict(), py::arg("state") = Doubles(0),
           py::arg("tick") = 0, py::arg("t_ns") = 0)
      .def_property_readonly("cameras", &cameras_of, "{name: read-only uint8 view [frames, height, width, 3]}.")
      .def_property_readonly(
          "state",
          [](const py::object& self) {
            const auto& s = self.cast<const Observation&>().state;
            return array_view(s.data(), {static_cast<py::ssize_t>(s.size())}, self);
          },
          "Read-only float64 view [state_dim].")
      .def_readwrite("tick", &Observation::tick, "Control tick of the newest frame and the state.")
      .def_readwrite("t_ns", &Observation::t_ns, "Monotonic time of the same, ns.");

  py::class_<ActionChunk>(m, "ActionChunk",
                          "A horizon of absolute joint targets; row i is the command for control tick obs_tick + i.\n\n"
                          "Args:\n"
                          "    q: float64 [horizon, dof], rad (or the embodiment's unit).\n"
                          "    dt: s between rows.\n"
                          "    obs: the Observation it was computed from; sets obs_tick and obs_ns.\n"
                          "    sequence: counts the chunks of one session.\n"
                          "    epoch: changes at every reset of the session.\n\n"
                          "Raises:\n"
                          "    ShapeError: q is not two-dimensional.")
      .def(py::init(&make_chunk), py::arg("q"), py::arg("dt"), py::arg("obs") = nullptr, py::kw_only(),
           py::arg("obs_tick") = 0, py::arg("obs_ns") = 0, py::arg("sequence") = 0, py::arg("epoch") = 0)
      .def_property_readonly(
          "q",
          [](const py::object& self) {
            const auto& c = self.cast<const ActionChunk&>();
            return array_view(c.q.data(), {c.horizon, c.dof}, self);
          },
          "Absolute joint targets, read-only float64 view [horizon, dof], rad (or the embodiment's unit).")
      .def_readonly("horizon", &ActionChunk::horizon, "Rows.")
      .def_readonly("dof", &ActionChunk::dof, "Joints in a row.")
      .def_readonly("dt", &ActionChunk::dt, "s between rows.")
      .def_readwrite("obs_tick", &ActionChunk::obs_tick, "Control tick of its observation and of row 0.")
      .def_readwrite("obs_ns", &ActionChunk::obs_ns, "Monotonic time of its observation, ns.")
      .def_readwrite("sequence", &ActionChunk::sequence, "Counts the chunks of one session.")
      .def_readwrite("epoch", &ActionChunk::epoch, "Changes at every reset of the session.");

  py::class_<Policy, PyPolicy, py::smart_holder>(
      m, "Policy",
      "Anything that turns an observation into a chunk; subclass it with infer, dt, horizon and dof.\n\n"
      "A subclass may also define frame_offsets() -> list[int] and epoch() -> int, and, if it can continue a plan,\n"
      "continuity() -> 'guided' or 'trained' and extend(obs, targets [rows, dof], frozen) -> ActionChunk.",
      py::release_gil_before_calling_cpp_dtor())
      .def(py::init<>())
      .def(
          "infer",
          [](Policy& self, const Observation& obs) {
            ActionChunk out;
            const py::gil_scoped_release nogil;
            self.infer(obs, out);
            return out;
          },
          py::arg("obs"), "Returns the ActionChunk for `obs`.")
      .def("dt", &Policy::dt, "Seconds between the rows of a chunk.")
      .def("horizon", &Policy::horizon, "Rows of a chunk.")
      .def("dof", &Policy::dof, "Joints per row.")
      .def("frame_offsets", &Policy::frame_offsets, "Ticks, relative to the observation's, of the frames it wants.")
      .def("epoch", &Policy::epoch, "Epoch of the chunks that count now.");

  using Numbers = std::vector<std::tuple<int, double, double>>;
  py::class_<ChannelPolicy, Policy, py::smart_holder>(
      m, "ChannelPolicy",
      "A policy for a robot whose joints differ from the model's channels in order, unit or zero.\n\n"
      "Args:\n    inner: the policy.\n"
      "    actions: [(joint, scale, offset)] for each channel of its chunks: joint = scale * channel + offset.\n"
      "    states: the same for each entry of the state that it wants.\n\n"
      "Raises:\n    ConfigError: not every joint has one action channel.",
      py::release_gil_before_calling_cpp_dtor())
      .def(py::init([](std::shared_ptr<Policy> inner, const Numbers& actions, const Numbers& states) {
             const auto channels = [](const Numbers& given) {
               std::vector<Channel> out;
               for (const auto& [joint, scale, offset] : given) out.push_back({joint, scale, offset});
               return out;
             };
             return std::make_shared<ChannelPolicy>(std::move(inner), channels(actions), channels(states));
           }),
           py::arg("inner"), py::arg("actions"), py::arg("states"));
}

}  // namespace wam::bindings
