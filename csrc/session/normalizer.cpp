#include "session/normalizer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "wamcore/error.h"

namespace wam {
namespace {

double clip(double x) { return std::clamp(x, -1.0, 1.0); }

double normalized(const ChannelGroup& g, size_t i, double x) {
  const ChannelStatistics& s = g.statistics;
  if (g.mode == "q99") return clip(s.q01[i] == s.q99[i] ? x : 2.0 * (x - s.q01[i]) / (s.q99[i] - s.q01[i]) - 1.0);
  if (g.mode == "min_max") return clip(s.min[i] == s.max[i] ? 0.0 : 2.0 * (x - s.min[i]) / (s.max[i] - s.min[i]) - 1.0);
  if (g.mode == "mean_std") return s.std[i] == 0.0 ? x : (x - s.mean[i]) / s.std[i];
  if (g.mode == "binary") return x > 0.5 ? 1.0 : 0.0;
  if (g.mode == "scale") {
    const double most = std::max(std::abs(s.min[i]), std::abs(s.max[i]));
    return most == 0.0 ? 0.0 : x / most;
  }
  return x;
}

double denormalized(const ChannelGroup& g, size_t i, double x) {
  const ChannelStatistics& s = g.statistics;
  if (g.mode == "q99") return (x + 1.0) / 2.0 * (s.q99[i] - s.q01[i]) + s.q01[i];
  if (g.mode == "min_max") return (x + 1.0) / 2.0 * (s.max[i] - s.min[i]) + s.min[i];
  if (g.mode == "mean_std") return x * s.std[i] + s.mean[i];
  if (g.mode == "binary") return x > 0.5 ? 1.0 : 0.0;
  if (g.mode == "scale") throw ConfigError("Normalizer: mode scale has no inverse");
  return x;
}

double renormalized(const ChannelGroup& g, size_t i, double x) {
  constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
  const ChannelStatistics& s = g.statistics;
  if (g.mode == "q99") return s.q01[i] == s.q99[i] ? kNone : 2.0 * (x - s.q01[i]) / (s.q99[i] - s.q01[i]) - 1.0;
  if (g.mode == "min_max") return s.min[i] == s.max[i] ? kNone : 2.0 * (x - s.min[i]) / (s.max[i] - s.min[i]) - 1.0;
  if (g.mode == "mean_std") return s.std[i] == 0.0 ? kNone : (x - s.mean[i]) / s.std[i];
  return g.mode == "scale" ? kNone : x;
}

}  // namespace

Normalizer::Normalizer(std::vector<ChannelGroup> groups) : groups_(std::move(groups)) {
  for (const ChannelGroup& g : groups_) dim_ += g.dim;
}

void Normalizer::normalize(double* row) const {
  for (const ChannelGroup& g : groups_)
    for (int i = 0; i < g.dim; ++i, ++row) *row = normalized(g, static_cast<size_t>(i), *row);
}

template <typename Map>
void Normalizer::each(double* values, int rows, Map map) const {
  for (const ChannelGroup& g : groups_)
    if (g.per_horizon && rows > g.statistics.rows)
      throw ShapeError("Normalizer: '" + g.key + "' has statistics for " + std::to_string(g.statistics.rows) +
                       " steps, got " + std::to_string(rows) + " rows");
  for (int row = 0; row < rows; ++row)
    for (const ChannelGroup& g : groups_) {
      const size_t first = g.per_horizon ? static_cast<size_t>(row) * static_cast<size_t>(g.dim) : 0;
      for (int i = 0; i < g.dim; ++i, ++values) *values = map(g, first + static_cast<size_t>(i), *values);
    }
}

void Normalizer::denormalize(double* values, int rows) const { each(values, rows, denormalized); }

void Normalizer::renormalize(double* values, int rows) const { each(values, rows, renormalized); }

void add_relative_state(const Embodiment& e, const double* state, double* q, int rows) {
  int column = 0;
  for (const ChannelGroup& g : e.action) {
    int from = 0;
    for (const ChannelGroup& s : e.state) {
      if (s.key == g.key && g.relative)
        for (int row = 0; row < rows; ++row)
          for (int i = 0; i < g.dim; ++i) q[row * e.action_dim() + column + i] += state[from + i];
      from += s.dim;
    }
    column += g.dim;
  }
}

}  // namespace wam
