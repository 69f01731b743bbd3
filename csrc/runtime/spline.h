#pragma once

#include <span>

namespace wam {

/// Position (rad), velocity (rad/s) and acceleration (rad/s^2) of all joints at one instant; storage of the caller.
struct MotionSpan {
  std::span<double> q;  // [dof]
  std::span<double> v;  // [dof]
  std::span<double> a;  // [dof]
};

/// The rows of a chunk with the second derivatives that make them a C2 cubic spline.
struct SplineRows {
  const double* q = nullptr;          // [rows, dof] rad
  const double* curvature = nullptr;  // [rows, dof] rad/s^2, from fit_spline
  int rows = 0;
  int dof = 0;
  double dt = 0.0;  // s between rows
};

/// Second derivatives at the rows of the interpolating cubic spline into `curvature` [rows, dof], rad/s^2. At both ends
/// the second difference of the three nearest rows stands for the unknown curvature; fewer than three rows give zero.
void fit_spline(const double* q, int rows, int dof, double dt, double* curvature) noexcept;

/// The spline at `time` s after row 0; times outside [0, (rows - 1) dt] give the end row at rest.
void sample_spline(const SplineRows& rows, double time, const MotionSpan& out) noexcept;

}  // namespace wam
