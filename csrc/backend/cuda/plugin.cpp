#include "backend/plugin.h"

#include "wamcore/export.h"
#include "wamcore/version.h"

namespace {

constexpr int kReal[] = {WAMCORE_CUDA_REAL};
constexpr wam::BackendPlugin kPlugin{.version = WAMCORE_VERSION,
                                     .toolkit = WAMCORE_CUDA_TOOLKIT,
                                     .real = kReal,
                                     .real_count = sizeof(kReal) / sizeof(kReal[0]),
                                     .ptx = 80};

}  // namespace

extern "C" WAMCORE_API const wam::BackendPlugin* wam_backend_v1() { return &kPlugin; }
