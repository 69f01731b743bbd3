#pragma once

#include <cstdint>
#include <vector>

#include "backend/chunk.h"
#include "backend/ops.h"
#include "wamcore/tensor.h"

namespace wam {

enum class SolverKind : uint8_t { unipc, euler };

/// The steps between neighbours of `sigma` as the numbers they multiply with: they depend on the schedule alone.
std::vector<SolverStep> solver_steps(SolverKind kind, const std::vector<double>& sigma);

/// Integrates one modality's flow. UniPC: order 2, bh2, predicting the data, lower order at the end (Zhao et al. 2023).
/// Every coefficient depends on the schedule alone and is computed once.
class Solver {
 public:
  Solver(SolverKind kind, const std::vector<double>& sigma, int64_t size);

  /// One step from sigma[i] to sigma[i + 1]: x [size] in place, velocity [size]. Steps are taken in order from 0.
  void step(int i, float* x, const float* velocity, Ops& ops);

 private:
  SolverKind kind_;
  int64_t size_;
  std::vector<SolverStep> table_;
  Tensor last_, data_[3];  // corrected sample of the step before; m of this step and the two before
};

}  // namespace wam
