#pragma once

// How the functions beside the kernels start them on a GPU. The simulation in tests/simt has its own.
#include <cuda_runtime.h>

#include "wamcore/kernels/cuda/launch.h"

namespace wam::kernels::cuda {

/// Starts kernels on one stream and keeps the first error.
struct StreamLauncher {
  Stream stream;
  LaunchResult* result;

  template <typename Params>
  void operator()(const LaunchShape& shape, void (*kernel)(Params), const Params& p) const {
    if (*result != cudaSuccess) return;
    if (shape.shared_bytes > 48 * 1024)  // what a kernel may have without asking
      *result = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shape.shared_bytes));
    if (*result != cudaSuccess) return;
    cudaLaunchConfig_t config{};
    config.gridDim = {shape.grid_x, shape.grid_y, shape.grid_z};
    config.blockDim = {shape.threads, 1, 1};
    config.dynamicSmemBytes = shape.shared_bytes;
    config.stream = static_cast<cudaStream_t>(stream);
    *result = cudaLaunchKernelEx(&config, kernel, p);
  }
};

/// `choose` is the launch_... function of a kernel.
template <typename Choose, typename Params>
LaunchResult launch_on(Stream stream, const Params& p, Choose choose) {
  LaunchResult result = cudaSuccess;
  const bool possible = choose(p, StreamLauncher{stream, &result});
  return possible ? result : static_cast<LaunchResult>(cudaErrorInvalidValue);
}

}  // namespace wam::kernels::cuda
