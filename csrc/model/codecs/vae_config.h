#pragma once

#include <cstdint>
#include <vector>

#include "io/json.h"
#include "wamcore/export.h"

namespace wam {

/// What a causal video VAE looks like. Defaults: the published 2.1.
struct WAMCORE_API VaeConfig {
  bool wan22 = false;                            // the 2.2 layout: patches of pixels first, shortcuts around stages
  int64_t dim = 96;                              // channels of the encoder's first level
  int64_t dec_dim = 96;                          // channels of the decoder's last level
  int64_t z_dim = 16;                            // latent channels
  std::vector<int64_t> dim_mult = {1, 2, 4, 4};  // channels of each level, in units of dim
  int64_t num_res_blocks = 2;                    // a level of the encoder; the decoder has one more
  std::vector<bool> temporal_downsample = {false, true, true};  // between levels: halve the frame rate, too?
  int64_t patch_size = 1;                                       // pixels, both ways; 2.2 only
  std::vector<float> latents_mean, latents_std;  // [z_dim]; empty: the published values for 16 and 48 channels

  /// Reads an object with these names and "version": "2.1" or "2.2"; without a version, a patch_size means 2.2.
  /// Throws ConfigError.
  static VaeConfig parse(const json::Node& node);
  /// Fills in the published mean and std. Throws ConfigError when fields contradict each other or what is supported.
  void check();

  int64_t temporal_stride() const;  // pixel frames for each latent frame but the first
  int64_t spatial_stride() const;   // pixels for each latent pixel, both ways
};

}  // namespace wam
