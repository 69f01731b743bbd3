#pragma once

#include <vector>

#include "wamcore/chunk.h"

namespace wam {

/// Temporal ensembling (Zhao et al., ACT): a row is the weighted mean of what all chunks say about its tick, the oldest
/// weighing 1 and the i-th after it exp(-decay i). It smooths, and it averages modes: where the data has two ways round
/// an obstacle the mean goes through it. That is why it is no default.
class Ensemble {
 public:
  explicit Ensemble(double decay) : decay_(decay) {}
  /// Remembers `chunk` and puts the means in its rows. Chunks of another epoch are forgotten.
  void add(ActionChunk& chunk);

 private:
  double decay_;
  std::vector<ActionChunk> chunks_;  // oldest first, those that still have rows
};

}  // namespace wam
