#pragma once

#include <cstdint>
#include <string>

#include "backend/plugin.h"

namespace wam {

/// What the NVIDIA driver says, asked without any CUDA library of ours.
struct GpuFacts {
  std::string failure;  // why the driver could not be asked, a whole sentence; empty: the rest is valid
  int driver_cuda = 0;  // newest CUDA it supports, 1000 * major + 10 * minor
  int count = 0;        // GPUs it shows to this process
  std::string name;     // of the GPU asked for
  int capability = 0;   // 10 * major + minor
  uint64_t memory_bytes = 0;
};

/// Asks the driver about GPU `ordinal`. `library` is another file only in tests.
GpuFacts ask_driver(int ordinal, const char* library = "libcuda.so.1");

/// Why `plugin` cannot run on that GPU, in one sentence; empty: it can.
std::string why_not(const BackendPlugin& plugin, const GpuFacts& gpu, int ordinal);

/// By which instructions `plugin` multiplies e4m3 on that GPU, or why it cannot: "fp8 by wgmma (sm_90a)".
/// WAMCORE_CUDA_KERNELS counts, as it does for the choice of kernels.
std::string fp8_path(const BackendPlugin& plugin, const GpuFacts& gpu);

/// Why the plugin of another build must not be used, in one sentence; empty: it fits this library.
std::string why_not(const BackendPlugin& plugin);

}  // namespace wam
