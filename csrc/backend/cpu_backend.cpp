#include "backend/cpu_backend.h"

#include "backend/cpu_program.h"

namespace wam {

using kernels::Team;

void CpuOps::gemm(const kernels::GemmParams& p) {
  pool_.run([&](const Team& team) { kernels::gemm(p, team); });
}
void CpuOps::attention(const kernels::AttentionParams& p) {
  pool_.run([&](const Team& team) { kernels::attention(p, team); });
}
void CpuOps::layer_norm(const kernels::LayerNormParams& p) {
  pool_.run([&](const Team& team) { kernels::layer_norm(p, team); });
}
void CpuOps::qk_norm_rope(const kernels::QkNormRopeParams& p) {
  pool_.run([&](const Team& team) { kernels::qk_norm_rope(p, team); });
}
void CpuOps::activation(const kernels::ActivationParams& p) {
  pool_.run([&](const Team& team) { kernels::activation(p, team); });
}
void CpuOps::sinusoid(const kernels::SinusoidParams& p) {
  pool_.run([&](const Team& team) { kernels::sinusoid(p, team); });
}
void CpuOps::patchify(const kernels::PatchifyParams& p) {
  pool_.run([&](const Team& team) { kernels::patchify(p, team); });
}
void CpuOps::unpatchify(const kernels::UnpatchifyParams& p) {
  pool_.run([&](const Team& team) { kernels::unpatchify(p, team); });
}
void CpuOps::modulation(const kernels::ModulationParams& p) {
  pool_.run([&](const Team& team) { kernels::modulation(p, team); });
}
void CpuOps::combine(const kernels::CombineParams& p) {
  pool_.run([&](const Team& team) { kernels::combine(p, team); });
}
void CpuOps::conv(const kernels::ConvParams& p) {
  pool_.run([&](const Team& team) { kernels::conv(p, team); });
}
void CpuOps::channel_norm(const kernels::ChannelNormParams& p) {
  pool_.run([&](const Team& team) { kernels::channel_norm(p, team); });
}
void CpuOps::affine(const kernels::AffineParams& p) {
  pool_.run([&](const Team& team) { kernels::affine(p, team); });
}
void CpuOps::upsample(const kernels::UpsampleParams& p) {
  pool_.run([&](const Team& team) { kernels::upsample(p, team); });
}
void CpuOps::pixel_unshuffle(const kernels::PixelShuffleParams& p) {
  pool_.run([&](const Team& team) { kernels::pixel_unshuffle(p, team); });
}
void CpuOps::pixel_shuffle(const kernels::PixelShuffleParams& p) {
  pool_.run([&](const Team& team) { kernels::pixel_shuffle(p, team); });
}
void CpuOps::average_down(const kernels::AverageDownParams& p) {
  pool_.run([&](const Team& team) { kernels::average_down(p, team); });
}
void CpuOps::repeat_up(const kernels::RepeatUpParams& p) {
  pool_.run([&](const Team& team) { kernels::repeat_up(p, team); });
}
void CpuOps::feed_forward(const kernels::FeedForwardParams& p) {
  pool_.run([&](const Team& team) { kernels::feed_forward(p, team); });
}

std::shared_ptr<const PackedWeights> CpuBackend::pack(const WeightTable& table, const WeightSource& source) {
  return std::make_shared<const PackedWeights>(table, source);
}

std::unique_ptr<Program> CpuBackend::compile(Plan plan, std::shared_ptr<const PackedWeights> weights) {
  if (fused_) return std::make_unique<FusedCpuProgram>(std::move(plan), std::move(weights), ops_);
  return std::make_unique<CpuProgram>(std::move(plan), std::move(weights), ops_);
}

}  // namespace wam
