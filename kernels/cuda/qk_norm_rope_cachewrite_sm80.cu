#include "launch.cuh"
#include "qk_norm_rope_cachewrite.cuh"

namespace wam::kernels::cuda {

LaunchResult qk_norm_rope_cachewrite(const QkNormRopeCacheWriteParams& p, Stream stream) {
  return launch_on(stream, p,
                   [](const auto& params, auto launch) { return launch_qk_norm_rope_cachewrite(params, launch); });
}

}  // namespace wam::kernels::cuda
