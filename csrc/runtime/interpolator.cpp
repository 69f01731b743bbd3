#include "interpolator.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace wam {

Interpolator::Interpolator(int dof, int64_t tick_ns)
    : tick_ns_(tick_ns),
      coefficients_(static_cast<size_t>(dof) * 6),
      q_(dof),
      v_(dof),
      a_(dof),
      counts_(static_cast<size_t>(dof), true) {}

double Interpolator::chunk_time(const Waypoints& w, int64_t position_ns) const noexcept {
  // Difference first, in integers: a robot that runs for days loses no precision.
  const int64_t since = position_ns - w.chunk.obs_tick * tick_ns_;
  return static_cast<double>(since) / static_cast<double>(tick_ns_) * w.chunk.dt;
}

double Interpolator::switch_to(Waypoints* next, int64_t position_ns, int64_t blend_ns,
                               const MotionSpan& from) noexcept {
  current_ = next;
  sample_spline(next->rows(), chunk_time(*next, position_ns), {q_, v_, a_});
  double gap = 0.0;
  for (size_t j = 0; j < q_.size(); ++j)
    if (counts_[j]) gap = std::max(gap, std::abs(from.q[j] - q_[j]));
  blend_start_ns_ = position_ns;
  blend_s_ = static_cast<double>(blend_ns) * 1e-9;
  if (blend_ns <= 0) return gap;
  const double t = blend_s_, t2 = t * t, t3 = t2 * t;
  for (size_t j = 0; j < q_.size(); ++j) {
    // e(0), e'(0), e''(0) as given; e = e' = e'' = 0 after t seconds.
    const double e0 = from.q[j] - q_[j], e1 = from.v[j] - v_[j], e2 = from.a[j] - a_[j];
    double* c = &coefficients_[j * 6];
    c[0] = e0;
    c[1] = e1;
    c[2] = 0.5 * e2;
    c[3] = -(20 * e0 + 12 * e1 * t + 3 * e2 * t2) / (2 * t3);
    c[4] = (30 * e0 + 16 * e1 * t + 3 * e2 * t2) / (2 * t3 * t);
    c[5] = -(12 * e0 + 6 * e1 * t + e2 * t2) / (2 * t3 * t2);
  }
  return gap;
}

Waypoints* Interpolator::release() noexcept {
  blend_s_ = 0.0;
  return std::exchange(current_, nullptr);
}

bool Interpolator::sample(int64_t position_ns, const MotionSpan& out) const noexcept {
  if (!current_) return false;
  const double time = chunk_time(*current_, position_ns);
  if (!(time >= 0.0 && time <= (current_->chunk.horizon - 1) * current_->chunk.dt)) return false;
  sample_spline(current_->rows(), time, out);
  const double t = static_cast<double>(position_ns - blend_start_ns_) * 1e-9;
  if (!(t >= 0.0 && t < blend_s_)) return true;
  for (size_t j = 0; j < out.q.size(); ++j) {
    const double* c = &coefficients_[j * 6];
    out.q[j] += c[0] + t * (c[1] + t * (c[2] + t * (c[3] + t * (c[4] + t * c[5]))));
    out.v[j] += c[1] + t * (2 * c[2] + t * (3 * c[3] + t * (4 * c[4] + t * 5 * c[5])));
    out.a[j] += 2 * c[2] + t * (6 * c[3] + t * (12 * c[4] + t * 20 * c[5]));
  }
  return true;
}

}  // namespace wam
