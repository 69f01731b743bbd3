#pragma once

#include <cstdint>
#include <vector>

#include "wamcore/tensor.h"

namespace wam {

/// Which steps of a chunk run the model; on the others the last velocity is used again and the solver still steps.
struct StepSkip {
  std::vector<bool> mask;  // static: run step i? empty: all
  bool dynamic = false;    // by the similarity of the last two executed velocities instead
};

/// The static masks of the DreamZero release by number of executed steps (5 to 8 of 16); any other number: all.
std::vector<bool> static_step_mask(int executed);

/// Decides step by step within one chunk.
class StepSkipper {
 public:
  StepSkipper(StepSkip rule, int64_t size);
  void begin();                          // a new chunk
  bool run(int step);                    // asked once a step, in order
  void executed(const float* velocity);  // [size], after a step that ran

 private:
  double similarity() const;

  StepSkip rule_;
  int64_t size_;
  int countdown_ = 0;
  int seen_ = 0;
  Tensor history_[2];  // the newest in [seen_ % 2]
};

}  // namespace wam
