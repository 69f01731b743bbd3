#pragma once

#include "backend/cuda_kernels.h"

namespace wam::cuda {

/// The plugin's kernels for callers who bring their own memory and stream.
extern const CudaKernels kKernelCalls;

}  // namespace wam::cuda
