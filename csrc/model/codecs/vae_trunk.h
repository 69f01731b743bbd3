#pragma once

#include "model/codecs/vae_config.h"
#include "model/codecs/vae_layers.h"

namespace wam {

/// One direction of the codec: everything between the picture (or latent) and the latent (or picture).
struct VaeTrunk {
  VaeConv enter;                 // the first convolution
  std::vector<VaeStage> stages;  // levels and middle, in the order they run
  int gamma = -1;                // of the head
  VaeConv head;
  VaeConv latent;  // 1 x 1 x 1: after the encoder, before the decoder

  static VaeTrunk encoder(const VaeConfig& config, VaeBuilder& build);
  static VaeTrunk decoder(const VaeConfig& config, VaeBuilder& build);
};

}  // namespace wam
