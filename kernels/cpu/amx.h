#pragma once

#include "gemm_rounded.h"

namespace wam::kernels {

// Products of bytes and of bfloat16 on AMX's tiles; neither function is there in builds for other processors.
RoundedProduct amx_product(bool bytes);

}  // namespace wam::kernels
