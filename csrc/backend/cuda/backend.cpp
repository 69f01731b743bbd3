#include "backend/cuda/backend.h"

#include "backend/cuda/chunk.h"
#include "backend/cuda/program.h"
#include "wamcore/error.h"

namespace wam::cuda {
namespace {

const char* precision_of_kernel(std::string_view kernel) {
  if (kernel == "gemm_fp8") return "e4m3, sums in float32";
  return kernel == "quantize_rows" ? "bfloat16 to e4m3" : "bfloat16, sums in float32";
}

}  // namespace

std::shared_ptr<const ProgramWeights> CudaBackend::load(const WeightTable& table, const WeightSource& source,
                                                        Precision wanted) {
  constexpr Precision kHas[] = {Precision::bfloat16, Precision::fp8};  // the first is what "auto" gives
  const Precision precision = choose_precision(name(), wanted, kHas);
  if (precision == Precision::fp8 && !device_->fp8())
    throw DeviceError("load: dtype fp8 wants a GPU of compute capability 8.9 or later, got " +
                      std::to_string(device_->capability() / 10) + "." + std::to_string(device_->capability() % 10));
  check_room(table, precision);
  return std::make_shared<const DeviceWeights>(device_, table, source, precision);
}

// Before anything is read: loading a checkpoint takes long.
void CudaBackend::check_room(const WeightTable& table, Precision precision) const {
  size_t need = 0;
  for (const WeightSpec& spec : table.specs())
    need += static_cast<size_t>(numel(spec.shape)) * (spec.use == WeightUse::vector ? sizeof(bf16) + sizeof(float)
                                                      : precision == Precision::fp8 ? 1
                                                                                    : sizeof(bf16));
  const size_t free = device_->free_bytes();
  if (need > free)
    throw DeviceError("cuda: out of memory: the transformer's weights need " + mib(need) + ", " + mib(free) +
                      " are free; a GPU with that much would do" +
                      (precision != Precision::fp8 && device_->fp8() ? ", or dtype fp8, which needs half" : ""));
}

std::unique_ptr<Program> CudaBackend::compile(Plan plan, std::shared_ptr<const ProgramWeights> weights) {
  return std::make_unique<CudaProgram>(std::move(plan), std::static_pointer_cast<const DeviceWeights>(weights));
}

std::unique_ptr<ChunkSampler> CudaBackend::chunks(const std::vector<ChunkSpec>& specs) {
  return whole_chunks_ ? std::make_unique<CudaChunks>(device_, specs) : nullptr;
}

std::vector<OperationReport> CudaBackend::operations() const {
  std::vector<OperationReport> out = cpu_->operations();
  const Device::Detours detours = device_->detours();
  for (const auto& [kernel, times] : device_->counts()) {
    const auto detour = detours.find(kernel);
    out.push_back({.operation = kernel,
                   .kernel = detour == detours.end() ? "cuda" : "cuda, some by mma.sync: " + detour->second,
                   .precision = precision_of_kernel(kernel),
                   .runs = times});
  }
  return out;
}

// The pointer is of the device: nobody but programs may follow it.
std::shared_ptr<float> CudaBackend::allocate(size_t bytes) {
  auto* at = static_cast<float*>(device_->allocate(bytes));
  return {at, [device = device_](float* p) { device->release(p); }};
}

std::shared_ptr<float> CudaBackend::allocate_keys(int64_t rows, int64_t heads, int64_t head_dim) {
  return allocate(key_bytes(rows, heads, head_dim));
}

size_t CudaBackend::key_bytes(int64_t rows, int64_t heads, int64_t head_dim) const {
  return static_cast<size_t>(rows * heads * head_pitch(head_dim)) * sizeof(bf16);
}

std::shared_ptr<float> CudaBackend::allocate_workspace(int64_t floats) {
  return allocate(static_cast<size_t>(floats) * sizeof(float));
}

void CudaBackend::read_keys(const float* keys, RowRange range, int64_t heads, int64_t head_dim, float* to) {
  const int64_t pitch = head_pitch(head_dim), wide = heads * pitch;
  std::vector<bf16> rows(static_cast<size_t>(range.rows * wide));
  device_->download(rows.data(), reinterpret_cast<const bf16*>(keys) + range.begin * wide, rows.size() * sizeof(bf16));
  for (int64_t i = 0; i < range.rows * heads; ++i)
    for (int64_t d = 0; d < head_dim; ++d)
      to[i * head_dim + d] = kc::to_float(rows[static_cast<size_t>(i * pitch + d)]);
}

void CudaBackend::write_keys(float* keys, RowRange range, int64_t heads, int64_t head_dim, const float* from) {
  const int64_t pitch = head_pitch(head_dim), wide = heads * pitch;
  std::vector<bf16> rows(static_cast<size_t>(range.rows * wide), bf16{0});
  for (int64_t i = 0; i < range.rows * heads; ++i)
    for (int64_t d = 0; d < head_dim; ++d)
      rows[static_cast<size_t>(i * pitch + d)] = kc::to_bf16(from[i * head_dim + d]);
  device_->upload(reinterpret_cast<bf16*>(keys) + range.begin * wide, rows.data(), rows.size() * sizeof(bf16));
}

}  // namespace wam::cuda
