#include "backend/precision.h"

#include <algorithm>
#include <iterator>

#include "wamcore/error.h"

namespace wam {
namespace {

constexpr const char* kNames[] = {"auto", "float32", "bfloat16", "fp8", "int8"};

}  // namespace

const char* name_of(Precision precision) { return kNames[static_cast<size_t>(precision)]; }

Precision precision_of(const std::string& name) {
  const auto* at = std::find(std::begin(kNames), std::end(kNames), name);
  if (at == std::end(kNames))
    throw ConfigError("load: dtype wants auto, float32, bfloat16, fp8 or int8, got '" + name + "'");
  return static_cast<Precision>(at - std::begin(kNames));
}

Precision choose_precision(std::string_view device, Precision wanted, std::span<const Precision> has) {
  if (wanted == Precision::automatic) return has.front();
  if (std::find(has.begin(), has.end(), wanted) != has.end()) return wanted;
  std::string names = "auto";
  for (const Precision p : has) names += std::string(p == has.back() ? " or " : ", ") + name_of(p);
  throw DeviceError("load: device '" + std::string(device) + "' wants dtype " + names + ", got " + name_of(wanted));
}

}  // namespace wam
