#pragma once

#include <vector>

#include "backend/weights.h"
#include "core/thread_pool.h"
#include "wamcore/export.h"
#include "wamcore/model.h"

namespace wam {

/// Random weights instead of a checkpoint's: what a model of any size costs does not depend on them. Matrices keep the
/// size of what they multiply, norms are near 1, the rest is small, so activations stay finite over many layers. The
/// numbers of a tensor are drawn once for all tensors and copied from a place of its own, or filling 14 billion would
/// take longer than all that is measured.
class SyntheticWeights {
 public:
  explicit SyntheticWeights(uint64_t seed);
  /// The tensor of that name; the same every time.
  Tensor draw(const std::string& name, const Shape& shape) const;

 private:
  std::vector<float> pool_;  // standard normal
  mutable ThreadPool threads_;
};

/// A model of a folder with config.json and embodiment.json alone. Throws ConfigError, DeviceError.
WAMCORE_API std::shared_ptr<const Model> synthetic_model(const std::string& dir, const LoadOptions& options,
                                                         uint64_t seed);

}  // namespace wam
