#pragma once

#include <cstdint>
#include <string>

#include "io/json.h"
#include "wamcore/export.h"

namespace wam {

/// The diffusion transformer of a DreamZero checkpoint, field by field as its config spells them.
struct DitConfig {
  std::string model_type;            // "i2v": conditioning channels beside the latents; "ti2v": none
  int64_t frame_seqlen = 0;          // tokens of one latent frame
  int64_t text_len = 0, text_dim = 0;
  int64_t in_dim = 0, out_dim = 0;   // channels into the patch embedding, channels of the velocity
  int64_t dim = 0, ffn_dim = 0, freq_dim = 0, num_heads = 0, num_layers = 0;
  int64_t max_chunk_size = 0;        // chunks of one context window
  int64_t num_frame_per_block = 0, num_action_per_block = 0, num_state_per_block = 0;
  int64_t action_dim = 0, max_state_dim = 0, hidden_size = 0;
  double eps = 1e-6;
  bool concat_first_frame_latent = false;
  int64_t clip_dim = 0, clip_tokens = 0;  // 0: no image context
  int64_t local_attn_size = 0;       // latent frames of the attention window

  int64_t head_dim() const { return dim / num_heads; }
  int64_t cond_channels() const { return concat_first_frame_latent ? in_dim - out_dim : 0; }
  bool has_clip() const { return clip_tokens > 0; }
};

/// Reads and checks `diffusion_model_cfg`. Throws ConfigError on unknown, missing and contradictory fields.
WAMCORE_API DitConfig read_dit_config(const json::Node& node);

}  // namespace wam
