#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/codecs/key_spec.h"
#include "model/codecs/vae_config.h"
#include "model/codecs/vae_layers.h"

namespace wam {

class Vae;
struct VaeTrunk;

/// What the codec remembers of one video between calls, encoding and decoding apart, and its working memory.
class WAMCORE_API VaeStream {
 public:
  explicit VaeStream(const Vae& vae);
  ~VaeStream();
  VaeStream(const VaeStream&) = delete;
  VaeStream& operator=(const VaeStream&) = delete;

  void reset() { reset_encoder(), reset_decoder(); }  // the next frame starts a video
  void reset_encoder();
  void reset_decoder();
  int64_t encoded() const { return encoder_.groups; }  // latent frames since the reset
  int64_t decoded() const { return decoder_.groups; }
  int64_t bytes() const { return pool_.bytes(); }

 private:
  friend class Vae;
  struct Side {
    std::vector<Frames> past;       // by slot
    int64_t groups = 0;             // seen since the reset
    int64_t height = 0, width = 0;  // of what came in
  };
  FramePool pool_;  // outlives the frames below
  Side encoder_, decoder_;
};

/// Called with each layer's output: name, frames. Slows a pass down; for tests.
using VaeTap = std::function<void(const std::string& name, const Frames& value)>;

/// Turns pixel frames into normalised latents and back, causally in time: the first frame of a video makes one latent
/// frame, then every `temporal_stride()` frames make one. Const; all that changes is in the stream.
class WAMCORE_API Vae {
 public:
  /// `source` may lack the decoder's weights when `with_decoder` is false. Throws WeightError, ConfigError.
  Vae(VaeConfig config, const WeightSource& source, std::shared_ptr<Backend> backend, bool with_decoder = true);
  ~Vae();

  /// Every tensor of a checkpoint of this codec.
  static std::vector<KeySpec> keys(const VaeConfig& config);
  /// True for the tensors that only decode() reads.
  static bool is_decoder_key(const std::string& name);

  const VaeConfig& config() const { return config_; }
  int64_t temporal_stride() const { return config_.temporal_stride(); }
  int64_t spatial_stride() const { return config_.spatial_stride(); }
  bool has_decoder() const { return decoder_ != nullptr; }

  /// Whether each frame makes one latent frame that no other frame changes: the encoder halves no frame rate, and every
  /// weight that would meet an earlier frame is zero. Then frames whose latents nobody wants need not be encoded.
  bool encodes_frames_alone() const { return frames_alone_; }
  /// Latent frames that encode() would make of `frames` more pixel frames; what fills no group is dropped.
  int64_t latent_frames(int64_t frames, const VaeStream& stream) const;
  /// Pixel frames that decode() would make of `latents` more latent frames.
  int64_t pixel_frames(int64_t latents, const VaeStream& stream) const;

  struct Video {
    const float* data = nullptr;  // [frames, height, width, 3] in [-1, 1]
    int64_t frames = 0, height = 0, width = 0;
  };
  struct Latents {
    const float* data = nullptr;  // [z_dim, frames, height, width], normalised
    int64_t frames = 0, height = 0, width = 0;
  };
  /// Writes [z_dim, latent_frames(), height / stride, width / stride]. Throws ShapeError.
  void encode(const Video& video, float* latents, VaeStream& stream, const VaeTap& tap = nullptr) const;
  /// Writes [pixel_frames(), height * stride, width * stride, 3], clamped to [-1, 1] on request. Throws ShapeError, and
  /// WeightError when the decoder was not loaded.
  void decode(const Latents& latents, float* video, VaeStream& stream, bool clamp = true,
              const VaeTap& tap = nullptr) const;

 private:
  friend class VaeStream;
  int group_size(int64_t groups, int64_t left, bool one_by_one) const;
  Frames pixels_in(const Video& video, int64_t first, int count, VaeStream& stream) const;
  void latent_out(const Frame& x, int64_t at, int64_t frames, float* latents) const;
  Frames latent_in(const Latents& latents, int64_t at, VaeStream& stream) const;
  void pixels_out(const Frames& x, float* video, bool clamp) const;

  VaeConfig config_;
  std::shared_ptr<Backend> backend_;
  std::unique_ptr<const VaeTrunk> encoder_, decoder_;  // no decoder: it was not loaded
  std::shared_ptr<const PackedWeights> weights_;
  int encoder_slots_ = 0, decoder_slots_ = 0;
  bool frames_alone_ = false;
  std::vector<float> to_latent_scale_, to_latent_shift_;  // (mu - mean) / std as scale and shift
};

}  // namespace wam
