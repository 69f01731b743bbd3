#pragma once

#include <cstdint>

#include "io/json.h"
#include "wamcore/export.h"

namespace wam {

/// The image tower of an open-clip model.
struct WAMCORE_API ClipConfig {
  int64_t embed_dim = 0, image_size = 0, patch_size = 0, vision_dim = 0, vision_mlp_ratio = 0, vision_heads = 0,
          vision_layers = 0;

  int64_t tokens() const { return 1 + (image_size / patch_size) * (image_size / patch_size); }
  /// Throws ConfigError.
  static ClipConfig parse(const json::Node& node);
};

}  // namespace wam
