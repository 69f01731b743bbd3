// A stand-in for libcuda.so.1 that says what the environment tells it to: WAMCORE_FAKE_DRIVER holds
// "<cuInit result> <CUDA version> <GPUs> <capability>".
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

struct Facts {
  int init = 0, version = 0, count = 0, capability = 0;
};
Facts facts() {
  Facts f;
  const char* text = std::getenv("WAMCORE_FAKE_DRIVER");
  if (!text || std::sscanf(text, "%d %d %d %d", &f.init, &f.version, &f.count, &f.capability) != 4) std::abort();
  return f;
}

}  // namespace

#define FAKE extern "C" __attribute__((visibility("default"))) int
FAKE cuInit(unsigned) { return facts().init; }
FAKE cuDriverGetVersion(int* version) { return *version = facts().version, 0; }
FAKE cuDeviceGetCount(int* count) { return *count = facts().count, 0; }
FAKE cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
FAKE cuDeviceGetName(char* name, int bytes, int) { return std::snprintf(name, size_t(bytes), "Test GPU"), 0; }
FAKE cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = attribute == 75 ? facts().capability / 10 : facts().capability % 10;
  return attribute == 75 || attribute == 76 ? 0 : 1;
}
FAKE cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = size_t{16} << 30, 0; }
