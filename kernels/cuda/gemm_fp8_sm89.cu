#include "gemm_sm80.cuh"
#include "launch.cuh"

namespace wam::kernels::cuda {

LaunchResult gemm_fp8_sm89(const Fp8Product& p, int multiprocessors, Stream stream) {
  const int tile = gemm_tile_fp8_sm89(p.gemm.m, p.gemm.n, multiprocessors);
  return launch_on(stream, p,
                   [tile](const auto& params, auto launch) { return launch_gemm_fp8_sm89(params, tile, launch); });
}

}  // namespace wam::kernels::cuda
