#include "session/synthetic_weights.h"

#include <algorithm>
#include <cmath>

#include "session/noise.h"

namespace wam {
namespace {

constexpr size_t kPool = (size_t{1} << 20) + 7;  // odd, so that rows of a matrix do not repeat

struct Spread {
  float mean, deviation;
};
Spread spread(const std::string& name, const Shape& shape) {
  const bool norm = name.find("norm") != std::string::npos || name.find("gamma") != std::string::npos;
  if (shape.size() < 2) return {norm && name.find("bias") == std::string::npos ? 1.0f : 0.0f, 0.1f};
  if (norm) return {1.0f, 0.1f};
  return {0.0f, 1.0f / std::sqrt(static_cast<float>(std::max<int64_t>(numel(shape) / shape[0], 1)))};
}

// FNV-1a: the same with every compiler, which std::hash is not.
size_t place(const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return static_cast<size_t>(hash % kPool);
}

}  // namespace

SyntheticWeights::SyntheticWeights(uint64_t seed) : pool_(kPool) {
  fill_normal(seed, pool_.data(), static_cast<int64_t>(kPool));
}

Tensor SyntheticWeights::draw(const std::string& name, const Shape& shape) const {
  Tensor out(shape);
  const Spread s = spread(name, shape);
  float* to = out.data<float>();
  size_t at = place(name);
  for (int64_t left = out.numel(); left > 0; at = 0) {
    const auto n = static_cast<size_t>(std::min(left, static_cast<int64_t>(kPool - at)));
    std::transform(pool_.begin() + static_cast<ptrdiff_t>(at), pool_.begin() + static_cast<ptrdiff_t>(at + n), to,
                   [s](float z) { return s.mean + s.deviation * z; });
    to += n, left -= static_cast<int64_t>(n);
  }
  return out;
}

}  // namespace wam
