#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "wamcore/embodiment.h"
#include "wamcore/export.h"
#include "wamcore/tensor.h"

namespace wam {

struct LoadOptions {
  std::string device = "auto";  // "auto", "cpu", "cpu-ops" (the plain loop over operations), "cuda" or "cuda:N"
  std::optional<int> threads;   // absent: one for each CPU that the process may use
  bool check_finite = false;    // look for NaN and infinity before all else; those that a pass reads always are
  /// What the transformer's large products are computed in: "auto" (what the device runs best without being asked:
  /// float32 on a CPU, bfloat16 on a GPU), "float32", "bfloat16", "fp8" or "int8". Not every device has each.
  std::string dtype = "auto";
  /// Cores of a CPU that the threads stay on, one a thread; none: wherever the system puts them. The thread that infers
  /// is one of them: it stays on the first for as long as an inference takes. Leave out the servo's.
  std::vector<int> cores = {};
};

/// Weights and configuration on one device. Const; any number of sessions share it.
class WAMCORE_API Model {
 public:
  /// Reads config.json, embodiment.json and the safetensors files of `dir`. Throws ConfigError, WeightError,
  /// DeviceError.
  static std::shared_ptr<const Model> load(const std::string& dir, const LoadOptions& options = {});
  virtual ~Model();

  virtual const Embodiment& embodiment() const = 0;
  virtual std::string family() const = 0;  // "dreamzero"
  virtual std::string device() const = 0;  // the backend that runs it
  virtual std::string dtype() const = 0;   // what the transformer's large products are computed in; never "auto"
  virtual int threads() const = 0;
  virtual int horizon() const = 0;  // rows of a chunk
  virtual int64_t parameters() const = 0;
  /// Sizes of one latent block: [channels, frames, height, width].
  virtual Shape latent_shape() const = 0;
};

}  // namespace wam
