#include "backend/cpu_backend.h"

#include "backend/cpu_fused.h"
#include "wamcore/error.h"
#include "wamcore/kernels/isa.h"

namespace wam {

using kernels::Team;

namespace {

struct OperationInfo {
  const char* name;
  enum { plain, per_isa, bytes } kernels;  // for the default target only; for every instruction set; by int8_isa()
  const char* precision;
};
constexpr int64_t kMuch = INT64_MAX;  // always for all threads
constexpr const char* kFloat = "float32";
constexpr const char* kBf16Weights = "float32, weights bfloat16";
constexpr const char* kInt8 = "int8, sums int32";
constexpr OperationInfo kOperations[kCpuOperations] = {{"gemm", OperationInfo::per_isa, kFloat},
                                                       {"gemm", OperationInfo::per_isa, kBf16Weights},
                                                       {"gemm", OperationInfo::bytes, kInt8},
                                                       {"feed_forward", OperationInfo::per_isa, kFloat},
                                                       {"feed_forward", OperationInfo::per_isa, kBf16Weights},
                                                       {"feed_forward", OperationInfo::bytes, kInt8},
                                                       {"attention", OperationInfo::per_isa, kFloat},
                                                       {"norm", OperationInfo::per_isa, kFloat},
                                                       {"activation", OperationInfo::per_isa, kFloat},
                                                       {"conv", OperationInfo::per_isa, kFloat},
                                                       {"frames", OperationInfo::per_isa, kFloat},
                                                       {"rearrange", OperationInfo::plain, kFloat},
                                                       {"other", OperationInfo::plain, kFloat}};

}  // namespace

// `work` is in multiply-adds or what takes as long. Calling the other threads takes about as long as kAlone of them.
template <typename F>
void CpuOps::run(CpuOperation operation, int64_t work, F&& kernel) {
  constexpr int64_t kAlone = 100'000;
  count(operation);
  if (work < kAlone)
    kernel(Team{});
  else
    pool_.run(std::forward<F>(kernel));
}

std::vector<OperationReport> CpuOps::operations() const {
  const std::string names[] = {kernels::isa_name(kernels::Isa::portable), cpu_isa(),
                               kernels::isa_name(kernels::int8_isa())};
  std::vector<OperationReport> out;
  for (size_t i = 0; i < kCpuOperations; ++i) {
    const OperationInfo& info = kOperations[i];
    out.push_back({info.name, names[info.kernels], info.precision, runs_[i].load()});
  }
  return out;
}

void CpuOps::gemm(const kernels::GemmParams& p) {
  run(gemm_operation(p), p.m * p.n * p.k, [&](const Team& team) { kernels::gemm(p, team); });
}
void CpuOps::attention(const kernels::AttentionParams& p) {
  if (p.head_dim < 1 || p.head_dim > kernels::kMaxHeadDim)  // encoders and codecs call this without a plan
    throw ConfigError("attention: head_dim must be 1 to " + std::to_string(kernels::kMaxHeadDim) + ", got " +
                      std::to_string(p.head_dim));
  run(CpuOperation::attention, kMuch, [&](const Team& team) { kernels::attention(p, team); });
}
void CpuOps::layer_norm(const kernels::LayerNormParams& p) {
  run(CpuOperation::norm, 8 * p.rows * p.cols, [&](const Team& team) { kernels::layer_norm(p, team); });
}
void CpuOps::qk_norm_rope(const kernels::QkNormRopeParams& p) {
  run(CpuOperation::norm, 8 * p.rows * p.heads * p.head_dim, [&](const Team& team) { kernels::qk_norm_rope(p, team); });
}
void CpuOps::activation(const kernels::ActivationParams& p) {
  run(CpuOperation::activation, 8 * p.rows * p.cols, [&](const Team& team) { kernels::activation(p, team); });
}
void CpuOps::sinusoid(const kernels::SinusoidParams& p) {
  run(CpuOperation::other, 32 * p.rows * p.cols, [&](const Team& team) { kernels::sinusoid(p, team); });
}
void CpuOps::patchify(const kernels::PatchifyParams& p) {
  run(CpuOperation::rearrange, kMuch, [&](const Team& team) { kernels::patchify(p, team); });
}
void CpuOps::unpatchify(const kernels::UnpatchifyParams& p) {
  run(CpuOperation::rearrange, 4 * p.channels * p.frames * p.height * p.width,
      [&](const Team& team) { kernels::unpatchify(p, team); });
}
void CpuOps::modulation(const kernels::ModulationParams& p) {
  run(CpuOperation::activation, p.rows * p.cols, [&](const Team& team) { kernels::modulation(p, team); });
}
void CpuOps::combine(const kernels::CombineParams& p) {
  run(CpuOperation::other, p.n * p.count, [&](const Team& team) { kernels::combine(p, team); });
}
void CpuOps::conv(const kernels::ConvParams& p) {
  run(CpuOperation::conv, kMuch, [&](const Team& team) { kernels::conv(p, team); });
}
void CpuOps::channel_norm(const kernels::ChannelNormParams& p) {
  run(CpuOperation::norm, 8 * p.rows * p.cols, [&](const Team& team) { kernels::channel_norm(p, team); });
}
void CpuOps::affine(const kernels::AffineParams& p) {
  run(CpuOperation::frames, p.height * p.width * p.channels, [&](const Team& team) { kernels::affine(p, team); });
}
void CpuOps::upsample(const kernels::UpsampleParams& p) {
  run(CpuOperation::frames, 4 * p.height * p.width * p.channels, [&](const Team& team) { kernels::upsample(p, team); });
}
void CpuOps::pixel_unshuffle(const kernels::PixelShuffleParams& p) {
  run(CpuOperation::rearrange, p.height * p.width * p.colours * p.patch * p.patch,
      [&](const Team& team) { kernels::pixel_unshuffle(p, team); });
}
void CpuOps::pixel_shuffle(const kernels::PixelShuffleParams& p) {
  run(CpuOperation::rearrange, p.height * p.width * p.colours * p.patch * p.patch,
      [&](const Team& team) { kernels::pixel_shuffle(p, team); });
}
void CpuOps::average_down(const kernels::AverageDownParams& p) {
  run(CpuOperation::frames, p.height * p.width * p.in * p.time * p.square * p.square,
      [&](const Team& team) { kernels::average_down(p, team); });
}
void CpuOps::repeat_up(const kernels::RepeatUpParams& p) {
  run(CpuOperation::frames, p.height * p.width * p.in * p.time * p.square * p.square,
      [&](const Team& team) { kernels::repeat_up(p, team); });
}
std::shared_ptr<const PackedWeights> CpuBackend::pack(const WeightTable& table, const WeightSource& source) {
  return std::make_shared<const PackedWeights>(table, source);
}

std::shared_ptr<const ProgramWeights> CpuBackend::load(const WeightTable& table, const WeightSource& source,
                                                       Precision wanted) {
  constexpr Precision kHas[] = {Precision::float32, Precision::int8};  // the first is what "auto" gives
  return std::make_shared<const PackedWeights>(table, source, choose_precision(name(), wanted, kHas));
}

std::unique_ptr<Program> CpuBackend::compile(Plan plan, std::shared_ptr<const ProgramWeights> weights) {
  auto packed = std::static_pointer_cast<const PackedWeights>(std::move(weights));  // what this backend's load gave
  if (fused_) return std::make_unique<FusedCpuProgram>(std::move(plan), std::move(packed), ops_);
  return std::make_unique<CpuProgram>(std::move(plan), std::move(packed), ops_);
}

}  // namespace wam
