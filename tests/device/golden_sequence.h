#pragma once

// A recorded sequence of the release: the recorded tensors, the weights and their configuration, through any backend.
#include <cmath>
#include <cstdio>

#include "backend/backend.h"
#include "flow/denoiser.h"
#include "io/json.h"
#include "io/weight_store.h"
#include "wamcore/error.h"

namespace golden_sequence {

using namespace wam;

inline void compare(const std::string& name, const std::vector<float>& got, const Tensor& want) {
  double diff = 0, size = 0;
  if (static_cast<int64_t>(got.size()) != want.numel()) throw ShapeError("simt_golden: " + name + " has another size");
  for (size_t i = 0; i < got.size(); ++i) {
    diff += std::pow(double(got[i]) - want.data<float>()[i], 2);
    size += std::pow(double(want.data<float>()[i]), 2);
  }
  std::printf("%s %.6f\n", name.c_str(), std::sqrt(diff / size));
  std::fflush(stdout);
}

// The recorded tensors by name, as float32; an empty one for a name that is not recorded.
struct Recorded {
  explicit Recorded(const std::string& path) : store(WeightStore::open(path)) {}
  Tensor get(const std::string& name) {
    return store.contains(name) ? store.f32(name, store.entry(name).shape) : Tensor();
  }
  WeightStore store;
};

/// `backend` gets the model; `text` is {"dit": {...}, "timesteps": [[video, action], ...]}. Prints one line a compared
/// tensor: name, relative l2 error.
inline void run_sequence(std::shared_ptr<Backend> backend, const std::string& file, const std::string& weights,
                         const std::string& text) {
  const json::Value document = json::parse(text, "config");
  json::Fields fields = json::Node(document, "config").fields();
  const DitConfig c = read_dit_config(fields.need("dit"));
  const std::vector<json::Node> timesteps = fields.need("timesteps").array();
  Recorded golden(file);
  const Shape grid = golden.store.entry("prefill0.x").shape;  // [1, channels, frames, height, width]
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{grid[3], grid[4]}, "");
  WeightStore store = WeightStore::open(weights);
  model->load(std::move(backend), [&](const std::string& name, const Shape& shape) { return store.f32(name, shape); });
  Denoiser d(model, 1);
  d.set_text(0, golden.get("context_text_emb").data<float>());
  if (c.has_clip()) d.set_image(golden.get("clip_feature").data<float>());
  const int chunks = static_cast<int>(timesteps.size());
  for (int chunk = 0; chunk <= chunks; ++chunk) {
    std::string name = "prefill" + std::to_string(chunk);
    Tensor x = golden.get(name + ".x"), y = golden.get(name + ".y");
    std::vector<float> velocity(static_cast<size_t>(golden.get(name + ".video_pred").numel()));
    d.prefill(0, static_cast<int>(x.dim(2)), std::max(2 * chunk - 1, 0), x.data<float>(), y ? y.data<float>() : nullptr,
              velocity.data());
    compare(name, velocity, golden.get(name + ".video_pred"));
    for (int64_t layer = 0; layer < c.num_layers; ++layer) {
      const std::string cache = name + ".kv_after.layer" + std::to_string(layer);
      if (!golden.store.contains(cache)) continue;
      std::vector<float> keys, values;
      d.memory(0).copy(layer, keys, values);
      keys.insert(keys.end(), values.begin(), values.end());
      compare(cache, keys, golden.get(cache));
    }
    if (chunk == chunks) break;
    name = "denoise" + std::to_string(chunk);
    x = golden.get(name + ".x"), y = golden.get(name + ".y");
    const Tensor action = golden.get(name + ".action"), state = golden.get(name + ".state");
    const std::vector<double> t = timesteps[static_cast<size_t>(chunk)].numbers(2);
    std::vector<float> each(static_cast<size_t>(x.dim(2)), static_cast<float>(t[0]));
    each.push_back(static_cast<float>(t[1]));
    velocity.resize(static_cast<size_t>(golden.get(name + ".video_pred").numel()));
    std::vector<float> action_velocity(static_cast<size_t>(action.numel()));
    d.denoise(0, static_cast<int>(x.dim(2)), 2 * chunk + 1,
              {.x = x.data<float>(),
               .y = y ? y.data<float>() : nullptr,
               .timesteps = each.data(),
               .action = action.data<float>(),
               .state = state.data<float>(),
               .velocity = velocity.data(),
               .action_velocity = action_velocity.data()});
    compare(name + ".video", velocity, golden.get(name + ".video_pred"));
    compare(name + ".action", action_velocity, golden.get(name + ".action_pred"));
  }
}

}  // namespace golden_sequence
