// The only place that knows there is a plugin.
#include "backend/cuda_loader.h"

#include <dlfcn.h>
#include <unistd.h>

#include <cstdlib>

namespace wam {
namespace {

struct Loaded {
  const BackendPlugin* plugin = nullptr;
  std::string problem;
};

// The folder of the file that this code was loaded from.
std::string own_folder() {
  Dl_info info{};
  if (!dladdr(reinterpret_cast<void*>(&cuda_state), &info) || !info.dli_fname) return "";
  const std::string file = info.dli_fname;
  const size_t slash = file.rfind('/');
  return slash == std::string::npos ? "./" : file.substr(0, slash + 1);
}

Loaded load() {
  const char* named = std::getenv("WAMCORE_CUDA_PLUGIN");  // one that was built elsewhere, of the same version
  const std::string file = named && *named ? named : own_folder() + "libwamcore_cuda.so";
  if (access(file.c_str(), F_OK) != 0)
    return {nullptr, named && *named
                         ? "WAMCORE_CUDA_PLUGIN names " + file + ", which is not there."
                         : "this build of wamcore has no CUDA plugin: install with WAMCORE_CUDA=1 in the environment."};
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return {nullptr, std::string("the CUDA plugin cannot be loaded: ") + dlerror() + "."};
  const auto entry = reinterpret_cast<decltype(&wam_backend_v1)>(dlsym(handle, "wam_backend_v1"));
  if (!entry) return {nullptr, "libwamcore_cuda.so has no entry wam_backend_v1: build library and plugin together."};
  const BackendPlugin* plugin = entry();
  std::string problem = why_not(*plugin);
  return {problem.empty() ? plugin : nullptr, problem};
}

}  // namespace

std::string CudaState::describe() const {
  return gpu.name + ", compute capability " + std::to_string(gpu.capability / 10) + "." +
         std::to_string(gpu.capability % 10) + ", " + std::to_string(gpu.memory_bytes >> 30) +
         " GiB, driver for CUDA " + std::to_string(gpu.driver_cuda / 1000) + "." +
         std::to_string(gpu.driver_cuda % 1000 / 10) + ", " + fp8_path(*plugin, gpu);
}

CudaState cuda_state(int ordinal) {
  static const Loaded loaded = load();
  CudaState state{.plugin = loaded.plugin, .gpu = {}, .problem = loaded.problem};
  if (!state.plugin) return state;
  state.gpu = ask_driver(ordinal);
  state.problem = why_not(*state.plugin, state.gpu, ordinal);
  return state;
}

}  // namespace wam
