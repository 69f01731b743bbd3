#include "backend/kernel_table.h"

#include "wamcore/kernels/peak.h"

namespace wam {

const KernelTable& kernel_table() {
  static constexpr KernelTable table{
      .attention_ref = kernels::attention_ref,
      .gemm_ref = kernels::gemm_ref,
      .layer_norm_ref = kernels::layer_norm_ref,
      .qk_norm_rope_ref = kernels::qk_norm_rope_ref,
      .multiply_adds = kernels::multiply_adds,
      .pack_weight = kernels::pack_weight,
  };
  return table;
}

}  // namespace wam
