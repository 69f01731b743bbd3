#include "backend/backend.h"

#include <algorithm>
#include <stdexcept>

#include "backend/cpu_backend.h"
#include "backend/cuda_loader.h"
#include "core/thread_pool.h"
#include "wamcore/error.h"
#include "wamcore/kernels/isa.h"

namespace wam {
namespace {

// "cuda" is the first GPU, "cuda:2" the third; -1: no name of a GPU.
int gpu_ordinal(const std::string& device) {
  if (device == "cuda") return 0;
  if (device.size() < 6 || device.size() > 7 || device.compare(0, 5, "cuda:") != 0) return -1;
  int ordinal = 0;
  for (const char c : device.substr(5)) {
    if (c < '0' || c > '9') return -1;
    ordinal = 10 * ordinal + (c - '0');
  }
  return ordinal;
}

std::shared_ptr<float> host_floats(int64_t count) {
  auto tensor = std::make_shared<Tensor>(Shape{count});
  return {tensor, tensor->data<float>()};
}

}  // namespace

std::unique_ptr<ChunkSampler> Backend::chunks(const std::vector<ChunkSpec>&) { return nullptr; }

void Backend::time_operations(bool on) {
  if (on) throw DeviceError("time_operations: wanted a model on the CPU, got device '" + std::string(name()) + "'");
}

std::shared_ptr<float> Backend::allocate_keys(int64_t rows, int64_t heads, int64_t head_dim) {
  return host_floats(rows * heads * head_dim);
}
std::shared_ptr<float> Backend::allocate_workspace(int64_t floats) { return host_floats(floats); }

void Backend::read_keys(const float* keys, RowRange range, int64_t heads, int64_t head_dim, float* to) {
  const int64_t inner = heads * head_dim;
  std::copy_n(keys + range.begin * inner, range.rows * inner, to);
}

void Backend::write_keys(float* keys, RowRange range, int64_t heads, int64_t head_dim, const float* from) {
  const int64_t inner = heads * head_dim;
  std::copy_n(from, range.rows * inner, keys + range.begin * inner);
}

std::string cpu_isa(Precision precision) try {
  switch (choose_precision("cpu", precision, kCpuPrecisions)) {
    case Precision::int8:
      return kernels::isa_name(kernels::int8_isa());
    case Precision::bfloat16:
      return kernels::isa_name(kernels::bf16_isa());
    default:
      return kernels::isa_name(kernels::isa());
  }
} catch (const std::invalid_argument& e) {
  throw DeviceError(e.what());
}

std::shared_ptr<Backend> make_backend(const std::string& device, std::optional<int> wanted, std::vector<int> cores) {
  const int threads = wanted.value_or(cores.empty() ? available_cpus() : static_cast<int>(cores.size()));
  if (threads < 1 || threads > kMostThreads)
    throw DeviceError("make_backend: threads must be 1 to " + std::to_string(kMostThreads) + ", got " +
                      std::to_string(threads));
  cpu_isa();  // a wrong name is an error here, not in the middle of a pass
  if (device == "cpu" || device == "auto")
    return std::make_shared<CpuBackend>(threads, std::move(cores), /*fused=*/true);
  if (device == "cpu-ops") return std::make_shared<CpuBackend>(threads, std::move(cores), /*fused=*/false);
  if (const int ordinal = gpu_ordinal(device); ordinal >= 0) {
    if (!cores.empty()) throw ConfigError("make_backend: cores pin the threads of a CPU, got device '" + device + "'");
    const CudaState state = cuda_state(ordinal);
    if (!state.problem.empty())
      throw DeviceError("make_backend: device '" + device + "' cannot be used: " + state.problem);
    return std::shared_ptr<Backend>(state.plugin->make(ordinal, threads));
  }
  throw DeviceError("make_backend: device must be auto, cpu, cpu-ops, cuda or cuda:N, got '" + device + "'");
}

}  // namespace wam
