#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "io/json.h"
#include "model/codecs/clip_vision_config.h"
#include "model/codecs/text_encoder_config.h"
#include "model/codecs/vae_config.h"
#include "wamcore/export.h"

namespace wam {

/// The diffusion transformer of a DreamZero checkpoint, field by field as its config spells them.
struct DitConfig {
  std::string model_type;    // "i2v": conditioning channels beside the latents; "ti2v": none
  int64_t frame_seqlen = 0;  // tokens of one latent frame
  int64_t text_len = 0, text_dim = 0;
  int64_t in_dim = 0, out_dim = 0;  // channels into the patch embedding, channels of the velocity
  int64_t dim = 0, ffn_dim = 0, freq_dim = 0, num_heads = 0, num_layers = 0;
  int64_t max_chunk_size = 0;  // chunks of one context window
  int64_t num_frame_per_block = 0, num_action_per_block = 0, num_state_per_block = 0;
  int64_t action_dim = 0, max_state_dim = 0, hidden_size = 0;
  double eps = 1e-6;
  bool concat_first_frame_latent = false;
  int64_t clip_dim = 0, clip_tokens = 0;  // 0: no image context
  int64_t local_attn_size = 0;            // latent frames of the attention window
  int64_t trained_prefix = 0;             // leading action rows that may be given clean, each with timestep 0

  int64_t head_dim() const { return dim / num_heads; }
  int64_t cond_channels() const { return concat_first_frame_latent ? in_dim - out_dim : 0; }
  bool has_clip() const { return clip_tokens > 0; }
};

/// How chunks are sampled unless the session says otherwise.
struct SampleConfig {
  int steps = 16;
  double shift = 5.0;
  std::string solver = "unipc";  // or "euler"
  double guidance = 5.0;         // video only; 1: the unconditional branch is not run
  std::vector<bool> step_mask;   // which steps run the model; empty: all
  bool dynamic_skip = false;     // overrides the mask
  bool decoupled = false;        // video ends at video_final_noise instead of 0
  double video_final_noise = 0.8;
  uint64_t seed = 1140;
};

/// config.json of a checkpoint: the policy head and its parts.
struct DreamZeroConfig {
  int64_t action_horizon = 0, action_dim = 0;
  DitConfig dit;
  TextEncoderConfig text;
  std::optional<ClipConfig> clip;
  VaeConfig vae;
  SampleConfig sample;
  int64_t num_frames = 33;                      // pixel frames of a full window
  int64_t target_height = 0, target_width = 0;  // the composed picture is resized to this; 0: left as it is

  /// Reads and checks a config.json. Throws ConfigError on unknown, missing and contradictory fields.
  WAMCORE_API static DreamZeroConfig read(const std::string& path);
};

/// Reads and checks `diffusion_model_cfg`. Throws ConfigError on unknown, missing and contradictory fields.
WAMCORE_API DitConfig read_dit_config(const json::Node& node);

}  // namespace wam
