// The transformer alone, for whoever compares it with PyTorch: components.Dit.
#include <pybind11/stl.h>

#include <map>

#include "arrays.h"
#include "bind.h"
#include "flow/denoiser.h"
#include "io/json.h"
#include "io/weight_store.h"
#include "session/synthetic_weights.h"

namespace wam::bindings {
namespace {

using Taps = std::map<std::string, py::array_t<float>>;

struct Dit {
  std::shared_ptr<DreamZero> model;
  std::unique_ptr<Denoiser> denoiser;
  bool tapping = false;
  Taps taps;
  Tap tap;

  Dit(const std::string& config, const std::string& weights, std::pair<int64_t, int64_t> grid,
      const std::string& device, std::optional<int> threads, const std::string& dtype) {
    const json::Value document = json::parse(config, "config");
    model = std::make_shared<DreamZero>(read_dit_config({document, "config"}),
                                        DreamZero::Grid2{grid.first, grid.second}, "");
    WeightStore store = WeightStore::open(weights);
    model->load(
        make_backend(device, threads),
        [&](const std::string& name, const Shape& shape) { return store.f32(name, shape); }, precision_of(dtype));
    store.check_all_used();
    denoiser = std::make_unique<Denoiser>(model, 1);
    tap = [this](const std::string& label, const float* data, int64_t rows, int64_t cols, int64_t stride) {
      py::array_t<float> copy = empty({rows, cols});
      for (int64_t r = 0; r < rows; ++r) std::copy_n(data + r * stride, cols, copy.mutable_data(r, 0));
      taps[label] = copy;
    };
  }

  void begin_taps(bool on) {
    taps.clear();
    denoiser->set_tap(on ? &tap : nullptr);
  }
  Shape latents(int64_t channels, int frames) const {
    return {channels, frames, model->grid().height, model->grid().width};
  }
  const float* condition(const std::optional<FloatArray>& y, int frames) const {
    const int64_t channels = model->config().cond_channels();
    if (!channels) return nullptr;
    if (!y) throw InputError("Dit: this model wants conditioning latents y");
    return expect(*y, latents(channels, frames), "Dit: y");
  }

  void set_context(const FloatArray& text, const std::optional<FloatArray>& image) {
    const DitConfig& c = model->config();
    denoiser->set_text(0, expect(text, {c.text_len, c.text_dim}, "Dit.set_context: text"));
    if (c.has_clip()) {
      if (!image) throw InputError("Dit.set_context: this model wants image tokens");
      denoiser->set_image(expect(*image, {c.clip_tokens, c.clip_dim}, "Dit.set_context: image"));
    }
  }

  py::array_t<float> prefill(const FloatArray& x, int start, const std::optional<FloatArray>& y, bool with_taps) {
    const DitConfig& c = model->config();
    const int frames = x.ndim() == 4 ? static_cast<int>(x.shape(1)) : 0;
    expect(x, latents(c.out_dim, frames), "Dit.prefill: x");
    py::array_t<float> velocity = empty(latents(c.out_dim, frames));
    begin_taps(with_taps);
    denoiser->prefill(0, frames, start, x.data(), condition(y, frames), velocity.mutable_data());
    return velocity;
  }

  py::tuple denoise(const FloatArray& x, const FloatArray& t, int start, const FloatArray& action,
                    const FloatArray& state, const std::optional<FloatArray>& y, bool with_taps) {
    const DitConfig& c = model->config();
    const int frames = x.ndim() == 4 ? static_cast<int>(x.shape(1)) : 0;
    py::array_t<float> velocity = empty(latents(c.out_dim, frames));
    py::array_t<float> action_velocity = empty({c.num_action_per_block, c.action_dim});
    begin_taps(with_taps);
    denoiser->denoise(0, frames, start,
                      {.x = expect(x, latents(c.out_dim, frames), "Dit.denoise: x"),
                       .y = condition(y, frames),
                       .timesteps = expect(t, {frames + 1}, "Dit.denoise: t"),
                       .action = expect(action, {c.num_action_per_block, c.action_dim}, "Dit.denoise: action"),
                       .state = expect(state, {c.num_state_per_block, c.max_state_dim}, "Dit.denoise: state"),
                       .velocity = velocity.mutable_data(),
                       .action_velocity = action_velocity.mutable_data()});
    return py::make_tuple(velocity, action_velocity);
  }

