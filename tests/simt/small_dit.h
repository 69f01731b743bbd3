#pragma once

// A small DreamZero transformer of fresh numbers, for tests that run it on the simulated device and on the CPU.
#include "launcher.h"
#include "model/families/dreamzero.h"

namespace sim {

using namespace wam;

/// Weights that depend on the name alone, and are exact in bf16, so that both sides have the same.
inline Tensor weight(const std::string& name, const Shape& shape) {
  std::mt19937 mine(static_cast<uint32_t>(std::hash<std::string>{}(name)));
  const bool norm = name.find("norm") != std::string::npos && name.find("weight") != std::string::npos;
  const double fan = shape.size() > 1 ? double(numel(shape)) / double(shape[0]) : 16.0;
  std::normal_distribution<float> d(norm ? 1.0f : 0.0f, norm ? 0.2f : float(1.0 / std::sqrt(fan)));
  Tensor t(shape);
  for (int64_t i = 0; i < t.numel(); ++i) t.data<float>()[i] = sim::to_float(sim::to_bf16(d(mine)));
  return t;
}

inline DitConfig small_config(bool clip, int64_t heads, int64_t head_dim) {
  DitConfig c;
  c.model_type = clip ? "i2v" : "ti2v";
  c.num_heads = heads, c.dim = heads * head_dim;
  c.ffn_dim = 2 * c.dim, c.freq_dim = 16, c.num_layers = 2;
  c.frame_seqlen = 6, c.text_len = 7, c.text_dim = 12;
  c.out_dim = 4, c.in_dim = clip ? 12 : 4, c.concat_first_frame_latent = clip;
  c.max_chunk_size = 2, c.num_frame_per_block = 2, c.num_action_per_block = 5, c.num_state_per_block = 1;
  c.action_dim = 3, c.max_state_dim = 6, c.hidden_size = 24, c.local_attn_size = 5;
  if (clip) c.clip_dim = 10, c.clip_tokens = 9;
  return c;
}

struct Inputs {
  explicit Inputs(const DitConfig& c) {
    text = sim::normal(c.text_len * c.text_dim), image = sim::normal(c.clip_tokens * c.clip_dim);
    for (auto& f : frames) f = sim::normal(c.out_dim * 48);
    y = sim::normal(c.cond_channels() * 48 + 1), noise = sim::normal(c.out_dim * 48);
    action = sim::normal(c.num_action_per_block * c.action_dim), state = sim::normal(c.max_state_dim);
  }
  std::vector<float> text, image, frames[3], y, noise, action, state, t = {400, 300, 900};
};

/// Relative l2.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double diff = 0, size = 0;
  for (size_t i = 0; i < a.size(); ++i) diff += std::pow(double(a[i]) - b[i], 2), size += std::pow(double(b[i]), 2);
  return std::sqrt(diff / size);
}

}  // namespace sim
