#pragma once

#include "wamcore/kernels/cuda/attention.h"
#include "wamcore/kernels/cuda/embed.h"
#include "wamcore/kernels/cuda/fp8.h"
#include "wamcore/kernels/cuda/gemm.h"
#include "wamcore/kernels/cuda/ln_modulate.h"
#include "wamcore/kernels/cuda/qk_norm_rope_cachewrite.h"
#include "wamcore/kernels/cuda/sampler_step.h"

namespace wam {

/// Where the caller's arrays lie, and the stream that its own work is on.
struct CudaPlace {
  int gpu = 0;
  kernels::cuda::Stream stream = nullptr;
};

/// The single kernels of a plugin, on memory and a stream of the caller's. Each starts the best kernel that the GPU has
/// and returns at once: 0, or an error to be explained by the same thread. A kernel that cannot be started is an error:
/// no slower one takes its place. Scratch memory is the plugin's own, one block for each GPU and
/// stream; it grows with the calls and is kept, since captured graphs may hold its address. While a stream is being
/// captured nothing can grow: the same call must have been made before.
struct CudaKernels {
  int (*multiprocessors)(int gpu);                                            // below 0: an error, negated
  int (*attention)(const CudaPlace&, const kernels::cuda::AttentionParams&);  // split_out, split_lse are left out
  int (*gemm)(const CudaPlace&, const kernels::cuda::GemmParams&);
  int (*gemm_fp8)(const CudaPlace&, const kernels::cuda::GemmParams&, const kernels::cuda::Fp8Operands&);
  int (*ln_modulate)(const CudaPlace&, const kernels::cuda::LnModulateParams&);
  int (*qk_norm_rope_cachewrite)(const CudaPlace&, const kernels::cuda::QkNormRopeCacheWriteParams&);
  int (*add)(const CudaPlace&, const kernels::cuda::AddParams&);
  int (*quantize_rows)(const CudaPlace&, const kernels::cuda::QuantizeRowsParams&);
  int (*sampler_step)(const CudaPlace&, const kernels::cuda::SamplerStepParams&);
  const char* (*explain)(int error);
};

}  // namespace wam
