#include "gemm_sm80.cuh"
#include "launch.cuh"

namespace wam::kernels::cuda {

LaunchResult gemm_sm80(const GemmParams& p, int multiprocessors, Stream stream) {
  const int tile = gemm_tile_sm80(p.m, p.n, multiprocessors);
  return launch_on(stream, p,
                   [tile](const auto& params, auto launch) { return launch_gemm_sm80(params, tile, launch); });
}

}  // namespace wam::kernels::cuda
