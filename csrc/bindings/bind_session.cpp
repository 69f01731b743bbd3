#include <pybind11/stl.h>

#include "arrays.h"
#include "backend/cuda_loader.h"
#include "bind.h"
#include "wamcore/session.h"

namespace wam::bindings {
namespace {

std::shared_ptr<const Model> load(const std::string& dir, const std::string& device, std::optional<int> threads,
                                  bool check_finite, const std::string& dtype, std::vector<int> cores) {
  const py::gil_scoped_release nogil;
  return Model::load(dir, {device, threads, check_finite, dtype, std::move(cores)});
}

py::array copy(const Tensor& t) {
  const std::vector<py::ssize_t> shape(t.shape().begin(), t.shape().end());
  if (t.dtype() == DType::u8) return py::array_t<uint8_t>(shape, t.data<uint8_t>());
  return py::array_t<float>(shape, t.data<float>());
}

std::vector<float> values(const py::object& a) {
  const auto f = a.cast<FloatArray>();
  return {f.data(), f.data() + f.size()};
}

ActionChunk infer(Session& session, const Observation& obs,
                  const std::optional<std::pair<py::object, py::object>>& noise,
                  const std::optional<FloatArray>& latents) {
  Noise given;
  if (noise) given = {values(noise->first), values(noise->second)};
  const float* video = latents ? expect(*latents, session.model().latent_shape(), "Session.infer: latents") : nullptr;
  const py::gil_scoped_release nogil;
  return session.infer(obs, noise ? &given : nullptr, video);
}

py::dict trace(const Session& session) {
  py::dict stages, counts;
  const Trace& t = session.trace();
  for (size_t i = 0; i < kStages; ++i) stages[stage_name(static_cast<Stage>(i))] = t.ns[i];
  for (size_t i = 0; i < kCounters; ++i) counts[counter_name(static_cast<Counter>(i))] = t.counts[i];
  py::dict out;
  out["stages"] = stages;
  out["counts"] = counts;
  return out;
}

std::unique_ptr<Session> make_session(std::shared_ptr<const Model> model, std::optional<int> steps,
                                      std::optional<double> guidance, std::optional<double> shift,
                                      std::optional<std::string> solver, std::optional<std::vector<bool>> step_mask,
                                      std::optional<bool> dynamic_skip, std::optional<bool> decoupled,
                                      std::optional<double> video_final_noise, std::optional<uint64_t> seed,
                                      int imagine, double stop_sigma, std::optional<std::vector<int>> frame_offsets,
                                      bool fixed_noise, std::optional<double> prefix_strength, bool actions_only,
                                      std::optional<bool> fuse_observation, std::optional<bool> trained_prefix) {
  const SampleOptions options{.steps = steps,
                              .guidance = guidance,
                              .shift = shift,
                              .solver = solver,
                              .step_mask = step_mask,
                              .dynamic_skip = dynamic_skip,
                              .decoupled = decoupled,
                              .video_final_noise = video_final_noise,
                              .seed = seed,
                              .imagine = {imagine, stop_sigma},
                              .actions_only = actions_only,
                              .fuse_observation = fuse_observation,
                              .fixed_noise = fixed_noise,
                              .prefix_strength = prefix_strength,
                              .trained_prefix = trained_prefix,
                              .frame_offsets = frame_offsets};
  const py::gil_scoped_release nogil;
  return std::make_unique<Session>(std::move(model), options);
}

void bind_embodiment(py::module_& m) {
  py::class_<Embodiment>(m, "Embodiment", "What robot a checkpoint was trained for.")
      .def_static("read", &Embodiment::read, py::arg("path"),
                  "Reads embodiment.json.\n\nRaises:\n    ConfigError: a field is unknown, missing or contradictory.")
      .def_readonly("name", &Embodiment::name, "Of the robot.")
      .def_readonly("control_hz", &Embodiment::control_hz, "Rows of a chunk a second, Hz.")
      .def_property_readonly(
          "cameras",
          [](const Embodiment& e) {
            std::vector<std::tuple<std::string, int, int>> out;
            for (const CameraSpec& c : e.cameras) out.emplace_back(c.name, c.height, c.width);
            return out;
          },
          "(name, height, width) of each camera, pixels.")
      .def_readonly("composition", &Embodiment::composition, "How the cameras' pictures are put together into one.")
      .def_readonly("frame_offsets", &Embodiment::frame_offsets, "Control ticks of an observation's frames.")
      .def_readonly("prompt_template", &Embodiment::prompt_template, "The sentences around an instruction.")
      .def_property_readonly("state_dim", &Embodiment::state_dim, "Numbers in an observation's state.")
      .def_property_readonly("action_dim", &Embodiment::action_dim, "Numbers in a row of a chunk.")
      .def_property_readonly(
          "joint_names", [](const Embodiment& e) { return e.limits.names; },
          "[dof], in the order of a row; empty when the checkpoint names none.")
      .def_readonly("limits", &Embodiment::limits, "Limits of the joints; empty when the checkpoint names none.");
}

}  // namespace

void bind_session(py::module_& m) {
  m.def(
      "cuda_status",
      [](int gpu) {
        const CudaState state = cuda_state(gpu);
        return std::pair(state.problem.empty(), state.problem.empty() ? state.describe() : state.problem);
      },
      py::arg("gpu") = 0,
      R"(Whether the CUDA backend can be used: True and what GPU it is, or False and the reason in one sentence.

Args:
    gpu: which GPU, counted from 0.)");
  bind_embodiment(m);
  py::class_<Model, std::shared_ptr<Model>>(m, "Model", "Weights and configuration on one device; shared by sessions.")
      .def_static(
          "load",
          [](const std::string& dir, const std::string& device, std::optional<int> threads, bool check_finite,
             const std::string& dtype, std::vector<int> cores) {
            return std::const_pointer_cast<Model>(load(dir, device, threads, check_finite, dtype, std::move(cores)));
          },
          py::arg("dir"), py::arg("device") = "auto", py::arg("threads") = py::none(), py::arg("check_finite") = false,
          py::arg("dtype") = "auto", py::arg("cores") = std::vector<int>{},
          R"(Loads a checkpoint folder: config.json, embodiment.json and safetensors.

Args:
    dir: the folder.
    device: "auto", "cpu" or "cpu-ops" (the plain loop over operations).
    threads: 1 to 1024; None: one for each CPU that the process may use.
    check_finite: refuse NaN and infinity in every tensor before anything else; those of weights always are.
    dtype: of the transformer's large products: "auto", "float32", "bfloat16", "fp8" or "int8".
    cores: of a CPU, that the threads stay on, one a thread; none: wherever the system puts them.
Raises:
    ConfigError, WeightError, DeviceError.)")
      .def_property_readonly("embodiment", &Model::embodiment, py::return_value_policy::reference_internal,
                             "The robot it was trained for.")
      .def_property_readonly("family", &Model::family, "Of models, such as 'dreamzero'.")
      .def_property_readonly("device", &Model::device, "Name of the backend that holds the weights.")
      .def_property_readonly("dtype", &Model::dtype, "What the transformer's large products are computed in.")
      .def_property_readonly("threads", &Model::threads, "CPU threads of a chunk.")
      .def_property_readonly("horizon", &Model::horizon, "Rows of a chunk.")
      .def_property_readonly("parameters", &Model::parameters, "Numbers in the checkpoint.")
      .def_property_readonly(
          "latent_shape", [](const Model& x) { return py::tuple(py::cast(x.latent_shape())); },
          "(channels, frames, height, width) of one imagined block.");
  py::class_<Session, Policy, py::smart_holder>(m, "Session", "One robot's stream: prompt, memory, noise.")
      .def(py::init(&make_session), py::arg("model"), py::kw_only(), py::arg("steps") = py::none(),
           py::arg("guidance") = py::none(), py::arg("shift") = py::none(), py::arg("solver") = py::none(),
           py::arg("step_mask") = py::none(), py::arg("dynamic_skip") = py::none(), py::arg("decoupled") = py::none(),
           py::arg("video_final_noise") = py::none(), py::arg("seed") = py::none(), py::arg("imagine") = -1,
           py::arg("stop_sigma") = 0.0, py::arg("frame_offsets") = py::none(), py::arg("fixed_noise") = false,
           py::arg("prefix_strength") = py::none(), py::arg("actions_only") = false,
           py::arg("fuse_observation") = py::none(), py::arg("trained_prefix") = py::none(),
           R"(Args (None: as the checkpoint says):
    steps: flow steps, 1 to 1000.
    guidance: of the video; 1 runs no unconditional branch.
    shift: of the noise schedule.
    solver: "unipc" or "euler".
    step_mask: which steps run the model; [] for all.
    dynamic_skip: skip steps by the similarity of velocities instead.
    decoupled, video_final_noise: end the video at this noise level.
    seed: of the initial noise; a reset starts its sequence again.
    imagine: leading latent frames that are denoised; -1 all, 0 none.
    stop_sigma: noise level at which the video stops.
    fixed_noise: the same noise for every chunk, as DreamZero's release has it.
    prefix_strength: the most that extend()'s pull weighs; None: 5, or 10 from 10 flow steps on.
    actions_only: nobody asks for the imagined frames: what only they need is not computed; the actions are the same.
    fuse_observation: the observed frames and the first noisy block in one pass; None: where that is likely faster.
    trained_prefix: extend() gives frozen rows clean, where the checkpoint was trained so; False: it pulls.
    frame_offsets: control ticks of an observation's frames, for another stride of replanning.
Raises:
    ConfigError: an option is out of range.)")
      .def("set_prompt", &Session::set_prompt, py::arg("instruction"), py::call_guard<py::gil_scoped_release>(),
           "Sets the instruction; a changed one starts a new context. Raises InputError.")
      .def("set_prompt_tokens", &Session::set_prompt_tokens, py::arg("ids"),
           py::arg("negative") = std::vector<int64_t>{}, py::call_guard<py::gil_scoped_release>(),
           "Sets the prompt by token ids, int64, without padding. Raises InputError.")
      .def("infer", &infer, py::arg("obs"), py::arg("noise") = py::none(), py::arg("latents") = py::none(),
           R"(One chunk of absolute joint targets. Releases the GIL.

Args:
    obs: Observation with every camera of the embodiment and state float64 [state_dim].
    noise: (video float32 [channels, frames, h, w], action float32 [horizon, model's action_dim]), standard normal,
        instead of the session's own.
    latents: observed latents, float32 [channels, frames, h, w] (Model.latent_shape), normalised as the codec gives
        them, instead of encoded pictures.
Returns:
    ActionChunk; q float64 [horizon, dof] in rad (or the embodiment's unit).
Raises:
    InputError, ShapeError: the session is as before.)")
      .def(
          "extend",
          [](Session& s, const Observation& obs, const Doubles& targets, int frozen,
             const std::optional<std::pair<py::object, py::object>>& noise) {
            if (targets.ndim() != 2) throw ShapeError("Session.extend: targets wants [rows, dof]");
            const Continuation plan{.rows = static_cast<int>(targets.shape(0)),
                                    .frozen = frozen,
                                    .q = {targets.data(), targets.data() + targets.size()}};
            Noise given;
            if (noise) given = {values(noise->first), values(noise->second)};
            const py::gil_scoped_release nogil;
            return s.extend(obs, plan, noise ? &given : nullptr);
          },
          py::arg("obs"), py::arg("targets"), py::arg("frozen"), py::arg("noise") = py::none(),
          R"(As infer(), with the actions guided toward a plan while they are sampled.

Args:
    obs: Observation.
    targets: the plan's absolute joint targets from the observation's tick on, float64 [rows, dof].
    frozen: leading rows that will have been executed when the chunk is there.
    noise: as for infer().
Returns:
    ActionChunk.
Raises:
    InputError, ShapeError: the session is as before.)")
      .def(
          "continuity", [](const Session& s) { return s.continuity() == Continuity::trained ? "trained" : "guided"; },
          "How extend() continues a plan: 'guided', or 'trained' if the checkpoint was trained with a clean prefix.")
      .def("reset", &Session::reset, "Forgets all frames; chunks made before are void.")
      .def(
          "predicted_latents", [](const Session& s) { return copy(s.predicted_latents()); },
          "Latents of the last chunk, float32 [channels, frames, h, w]; see observed_frames.")
      .def_property_readonly("observed_frames", &Session::observed_frames,
                             "Leading frames of predicted_latents() that were seen, not imagined.")
      .def(
          "decode",
          [](Session& s) {
            Tensor pictures;
            {
              const py::gil_scoped_release nogil;
              pictures = s.decode();
            }
            return copy(pictures);
          },
          "The imagined frames as pictures, uint8 [frames, height, width, 3].")
      .def_property_readonly(
          "trace", &trace,
          "Stage times, ns, and counts of the last chunk; those of the text since the session was made.")
      .def_property_readonly(
          "operations",
          [](const Session& s) {
            py::list out;
            for (const OperationReport& o : s.operations())
              out.append(py::dict(py::arg("operation") = o.operation, py::arg("kernel") = o.kernel,
                                  py::arg("precision") = o.precision, py::arg("runs") = o.runs));
            return out;
          },
          "What has computed so far: operation, kernel (on a CPU: the instruction set), precision and runs of each.")
      .def("time_operations", &Session::time_operations, py::arg("on"),
           "Times operations of the model from here on, from nothing, for all its sessions, or no longer. DeviceError.")
      .def_property_readonly(
          "operation_times",
          [](const Session& s) {
            py::list out;
            for (const OperationTime& o : s.operation_times())
              out.append(py::dict(py::arg("step") = o.step, py::arg("operation") = o.operation,
                                  py::arg("precision") = o.precision, py::arg("calls") = o.calls, py::arg("ns") = o.ns,
                                  py::arg("flop") = o.flop, py::arg("bytes") = o.bytes));
            return out;
          },
          "Since time_operations: calls, wall time, ns, arithmetic and bytes of each operation in each step.")
      .def_property_readonly("context_start", &Session::context_start, "Latent frame at which the next chunk starts.")
      .def_property_readonly("steps_run", &Session::steps_run, "Steps of the last chunk that ran the model.")
      .def(
          "memory", [](const Session& s, int layer, int branch) { return copy(s.memory(layer, branch)); },
          py::arg("layer"), py::arg("branch") = 0, "K and V of a layer's memory, float32 [2, rows, dim].");
}

}  // namespace wam::bindings
