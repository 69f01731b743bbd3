#pragma once

#include <vector>

#include "core/trace.h"
#include "flow/denoiser.h"
#include "session/dreamzero_model.h"

namespace wam {

/// Which observed frames the transformer remembers, and what conditions the next block: the closed loop of DreamZero. A
/// context starts with one frame; every later observation overwrites the block predicted before it, so nothing imagined
/// is ever remembered. When the window is full, the newest frame starts the next context.
class Context {
 public:
  Context(std::shared_ptr<const DreamZeroModel> model, Denoiser& denoiser);

  /// Pixel frames that a later observation of `frames` frames is stretched to. Throws InputError when it cannot be.
  int stretched(int frames) const;
  /// Frames that an observation which continues the context may have at most.
  int most_frames() const { return (block_ + 1) * static_cast<int>(model_->vae->temporal_stride()); }
  /// True when an observation of that many frames starts a new context.
  bool restarts(int frames) const { return fresh_ || frames == 1 || start_ >= window_; }

  // Both of these leave what is to be remembered in observed(); the sampler puts it into memory.
  /// A new context from one of the observed frames: video [frames, height, width, 3] in [-1, 1].
  void restart(const float* video, int frames, Tracer& trace);
  /// The observed block. `latents` [channels, block frames, h, w] replace the codec's when not nullptr.
  void observe(const float* video, int frames, const float* latents, Tracer& trace);
  /// The predicted block is done: the next one starts after it.
  void advance() { start_ += block_; }
  void forget() { fresh_ = true; }

  int start() const { return start_; }
  /// Conditioning latents of the block at start(), or nullptr.
  const float* condition() { return condition(start_, block_, condition_slice_); }
  const ObservedFrames& observed() const { return observed_; }
  /// Latents of the frame that started the context: [channels, 1, h, w].
  const Tensor& first_latent() const { return first_; }

 private:
  const float* condition(int start, int frames, Tensor& slice);
  const float* encode(const float* video, int frames, int last, Tensor& out, Tracer& trace);
  void remember(int frames, int start, const float* latents);

  std::shared_ptr<const DreamZeroModel> model_;
  Denoiser& denoiser_;
  int block_, window_, condition_frames_;
  int64_t frame_pixels_, latent_area_;
  int start_ = 0;
  bool fresh_ = true;
  VaeStream stream_;
  std::vector<float> pixels_, encoded_;
  Tensor first_, block_latents_, conditions_, condition_slice_, observed_slice_, image_tokens_;
  ObservedFrames observed_;
};

}  // namespace wam