  py::tuple memory(int64_t layer) const {
    std::vector<float> k, v;
    denoiser->memory(0).copy(layer, k, v);
    const int64_t inner = model->config().dim, rows = static_cast<int64_t>(k.size()) / inner;
    py::array_t<float> ka = empty({rows, inner}), va = empty({rows, inner});
    std::copy(k.begin(), k.end(), ka.mutable_data());
    std::copy(v.begin(), v.end(), va.mutable_data());
    return py::make_tuple(ka, va);
  }

  // Runs any plan of the model with its external buffers given by name; returns the outputs asked for.
  std::map<std::string, py::array_t<float>> run(Plan plan, const std::map<std::string, FloatArray>& inputs,
                                                const std::vector<std::string>& outputs, const MemoryView* view) {
    std::vector<float*> external(plan.buffers.size(), nullptr);
    std::map<std::string, py::array_t<float>> held, out;
    for (size_t i = 0; i < plan.buffers.size(); ++i) {
      const BufferSpec& spec = plan.buffers[i];
      if (!spec.external) continue;
      py::array_t<float> data = empty({spec.rows, spec.cols});
      if (const auto it = inputs.find(spec.name); it != inputs.end()) {
        if (it->second.size() != data.size())
          throw ShapeError("Dit: " + spec.name + " wants " + std::to_string(data.size()) + " values, got " +
                           std::to_string(it->second.size()));
        std::copy_n(it->second.data(), data.size(), data.mutable_data());
      }
      external[i] = data.mutable_data();
      held[spec.name] = data;
    }
    const std::unique_ptr<Program> program = model->compile(std::move(plan));
    const std::shared_ptr<float> workspace = model->backend().allocate_workspace(program->workspace_floats() + 16);
    const ContextView context = denoiser->context(0);
    program->run(
        {.external = external, .memory = view, .context = &context, .workspace = workspace.get(), .tap = &tap});
    for (const std::string& name : outputs) out[name] = held.at(name);
    return out;
  }

  std::map<std::string, py::array_t<float>> training(int blocks, const std::map<std::string, FloatArray>& inputs,
                                                     const std::vector<std::string>& outputs) {
    taps.clear();
    return run(model->planner().forward(model->training_layout(blocks)), inputs, outputs, nullptr);
  }

  // Context rows as the block sees them, past the embeddings.
  void set_embedded_context(int group, const FloatArray& rows) {
    const ContextSpec& c = model->planner().contexts().at(static_cast<size_t>(group));
    expect(rows, {c.rows, model->config().dim}, "Dit.set_embedded_context: rows");
    run(model->planner().embedded_context(group), {{"rows", rows}}, {}, nullptr);
  }

