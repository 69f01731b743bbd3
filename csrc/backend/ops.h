#pragma once

#include "wamcore/kernels/attention.h"
#include "wamcore/kernels/embed.h"
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
  virtual void activation(const kernels::ActivationParams& p) = 0;
  virtual void sinusoid(const kernels::SinusoidParams& p) = 0;
  virtual void patchify(const kernels::PatchifyParams& p) = 0;
  virtual void unpatchify(const kernels::UnpatchifyParams& p) = 0;
  virtual void modulation(const kernels::ModulationParams& p) = 0;
  virtual void combine(const kernels::CombineParams& p) = 0;
};

}  // namespace wam
