#pragma once

#include <cstdint>

#include "io/json.h"
#include "wamcore/export.h"

namespace wam {

/// A umT5-form text encoder.
struct WAMCORE_API TextEncoderConfig {
  int64_t vocab = 0, dim = 0, dim_attn = 0, dim_ffn = 0, num_heads = 0, num_layers = 0;
  int64_t num_buckets = 32;  // of relative distances, half of them for keys to the right

  /// Throws ConfigError.
  static TextEncoderConfig parse(const json::Node& node);
};

}  // namespace wam