  // One layer with every token's time row e0 [tokens, 6 dim] and rotation cos, sin [tokens, head_dim / 2] given.
  py::array_t<float> block(int layer, bool registers, const FloatArray& x, const FloatArray& e0,
                           const std::pair<FloatArray, FloatArray>& rope,
                           const std::pair<FloatArray, FloatArray>& past) {
    const DitConfig& c = model->config();
    const int64_t extra = registers ? c.num_action_per_block + c.num_state_per_block : 0;
    const int frames = static_cast<int>((x.shape(0) - extra) / c.frame_seqlen);
    const int before = static_cast<int>(past.first.shape(0) / c.frame_seqlen);
    Memory& memory = denoiser->memory(0);
    memory.clear();
    if (before) {
      const MemoryView slots = memory.store(0, before, Origin::observed);
      const RowRange rows{0, past.first.shape(0)};
      Backend& backend = model->backend();
      backend.write_keys(slots.k[static_cast<size_t>(layer)], rows, c.num_heads, c.head_dim(), past.first.data());
      backend.write_keys(slots.v[static_cast<size_t>(layer)], rows, c.num_heads, c.head_dim(), past.second.data());
    }
    Layout layout = model->layout(registers ? DreamZero::Pass::denoise : DreamZero::Pass::prefill_head, frames, before);
    layout.time_rows = layout.tokens();
    for (size_t i = 0; i < layout.segments.size(); ++i)
      for (size_t token = 0; token < layout.segments[i].time_row.size(); ++token)
        layout.segments[i].time_row[token] = static_cast<int32_t>(layout.begin(i) + static_cast<int64_t>(token));
    Plan plan = model->planner().block(layout, layer);
    plan.ropes[0].cos.assign(rope.first.data(), rope.first.data() + rope.first.size());
    plan.ropes[0].sin.assign(rope.second.data(), rope.second.data() + rope.second.size());
    taps.clear();
    const MemoryView view = registers ? memory.read(static_cast<int>(c.local_attn_size) - frames)
                                      : memory.store(before, frames, Origin::observed);
    return run(std::move(plan), {{"hidden0", x}, {"e0_0", e0}}, {"hidden0"}, &view).at("hidden0");
  }
};

// (name, shape) of every tensor that a checkpoint of this configuration must hold.
std::vector<std::pair<std::string, Shape>> dit_keys(const std::string& config, std::pair<int64_t, int64_t> grid) {
  const json::Value document = json::parse(config, "config");
  const DreamZero model(read_dit_config({document, "config"}), {grid.first, grid.second}, "");
  std::vector<std::pair<std::string, Shape>> out;
  for (const WeightSpec& w : model.weights().specs()) out.emplace_back(w.name, w.shape);
  return out;
}

std::shared_ptr<Model> make_synthetic(const std::string& dir, const std::string& device, std::optional<int> threads,
                                      const std::string& dtype, uint64_t seed) {
  const py::gil_scoped_release nogil;
  const LoadOptions options{.device = device, .threads = threads, .dtype = dtype};
  return std::const_pointer_cast<Model>(synthetic_model(dir, options, seed));
}

}  // namespace

void bind_dit(py::module_& m) {
  m.def("synthetic_model", &make_synthetic, py::arg("dir"), py::arg("device") = "cpu", py::arg("threads") = py::none(),
        py::arg("dtype") = "auto", py::arg("seed") = 0,
        "A Model of a folder with config.json and embodiment.json, its weights random: what it costs is real, what it "
        "says is not. Raises ConfigError, DeviceError.");
  py::class_<Dit>(m, "Dit", R"(The diffusion transformer of a DreamZero checkpoint by itself, batch 1, float32.

Args:
    config: JSON text of `diffusion_model_cfg`.
    weights: safetensors file with the upstream state-dict names, no prefix.
    grid: latent (height, width).
    device: "cpu" or "cpu-ops".
    threads: None: one for each CPU that the process may use.
    dtype: of the large products, as Model.load takes it.
Raises:
    ConfigError, WeightError: configuration and weights do not fit.)")
      .def(py::init<const std::string&, const std::string&, std::pair<int64_t, int64_t>, const std::string&,
                    std::optional<int>, const std::string&>(),
           py::arg("config"), py::arg("weights"), py::arg("grid"), py::arg("device") = "cpu",
           py::arg("threads") = py::none(), py::arg("dtype") = "auto")
      .def("set_context", &Dit::set_context, py::arg("text"), py::arg("image") = py::none(),
           "Caches K/V of the text rows [text_len, text_dim] and image tokens [clip_tokens, clip_dim].")
      .def("prefill", &Dit::prefill, py::arg("x"), py::arg("start"), py::arg("y") = py::none(), py::arg("taps") = false,
           "Puts clean latents x [C, frames, h, w] into memory; gives the velocity the head predicts for them.")
      .def("denoise", &Dit::denoise, py::arg("x"), py::arg("t"), py::arg("start"), py::arg("action"), py::arg("state"),
           py::arg("y") = py::none(), py::arg("taps") = false,
           "Velocities of noisy latents x [C, frames, h, w] and action [A, dim]; t [frames + 1], the action's last.")
      .def("training", &Dit::training, py::arg("blocks"), py::arg("inputs"), py::arg("outputs"),
           "The teacher-forcing pass; inputs and outputs by buffer name.")
      .def("set_embedded_context", &Dit::set_embedded_context, py::arg("group"), py::arg("rows"),
           "Caches K/V of rows [rows, dim] past the embeddings; group 0 is text, 1 image.")
      .def("block", &Dit::block, py::arg("layer"), py::arg("registers"), py::arg("x"), py::arg("e0"), py::arg("rope"),
           py::arg("past"), "One layer on given rows, e0 [tokens, 6 dim], rope (cos, sin) and past (keys, values).")
      .def_static("keys", &dit_keys, py::arg("config"), py::arg("grid"),
                  "(name, shape) of every tensor of a checkpoint.")
      .def("memory", &Dit::memory, py::arg("layer"), "Keys and values of a layer in order, [rows, dim] each.")
      .def(
          "clear", [](Dit& d) { d.denoiser->clear_memory(); }, "Forgets all frames.")
      .def_property_readonly(
          "taps", [](const Dit& d) { return d.taps; }, "Intermediate values of the last tapped run.");
}

}  // namespace wam::bindings
