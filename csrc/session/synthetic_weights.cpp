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

SyntheticWeights::SyntheticWeights(uint64_t seed) : pool_(kPool), threads_(available_cpus()) {
  fill_normal(seed, pool_.data(), static_cast<int64_t>(kPool));
}

Tensor SyntheticWeights::draw(const std::string& name, const Shape& shape) const {
  Tensor out = Tensor::uninitialized(shape);
  const Spread s = spread(name, shape);
  const size_t first = place(name);
  float* const to = out.data<float>();
  const auto fill = [&](int64_t begin, int64_t end) {
    size_t at = (first + static_cast<size_t>(begin)) % kPool;
    for (int64_t i = begin; i < end; at = 0) {
      const int64_t n = std::min(end - i, static_cast<int64_t>(kPool - at));
      std::transform(pool_.begin() + static_cast<ptrdiff_t>(at), pool_.begin() + static_cast<ptrdiff_t>(at) + n, to + i,
                     [s](float z) { return s.mean + s.deviation * z; });
      i += n;
    }
  };
  threads_.run([&](const kernels::Team& team) {
    const auto [begin, end] = team.share(out.numel(), 1 << 16);
    fill(begin, end);
  });
  return out;
}

}  // namespace wam
