#pragma once

#include <string>

#include "backend/cuda_probe.h"
#include "wamcore/export.h"

namespace wam {

/// Whether the CUDA backend can be used here, found out once per GPU and process.
struct WAMCORE_API CudaState {
  const BackendPlugin* plugin = nullptr;  // nullptr: none could be loaded
  GpuFacts gpu;
  std::string problem;  // one sentence; empty: usable

  /// "NVIDIA H200, compute capability 9.0, 139 GiB, driver for CUDA 13.0, fp8 by wgmma (sm_90a)".
  /// Of a usable GPU only.
  std::string describe() const;
};

/// The state for GPU `ordinal`. Loads libwamcore_cuda.so from beside this library, or the file that
/// WAMCORE_CUDA_PLUGIN names.
WAMCORE_API CudaState cuda_state(int ordinal = 0);

}  // namespace wam
