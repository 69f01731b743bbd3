#pragma once

// Whole passes of random DreamZero models on one backend and another: a context that turns its ring, a denoise pass.
// For the checks of a GPU and for the tests on the simulated one.
#include <cmath>
#include <cstring>
#include <random>

#include "backend/backend.h"
#include "flow/denoiser.h"

namespace small_models {

using namespace wam;

/// Weights that depend on the name alone, and are exact in bf16, so that both sides have the same.
inline Tensor weight(const std::string& name, const Shape& shape) {
  std::mt19937 mine(static_cast<uint32_t>(std::hash<std::string>{}(name)));
  const bool norm = name.find("norm") != std::string::npos && name.find("weight") != std::string::npos;
  const double fan = shape.size() > 1 ? double(numel(shape)) / double(shape[0]) : 16.0;
  std::normal_distribution<float> d(norm ? 1.0f : 0.0f, norm ? 0.2f : float(1.0 / std::sqrt(fan)));
  Tensor t(shape);
  for (int64_t i = 0; i < t.numel(); ++i) {
    uint32_t bits;
    const float value = d(mine);
    std::memcpy(&bits, &value, sizeof(bits));
    bits &= 0xffff0000u;
    std::memcpy(t.data<float>() + i, &bits, sizeof(bits));
  }
  return t;
}

struct Size {
  bool clip = false;
  int64_t heads = 2, head_dim = 64, layers = 2;
  int64_t height = 4, width = 6;  // of the latents
};

inline DitConfig config(const Size& s) {
  DitConfig c;
  c.model_type = s.clip ? "i2v" : "ti2v";
  c.num_heads = s.heads, c.dim = s.heads * s.head_dim;
  c.ffn_dim = 2 * c.dim, c.freq_dim = 16, c.num_layers = s.layers;
  c.frame_seqlen = s.height * s.width / 4, c.text_len = 7, c.text_dim = 12;
  c.out_dim = 4, c.in_dim = s.clip ? 12 : 4, c.concat_first_frame_latent = s.clip;
  c.max_chunk_size = 2, c.num_frame_per_block = 2, c.num_action_per_block = 5, c.num_state_per_block = 1;
  c.action_dim = 3, c.max_state_dim = 6, c.hidden_size = 24, c.local_attn_size = 5;
  if (s.clip) c.clip_dim = 10, c.clip_tokens = 9;
  return c;
}

/// What goes in, fresh each time.
struct Inputs {
  Inputs(const DitConfig& c, const Size& s, unsigned seed) : random(seed) {
    const int64_t block = 2 * s.height * s.width;
    text = normal(c.text_len * c.text_dim), image = normal(c.clip_tokens * c.clip_dim);
    for (auto& f : frames) f = normal(c.out_dim * block);
    y = normal(c.cond_channels() * block + 1), noise = normal(c.out_dim * block);
    action = normal(c.num_action_per_block * c.action_dim), state = normal(c.max_state_dim);
  }
  std::vector<float> normal(int64_t n) {
    std::normal_distribution<float> d;
    std::vector<float> v(static_cast<size_t>(n));
    for (float& x : v) x = d(random);
    return v;
  }
  std::mt19937 random;
  std::vector<float> text, image, frames[3], y, noise, action, state, t = {400, 300, 900};
};

struct Result {
  std::vector<float> video, action, keys, values;
};

/// A context of five frames, one more than the window keeps beside a block: the ring turns. `times` denoise passes, of
/// which the last counts: the second comes out of the recording.
inline Result run(std::shared_ptr<Backend> backend, const DitConfig& c, const Size& s, const Inputs& in, int times = 1,
                  Precision precision = Precision::automatic) {
  auto model = std::make_shared<DreamZero>(c, DreamZero::Grid2{s.height, s.width}, "");
  model->load(std::move(backend), weight, precision);
  Denoiser d(model, 1);
  d.set_text(0, in.text.data());
  if (c.has_clip()) d.set_image(in.image.data());
  d.prefill(0, 1, 0, in.frames[0].data(), in.y.data());
  d.prefill(0, 2, 1, in.frames[1].data(), in.y.data());
  d.prefill(0, 2, 3, in.frames[2].data(), in.y.data());
  Result r;
  r.video.resize(in.noise.size()), r.action.resize(in.action.size());
  for (int i = 0; i < times; ++i)
    d.denoise(0, 2, 5,
              {.x = in.noise.data(),
               .y = in.y.data(),
               .timesteps = in.t.data(),
               .action = in.action.data(),
               .state = in.state.data(),
               .velocity = r.video.data(),
               .action_velocity = r.action.data()});
  d.memory(0).copy(c.num_layers - 1, r.keys, r.values);
  return r;
}

/// ||a - b|| / ||b||
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double diff = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) diff += std::pow(double(a[i]) - b[i], 2), size += std::pow(double(b[i]), 2);
  return std::sqrt(diff / size);
}

}  // namespace small_models
