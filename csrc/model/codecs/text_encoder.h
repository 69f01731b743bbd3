#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "model/codecs/key_spec.h"
#include "model/codecs/text_encoder_config.h"

namespace wam {

/// Bucket of a relative distance key - query, as in T5: small distances exactly, larger ones by their logarithm.
WAMCORE_API int64_t relative_bucket(int64_t distance, int64_t buckets);

/// Turns token ids into context rows. Const; runs once a prompt.
class WAMCORE_API TextEncoder {
 public:
  /// Throws WeightError.
  TextEncoder(TextEncoderConfig config, const WeightSource& source, std::shared_ptr<Backend> backend);

  /// Every tensor of a checkpoint of this encoder.
  static std::vector<KeySpec> keys(const TextEncoderConfig& config);
  const TextEncoderConfig& config() const { return config_; }

  /// ids without padding, at most `text_len`; writes [text_len, dim], zeros past the last token. Padding can be left
  /// out because masked keys do not count and rows past the prompt are zeroed. Throws InputError.
  void encode(const std::vector<int64_t>& ids, int64_t text_len, float* out, const Tap* tap = nullptr) const;

 private:
  struct Layer {
    int norm1, q, k, v, o, norm2, gate, fc1, fc2, bias;
  };
  void position_bias(const Layer& layer, int64_t n, float* bias) const;

  TextEncoderConfig config_;
  std::shared_ptr<Backend> backend_;
  std::shared_ptr<const PackedWeights> weights_;
  std::vector<Layer> layers_;
  int embedding_ = 0, norm_ = 0;
};

}  // namespace wam
