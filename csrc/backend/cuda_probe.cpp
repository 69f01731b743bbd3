#include "backend/cuda_probe.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "wamcore/version.h"

namespace wam {
namespace {

// The little of the driver's interface that probing needs. Its numbers never change; 0 is success.
constexpr int kNoDevice = 100, kCapabilityMajor = 75, kCapabilityMinor = 76;
struct Driver {
  void* library = nullptr;
  int (*init)(unsigned) = nullptr;
  int (*version)(int*) = nullptr;
  int (*count)(int*) = nullptr;
  int (*get)(int*, int) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
  int (*memory)(size_t*, int) = nullptr;

  bool complete() const { return init && version && count && get && name && attribute && memory; }
};

Driver open(const char* library) {
  Driver d;
  // The driver stays loaded, as it would for any program that uses a GPU.
  d.library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!d.library) return d;
  const auto find = [&](auto& f, const char* symbol) {
    f = reinterpret_cast<std::remove_reference_t<decltype(f)>>(dlsym(d.library, symbol));
  };
  find(d.init, "cuInit"), find(d.version, "cuDriverGetVersion"), find(d.count, "cuDeviceGetCount");
  find(d.get, "cuDeviceGet"), find(d.name, "cuDeviceGetName"), find(d.attribute, "cuDeviceGetAttribute");
  find(d.memory, "cuDeviceTotalMem_v2");
  return d;
}

std::string dotted(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }
std::string capability(int sm) { return std::to_string(sm / 10) + "." + std::to_string(sm % 10); }

}  // namespace

GpuFacts ask_driver(int ordinal, const char* library) {
  GpuFacts facts;
  const auto fail = [&](const std::string& why) {
    facts.failure = why;
    return facts;
  };
  const Driver d = open(library);
  if (!d.library) return fail(std::string("no NVIDIA driver was found (") + library + " cannot be loaded).");
  if (!d.complete()) return fail("the NVIDIA driver lacks functions that every release since CUDA 4 has.");
  // The version comes first: it can be had of a driver that is too old for its GPU, or has none.
  d.version(&facts.driver_cuda);
  const int started = d.init(0);
  if (started == kNoDevice) return facts;
  if (started != 0)
    return fail("the NVIDIA driver does not start (cuInit gives error " + std::to_string(started) + ").");
  int device = 0;
  if (d.count(&facts.count) != 0 || ordinal >= facts.count) return facts;
  char name[256] = "";
  int major = 0, minor = 0;
  size_t bytes = 0;
  if (d.get(&device, ordinal) != 0 || d.name(name, sizeof(name) - 1, device) != 0 ||
      d.attribute(&major, kCapabilityMajor, device) != 0 || d.attribute(&minor, kCapabilityMinor, device) != 0 ||
      d.memory(&bytes, device) != 0)
    return fail("the NVIDIA driver does not say what GPU " + std::to_string(ordinal) + " is.");
  facts.name = name;
  facts.capability = 10 * major + minor;
  facts.memory_bytes = bytes;
  return facts;
}

std::string why_not(const BackendPlugin& plugin) {
  const std::string wanted = "build library and plugin together.";
  if (plugin.abi != kBackendAbi)
    return "libwamcore_cuda.so has ABI " + std::to_string(plugin.abi) + ", libwamcore wants " +
           std::to_string(kBackendAbi) + ": " + wanted;
  if (!plugin.version || plugin.version != std::string(WAMCORE_VERSION))
    return std::string("libwamcore_cuda.so is of version ") + (plugin.version ? plugin.version : "?") +
           ", libwamcore of " WAMCORE_VERSION ": " + wanted;
  return "";
}

std::string why_not(const BackendPlugin& plugin, const GpuFacts& gpu, int ordinal) {
  if (!gpu.failure.empty()) return gpu.failure;
  const int oldest = plugin.toolkit / 1000 * 1000;  // drivers run every minor release of a major one they know
  if (gpu.driver_cuda < oldest)
    return "the NVIDIA driver is too old: it supports CUDA " + dotted(gpu.driver_cuda) + ", this build wants " +
           dotted(oldest) + " or newer.";
  if (gpu.count == 0) return "the NVIDIA driver shows no GPU to this process.";
  if (ordinal >= gpu.count)
    return "there is no GPU " + std::to_string(ordinal) + ": the NVIDIA driver shows " + std::to_string(gpu.count) +
           ", counted from 0.";
  // Machine code runs on later minor revisions of its own generation; PTX is translated for anything newer.
  const bool coded = std::any_of(plugin.real, plugin.real + plugin.real_count,
                                 [&](int sm) { return sm / 10 == gpu.capability / 10 && sm <= gpu.capability; });
  if (coded || (plugin.ptx && gpu.capability >= plugin.ptx)) return "";
  std::string have;
  for (int i = 0; i < plugin.real_count; ++i) have += (i ? ", " : "") + capability(plugin.real[i]);
  if (plugin.ptx) have += (have.empty() ? "" : " and ") + capability(plugin.ptx) + " or newer by PTX";
  return "the GPU " + gpu.name + " has compute capability " + capability(gpu.capability) +
         ", this build has code for " + have + ".";
}

std::string fp8_path(const BackendPlugin& plugin, const GpuFacts& gpu) {
  if (gpu.capability < 89)
    return "no fp8 (its instructions begin with compute capability 8.9, this is " + capability(gpu.capability) + ")";
  const char* wanted = std::getenv("WAMCORE_CUDA_KERNELS");
  const bool by_sm80 = wanted && std::string(wanted) == "sm80";
  if (gpu.capability == 90 && plugin.sm90a && !by_sm80) return "fp8 by wgmma (sm_90a)";
  // Tensor cores of 10.x and 11.x know e4m3 by tcgen05 alone, for which there is no kernel.
  if (gpu.capability / 10 == 10 || gpu.capability / 10 == 11)
    return "fp8 by mma.sync (sm_89), emulated on " + capability(gpu.capability);
  if (gpu.capability != 90) return "fp8 by mma.sync (sm_89)";
  return std::string("fp8 by mma.sync (sm_89), emulated on 9.0, since ") +
         (by_sm80 ? "WAMCORE_CUDA_KERNELS is sm80" : "this build has no kernels for sm_90a");
}

}  // namespace wam
