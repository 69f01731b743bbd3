#pragma once

#include "wamcore/kernels/attention.h"
#include "wamcore/kernels/gemm.h"
#include "wamcore/kernels/norm.h"

namespace wam {

/// Level one of a backend: single operations on arrays that live on its device. Codecs, the plain reference program,
/// tests and microbenchmarks use these. Each call is complete when it returns.
class Ops {
 public:
  virtual ~Ops() = default;
  virtual void gemm(const kernels::GemmParams& p) = 0;
  virtual void attention(const kernels::AttentionParams& p) = 0;
  virtual void layer_norm(const kernels::LayerNormParams& p) = 0;
  virtual void qk_norm_rope(const kernels::QkNormRopeParams& p) = 0;
};

}  // namespace wam
