#include "launch.cuh"
#include "quantize_rows.cuh"

namespace wam::kernels::cuda {

LaunchResult quantize_rows_sm89(const QuantizeRowsParams& p, Stream stream) {
  return launch_on(stream, p,
                   [](const auto& params, auto launch) { return launch_quantize_rows<true>(params, launch); });
}

}  // namespace wam::kernels::cuda
