#pragma once

#include "wamcore/kernels/attention.h"
#include "wamcore/kernels/conv.h"
#include "wamcore/kernels/embed.h"
#include "wamcore/kernels/frames.h"
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
  virtual void conv(const kernels::ConvParams& p) = 0;
  virtual void channel_norm(const kernels::ChannelNormParams& p) = 0;
  virtual void affine(const kernels::AffineParams& p) = 0;
  virtual void upsample(const kernels::UpsampleParams& p) = 0;
  virtual void pixel_unshuffle(const kernels::PixelShuffleParams& p) = 0;
  virtual void pixel_shuffle(const kernels::PixelShuffleParams& p) = 0;
  virtual void average_down(const kernels::AverageDownParams& p) = 0;
  virtual void repeat_up(const kernels::RepeatUpParams& p) = 0;
};

}  // namespace wam
