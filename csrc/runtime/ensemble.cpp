#include "ensemble.h"

#include <cmath>

namespace wam {

void Ensemble::add(ActionChunk& chunk) {
  std::erase_if(chunks_, [&](const ActionChunk& old) {
    return old.epoch != chunk.epoch || old.obs_tick + old.horizon <= chunk.obs_tick;
  });
  chunks_.push_back(chunk);
  for (int i = 0; i < chunk.horizon; ++i) {
    double weight = 1.0, total = 0.0;
    double* mean = chunk.q.data() + static_cast<size_t>(i) * static_cast<size_t>(chunk.dof);
    for (int j = 0; j < chunk.dof; ++j) mean[j] = 0.0;
    for (const ActionChunk& c : chunks_) {
      const int64_t row = chunk.obs_tick + i - c.obs_tick;
      if (row < 0 || row >= c.horizon) continue;
      for (int j = 0; j < chunk.dof; ++j) mean[j] += weight * c.row(static_cast<int>(row))[j];
      total += weight;
      weight *= std::exp(-decay_);
    }
    for (int j = 0; j < chunk.dof; ++j) mean[j] /= total;
  }
}

}  // namespace wam
