#pragma once

#include <cstdint>

#include "wamcore/export.h"
#include "wamcore/kernels/attention.h"
#include "wamcore/kernels/gemm.h"
#include "wamcore/kernels/norm.h"

namespace wam {

/// What stands beside Ops and is no device's: the kernels' float64 definitions, the packing of weights, and what
/// the CPU's arithmetic gives at best. A table,
/// because the kernels themselves are hidden inside the library.
struct KernelTable {
  void (*attention_ref)(const kernels::AttentionParams&);
  void (*gemm_ref)(const kernels::GemmParams&);
  void (*layer_norm_ref)(const kernels::LayerNormParams&);
  void (*qk_norm_rope_ref)(const kernels::QkNormRopeParams&);
  int64_t (*multiply_adds)(int64_t flop);
  void (*pack_weight)(const float* w, int64_t n, int64_t k, float* packed);
};
WAMCORE_API const KernelTable& kernel_table();

}  // namespace wam
