#pragma once

#include "gemm_rounded.h"

namespace wam::kernels {

// Products of bytes and of bfloat16 by NEON's instructions for two rows and two columns at once; no function in builds
// for other processors.
RoundedProduct mmla_product(bool bytes);

}  // namespace wam::kernels
