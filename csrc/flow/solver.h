#pragma once

#include <cstdint>
#include <vector>

#include "backend/ops.h"
#include "wamcore/tensor.h"

namespace wam {

enum class SolverKind : uint8_t { unipc, euler };

/// Integrates one modality's flow. UniPC: order 2, bh2, predicting the data, lower order at the end (Zhao et al. 2023).
/// Every coefficient depends on the schedule alone and is computed once.
class Solver {
 public:
  Solver(SolverKind kind, const std::vector<double>& sigma, int64_t size);

  /// One step from sigma[i] to sigma[i + 1]: x [size] in place, velocity [size]. Steps are taken in order from 0.
  void step(int i, float* x, const float* velocity, Ops& ops);

 private:
  struct Coefficients {
    double data_x = 0, data_v = 0;                            // m_i = data_x x + data_v v
    double fix_last = 0, fix_m0 = 0, fix_m1 = 0, fix_m2 = 0;  // corrected x from last, m_i, m_{i-1}, m_{i-2}
    double next_x = 0, next_m0 = 0, next_m1 = 0;              // x_{i+1} from corrected x, m_i, m_{i-1}
  };
  void prepare(const std::vector<double>& sigma);

  SolverKind kind_;
  int64_t size_;
  std::vector<double> sigma_;
  std::vector<Coefficients> table_;
  Tensor last_, data_[3];  // corrected sample of the step before; m of this step and the two before
};

}  // namespace wam
