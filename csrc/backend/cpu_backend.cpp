#include "backend/cpu_backend.h"

#include "backend/cpu_fused.h"
#include "wamcore/error.h"
#include "wamcore/kernels/isa.h"

namespace wam {

using kernels::Team;

namespace {

struct OperationInfo {
  const char* name;
  enum { plain, per_isa, bytes, halves } kernels;  // for the default target; by isa(), int8_isa(), bf16_isa()
  const char* precision;
};
constexpr const char* kNoStep = "encoders";
thread_local const char* current_step = kNoStep;
constexpr int64_t kMuch = INT64_MAX;  // always for all threads
constexpr const char* kFloat = "float32";
constexpr const char* kBf16Weights = "float32, weights bfloat16";
constexpr const char* kBf16 = "bfloat16, sums float32";
constexpr const char* kInt8 = "int8, sums int32";
constexpr OperationInfo kOperations[kCpuOperations] = {
    {"gemm", OperationInfo::per_isa, kFloat},         {"gemm", OperationInfo::per_isa, kBf16Weights},
    {"gemm", OperationInfo::halves, kBf16},           {"gemm", OperationInfo::bytes, kInt8},
    {"feed_forward", OperationInfo::per_isa, kFloat}, {"feed_forward", OperationInfo::per_isa, kBf16Weights},
    {"feed_forward", OperationInfo::halves, kBf16},   {"feed_forward", OperationInfo::bytes, kInt8},
    {"attention", OperationInfo::per_isa, kFloat},    {"norm", OperationInfo::per_isa, kFloat},
    {"activation", OperationInfo::per_isa, kFloat},   {"conv", OperationInfo::per_isa, kFloat},
    {"frames", OperationInfo::per_isa, kFloat},       {"rearrange", OperationInfo::plain, kFloat},
    {"other", OperationInfo::plain, kFloat}};

}  // namespace

OperationClock::Name name_of(CpuOperation operation, const char* step) {
  const OperationInfo& info = kOperations[static_cast<size_t>(operation)];
  return {step, info.name, info.precision};
}

void CpuOps::step(const char* name) { current_step = name ? name : kNoStep; }

// `work` is in multiply-adds or what takes as long. Calling the other threads takes about as long as kAlone of them.
template <typename Params>
void CpuOps::run(CpuOperation operation, int64_t work, const Params& p, void (*kernel)(const Params&, const Team&)) {
  constexpr int64_t kAlone = 100'000;
  count(operation);
  const bool timed = clock_.on();
  const auto began = timed ? OperationClock::Time::now() : OperationClock::Time::time_point{};
  if (work < kAlone)
    kernel(p, Team{});
  else
    pool_.run([&](const Team& team) { kernel(p, team); });
  if (timed) clock_.add(name_of(operation, current_step), 1, OperationClock::since(began), cost_of(p));
}

std::vector<OperationReport> CpuOps::operations() const {
  const std::string names[] = {kernels::isa_name(kernels::Isa::portable), cpu_isa(), cpu_isa(Precision::int8),
                               cpu_isa(Precision::bfloat16)};
  std::vector<OperationReport> out;
  for (size_t i = 0; i < kCpuOperations; ++i) {
    const OperationInfo& info = kOperations[i];
    out.push_back({info.name, names[info.kernels], info.precision, runs_[i].load()});
  }
  return out;
}

void CpuOps::gemm(const kernels::GemmParams& p) { run(gemm_operation(p), p.m * p.n * p.k, p, kernels::gemm); }
void CpuOps::attention(const kernels::AttentionParams& p) {
  if (p.head_dim < 1 || p.head_dim > kernels::kMaxHeadDim)  // encoders and codecs call this without a plan
    throw ConfigError("attention: head_dim must be 1 to " + std::to_string(kernels::kMaxHeadDim) + ", got " +
                      std::to_string(p.head_dim));
  run(CpuOperation::attention, kMuch, p, kernels::attention);
}
void CpuOps::layer_norm(const kernels::LayerNormParams& p) {
  run(CpuOperation::norm, 8 * p.rows * p.cols, p, kernels::layer_norm);
}
void CpuOps::qk_norm_rope(const kernels::QkNormRopeParams& p) {
  run(CpuOperation::norm, 8 * p.rows * p.heads * p.head_dim, p, kernels::qk_norm_rope);
}
void CpuOps::activation(const kernels::ActivationParams& p) {
  run(CpuOperation::activation, 8 * p.rows * p.cols, p, kernels::activation);
}
void CpuOps::sinusoid(const kernels::SinusoidParams& p) {
  run(CpuOperation::other, 32 * p.rows * p.cols, p, kernels::sinusoid);
}
void CpuOps::patchify(const kernels::PatchifyParams& p) { run(CpuOperation::rearrange, kMuch, p, kernels::patchify); }
void CpuOps::unpatchify(const kernels::UnpatchifyParams& p) {
  run(CpuOperation::rearrange, 4 * p.channels * p.frames * p.height * p.width, p, kernels::unpatchify);
}
void CpuOps::modulation(const kernels::ModulationParams& p) {
  run(CpuOperation::activation, p.rows * p.cols, p, kernels::modulation);
}
void CpuOps::combine(const kernels::CombineParams& p) { run(CpuOperation::other, p.n * p.count, p, kernels::combine); }
void CpuOps::conv(const kernels::ConvParams& p) {
  const kernels::ConvShape& s = p.shape;
  run(CpuOperation::conv, p.frames * p.height * p.width * s.out * s.in * s.rows * s.cols, p, kernels::conv);
}
void CpuOps::channel_norm(const kernels::ChannelNormParams& p) {
  run(CpuOperation::norm, 8 * p.rows * p.cols, p, kernels::channel_norm);
}
void CpuOps::affine(const kernels::AffineParams& p) {
  run(CpuOperation::frames, p.height * p.width * p.channels, p, kernels::affine);
}
void CpuOps::upsample(const kernels::UpsampleParams& p) {
  run(CpuOperation::frames, 4 * p.height * p.width * p.channels, p, kernels::upsample);
}
void CpuOps::pixel_unshuffle(const kernels::PixelShuffleParams& p) {
  run(CpuOperation::rearrange, p.height * p.width * p.colours * p.patch * p.patch, p, kernels::pixel_unshuffle);
}
void CpuOps::pixel_shuffle(const kernels::PixelShuffleParams& p) {
  run(CpuOperation::rearrange, p.height * p.width * p.colours * p.patch * p.patch, p, kernels::pixel_shuffle);
}
void CpuOps::average_down(const kernels::AverageDownParams& p) {
  run(CpuOperation::frames, p.height * p.width * p.in * p.time * p.square * p.square, p, kernels::average_down);
}
void CpuOps::repeat_up(const kernels::RepeatUpParams& p) {
  run(CpuOperation::frames, p.height * p.width * p.in * p.time * p.square * p.square, p, kernels::repeat_up);
}
std::shared_ptr<const PackedWeights> CpuBackend::pack(const WeightTable& table, const WeightSource& source) {
  return std::make_shared<const PackedWeights>(table, source);
}

std::shared_ptr<const ProgramWeights> CpuBackend::load(const WeightTable& table, const WeightSource& source,
                                                       Precision wanted) {
  return std::make_shared<const PackedWeights>(table, source, choose_precision(name(), wanted, kCpuPrecisions));
}

std::unique_ptr<Program> CpuBackend::compile(Plan plan, std::shared_ptr<const ProgramWeights> weights) {
  auto packed = std::static_pointer_cast<const PackedWeights>(std::move(weights));  // what this backend's load gave
  if (fused_) return std::make_unique<FusedCpuProgram>(std::move(plan), std::move(packed), ops_);
  return std::make_unique<CpuProgram>(std::move(plan), std::move(packed), ops_);
}

}  // namespace wam
