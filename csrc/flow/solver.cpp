#include "flow/solver.h"

#include <cmath>
#include <utility>

namespace wam {

std::vector<SolverStep> solver_steps(SolverKind kind, const std::vector<double>& s) {
  const int steps = static_cast<int>(s.size()) - 1;
  const auto alpha = [&](int i) { return 1.0 - s[static_cast<size_t>(i)]; };
  const auto sigma = [&](int i) { return s[static_cast<size_t>(i)]; };
  const auto lambda = [&](int i) { return std::log(alpha(i) / sigma(i)); };
  std::vector<SolverStep> table;
  int order_before = 0;
  for (int i = 0; i < steps; ++i) {
    if (kind == SolverKind::euler) {
      table.push_back({.data_x = 0.0, .data_v = 1.0, .next_m0 = sigma(i + 1) - sigma(i)});
      continue;
    }
    SolverStep c{.data_x = 1.0, .data_v = -sigma(i), .next_x = 0.0};
    if (i > 0) {  // corrector
      c.fix_x = 0.0;
      const double h = lambda(i) - lambda(i - 1), b = std::expm1(-h), scale = -alpha(i) * b;
      c.fix_last = sigma(i) / sigma(i - 1);
      if (order_before == 1) {
        c.fix_m0 = scale * 0.5;
        c.fix_m1 = scale * 0.5;
      } else {
        const double r = (lambda(i - 2) - lambda(i - 1)) / h, phi1 = b / -h - 1.0, phi2 = phi1 / -h - 0.5;
        // [[1, 1], [r, 1]] rho = [phi1 / b, 2 phi2 / b]
        const double rho1 = (phi1 / b - 2.0 * phi2 / b) / (1.0 - r), rho2 = phi1 / b - rho1;
        c.fix_m0 = scale * rho2;
        c.fix_m1 = scale * (1.0 - rho1 / r - rho2);
        c.fix_m2 = scale * rho1 / r;
      }
    }
    const int order = std::min({2, steps - i, i + 1});
    if (sigma(i + 1) == 0.0) {
      c.next_m0 = 1.0;
    } else {  // predictor
      const double h = lambda(i + 1) - lambda(i), scale = -alpha(i + 1) * std::expm1(-h);
      c.next_x = sigma(i + 1) / sigma(i);
      c.next_m0 = scale;
      if (order == 2) {
        const double half = 0.5 / ((lambda(i - 1) - lambda(i)) / h);
        c.next_m0 = scale * (1.0 - half);
        c.next_m1 = scale * half;
      }
    }
    order_before = order;
    table.push_back(c);
  }
  return table;
}

Solver::Solver(SolverKind kind, const std::vector<double>& sigma, int64_t size)
    : kind_(kind), size_(size), table_(solver_steps(kind, sigma)) {
  if (kind_ == SolverKind::euler) return;
  last_ = Tensor({size});
  for (Tensor& m : data_) m = Tensor({size});
}

void Solver::step(int i, float* x, const float* velocity, Ops& ops) {
  const SolverStep& c = table_[static_cast<size_t>(i)];
  if (kind_ == SolverKind::euler)
    return ops.combine({.out = x, .n = size_, .count = 2, .term = {x, velocity}, .coefficient = {1.0, c.next_m0}});
  std::swap(data_[2], data_[1]);
  std::swap(data_[1], data_[0]);
  float *m0 = data_[0].data<float>(), *m1 = data_[1].data<float>(), *m2 = data_[2].data<float>();
  float* last = last_.data<float>();
  ops.combine({.out = m0, .n = size_, .count = 2, .term = {x, velocity}, .coefficient = {c.data_x, c.data_v}});
  if (i == 0)
    ops.combine({.out = last, .n = size_, .count = 1, .term = {x}, .coefficient = {1.0}});
  else
    ops.combine({.out = last,
                 .n = size_,
                 .count = i > 1 ? 4 : 3,
                 .term = {last, m0, m1, m2},
                 .coefficient = {c.fix_last, c.fix_m0, c.fix_m1, c.fix_m2}});
  ops.combine({.out = x,
               .n = size_,
               .count = i > 0 ? 3 : 2,
               .term = {last, m0, m1},
               .coefficient = {c.next_x, c.next_m0, c.next_m1}});
}

}  // namespace wam
