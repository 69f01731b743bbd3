#include "spline.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace wam {
namespace {

/// Pivots of the elimination, 1 / (4 - the one before). After 16 rows they stand still at 2 - sqrt(3) to the last bit.
constexpr std::array<double, 16> kPivots = [] {
  std::array<double, 16> pivots{};
  double pivot = 0.0;
  for (double& p : pivots) p = pivot = 1.0 / (4.0 - pivot);
  return pivots;
}();

}  // namespace

void fit_spline(const double* q, int rows, int dof, double dt, double* curvature) noexcept {
  const size_t n = static_cast<size_t>(rows), d = static_cast<size_t>(dof);
  std::fill(curvature, curvature + n * d, 0.0);
  if (rows < 3) return;
  const double scale = 1.0 / (dt * dt);
  const auto second_difference = [&](size_t i, size_t j) {
    return (q[(i - 1) * d + j] - 2.0 * q[i * d + j] + q[(i + 1) * d + j]) * scale;
  };
  for (size_t j = 0; j < d; ++j) {
    curvature[j] = second_difference(1, j);
    curvature[(n - 1) * d + j] = second_difference(n - 2, j);
  }
  // Inner rows: c[i-1] + 4 c[i] + c[i+1] = 6 * second difference, the same tridiagonal matrix for every joint.
  const auto pivot = [](size_t i) { return kPivots[std::min(i - 1, kPivots.size() - 1)]; };
  for (size_t i = 1; i + 1 < n; ++i)
    for (size_t j = 0; j < d; ++j)
      curvature[i * d + j] = (6.0 * second_difference(i, j) - curvature[(i - 1) * d + j]) * pivot(i);
  for (size_t i = n - 2; i >= 1; --i)
    for (size_t j = 0; j < d; ++j) curvature[i * d + j] -= pivot(i) * curvature[(i + 1) * d + j];
}

void sample_spline(const SplineRows& s, double time, const MotionSpan& out) noexcept {
  const double last = (s.rows - 1) * s.dt;
  if (!(time >= 0.0 && time <= last) || s.rows < 2) {
    const double* row = s.q + (time > last ? static_cast<size_t>(s.rows - 1) * s.dof : 0);
    std::copy(row, row + s.dof, out.q.begin());
    std::fill(out.v.begin(), out.v.end(), 0.0);
    std::fill(out.a.begin(), out.a.end(), 0.0);
    return;
  }
  const int i = std::min(static_cast<int>(time / s.dt), s.rows - 2);
  const double x = time / s.dt - i, y = 1.0 - x;
  const double *q0 = s.q + static_cast<size_t>(i) * s.dof, *q1 = q0 + s.dof;
  const double *c0 = s.curvature + static_cast<size_t>(i) * s.dof, *c1 = c0 + s.dof;
  const double sixth = s.dt * s.dt / 6.0;
  for (int j = 0; j < s.dof; ++j) {
    out.q[j] = y * q0[j] + x * q1[j] + sixth * ((y * y * y - y) * c0[j] + (x * x * x - x) * c1[j]);
    out.v[j] = (q1[j] - q0[j]) / s.dt + s.dt / 6.0 * ((3 * x * x - 1) * c1[j] - (3 * y * y - 1) * c0[j]);
    out.a[j] = y * c0[j] + x * c1[j];
  }
}

}  // namespace wam
