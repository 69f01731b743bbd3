#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/codecs/vae.h"

namespace wam {

/// Where one component comes from when it is opened on its own, outside a whole model.
struct ComponentFiles {
  std::string config;                // JSON text
  std::vector<std::string> weights;  // safetensors files that together hold the component's tensors, names as published
  std::string device = "cpu";        // see make_backend
  std::optional<int> threads = 1;
};

/// Throws ConfigError, WeightError: also when a file has a tensor that does not belong there. A file set without any
/// decoder tensor makes a codec that cannot decode.
WAMCORE_API std::unique_ptr<Vae> open_vae(const ComponentFiles& files);

/// The tensors of a checkpoint with this config, JSON text. Throws ConfigError.
WAMCORE_API std::vector<KeySpec> vae_keys(const std::string& config);

}  // namespace wam
