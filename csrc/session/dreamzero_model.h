#pragma once

#include <memory>

#include "model/codecs/clip_vision.h"
#include "model/codecs/text_encoder.h"
#include "model/codecs/vae.h"
#include "model/families/dreamzero.h"
#include "session/synthetic_weights.h"
#include "session/tokenizer.h"
#include "wamcore/model.h"

namespace wam {

/// A DreamZero checkpoint, loaded.
struct DreamZeroModel final : public Model {
  /// Of a folder with configuration and weights; with `synthetic` of the configuration alone. On `backend`, or on the
  /// one that `options` name: sessions on a device of one's own come from here.
  DreamZeroModel(const std::string& dir, const LoadOptions& options, const SyntheticWeights* synthetic = nullptr,
                 std::shared_ptr<Backend> backend = nullptr);

  const Embodiment& embodiment() const override { return embodiment_; }
  std::string family() const override { return "dreamzero"; }
  std::string device() const override { return std::string(backend->name()); }
  std::string dtype() const override { return name_of(dit->precision()); }
  int threads() const override { return backend->threads(); }
  int horizon() const override { return static_cast<int>(config.action_horizon); }
  int64_t parameters() const override { return parameters_; }
  Shape latent_shape() const override {
    return {config.dit.out_dim, config.dit.num_frame_per_block, dit->grid().height, dit->grid().width};
  }

  DreamZeroConfig config;
  std::shared_ptr<Backend> backend;
  std::shared_ptr<DreamZero> dit;
  std::unique_ptr<Vae> vae;
  std::unique_ptr<TextEncoder> text;
  std::unique_ptr<ClipVision> clip;          // nullptr: the model reads no image tokens
  std::unique_ptr<WordTokenizer> tokenizer;  // nullptr: prompts come as token ids
  int height = 0, width = 0;                 // of the picture the codec sees, pixels

 private:
  void read_weights(const std::string& dir, Precision precision, bool check_finite);
  void make_weights(Precision precision, const SyntheticWeights& weights);

  Embodiment embodiment_;
  int64_t parameters_ = 0;
};

}  // namespace wam
