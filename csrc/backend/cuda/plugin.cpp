#include "backend/plugin.h"

#include "backend/cuda/backend.h"
#include "backend/cuda/cuda_device.h"
#include "backend/cuda/kernel_calls.h"
#include "wamcore/export.h"
#include "wamcore/version.h"

namespace {

constexpr int kReal[] = {WAMCORE_CUDA_REAL};

wam::Backend* make(int gpu, int threads) {
  return new wam::cuda::CudaBackend(wam::cuda::open_device(gpu), wam::make_backend("cpu", threads));
}

constexpr wam::BackendPlugin kPlugin{.version = WAMCORE_VERSION,
                                     .toolkit = WAMCORE_CUDA_TOOLKIT,
                                     .real = kReal,
                                     .real_count = sizeof(kReal) / sizeof(kReal[0]),
                                     .ptx = 80,
#ifdef WAMCORE_WITH_SM90A
                                     .sm90a = true,
#endif
                                     .make = make,
                                     .kernels = &wam::cuda::kKernelCalls};

}  // namespace

extern "C" WAMCORE_API const wam::BackendPlugin* wam_backend_v1() { return &kPlugin; }
