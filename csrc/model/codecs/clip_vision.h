#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/codecs/clip_vision_config.h"
#include "model/codecs/key_spec.h"

namespace wam {

/// Turns a picture into image tokens: every block but the last, no final norm, no projection. Const; runs once a
/// context.
class WAMCORE_API ClipVision {
 public:
  struct Picture {
    const float* rgb = nullptr;  // [height, width, 3] in [-1, 1]
    int64_t height = 0, width = 0;
  };

  /// Throws WeightError.
  ClipVision(ClipConfig config, const WeightSource& source, std::shared_ptr<Backend> backend);

  /// Every tensor of a checkpoint of this tower; those of the last block and the projection are not used.
  static std::vector<KeySpec> keys(const ClipConfig& config);
  const ClipConfig& config() const { return config_; }

  /// Writes [tokens, vision_dim].
  void encode(const Picture& picture, float* out, const Tap* tap = nullptr) const;
  /// The picture as the tower wants it, resized (bicubic, aspect ratio ignored) and normalised: [3, size, size].
  std::vector<float> preprocess(const Picture& picture) const;

 private:
  struct Layer {
    int norm1_w, norm1_b, qkv_w, qkv_b, proj_w, proj_b, norm2_w, norm2_b, up_w, up_b, down_w, down_b;
  };

  ClipConfig config_;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const PackedWeights> weights_;
  std::vector<Layer> layers_;
  int cls_ = 0, position_ = 0, patch_ = 0, pre_w_ = 0, pre_b_ = 0;
};

}  // namespace wam
