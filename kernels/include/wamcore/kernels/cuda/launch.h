#pragma once

#include <cstdint>

namespace wam::kernels::cuda {

/// How many blocks of how many threads a kernel is started with, chosen by the function beside it.
struct LaunchShape {
  unsigned grid_x = 1, grid_y = 1, grid_z = 1;
  unsigned threads = 1;
  unsigned shared_bytes = 0;  // dynamic shared memory
};

/// A stream of the CUDA runtime, whose headers stay out of ours.
using Stream = void*;
/// A cudaError_t; 0 is success.
using LaunchResult = int;

}  // namespace wam::kernels::cuda
