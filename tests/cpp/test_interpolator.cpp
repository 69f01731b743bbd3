// The reference motion: exact at the rows, C2 between them and across seams, on fresh random chunks.
#include <memory>
#include <numbers>

#include "check.h"
#include "fresh.h"
#include "runtime/interpolator.h"
#include "runtime/timeline.h"

using namespace wam;
using check::integer;
using check::uniform;

namespace {

constexpr int64_t kTick = 100'000'000;  // ns

struct Motion {
  std::vector<double> q, v, a;
  explicit Motion(int dof) : q(dof), v(dof), a(dof) {}
  MotionSpan span() { return {q, v, a}; }
};

Waypoints waypoints(int rows, int dof, int64_t obs_tick, double dt, auto&& value) {
  Waypoints w;
  w.chunk.horizon = rows;
  w.chunk.dof = dof;
  w.chunk.dt = dt;
  w.chunk.obs_tick = obs_tick;
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < dof; ++j) w.chunk.q.push_back(value(i, j));
  w.curvature.resize(w.chunk.q.size());
  fit_spline(w.chunk.q.data(), rows, dof, dt, w.curvature.data());
  return w;
}

Waypoints random_waypoints(int rows, int dof, int64_t obs_tick) {
  return waypoints(rows, dof, obs_tick, 0.1, [](int, int) { return uniform(-1, 1); });
}

}  // namespace

TEST(spline_passes_through_its_rows_and_is_c2) {
  for (int round = 0; round < 50; ++round) {
    const int rows = integer(2, 40), dof = integer(1, 8);
    const double dt = uniform(0.02, 0.2);
    const Waypoints w = waypoints(rows, dof, 0, dt, [](int, int) { return uniform(-1, 1); });
    Motion at(dof), before(dof), after(dof);
    for (int i = 0; i < rows; ++i) {
      sample_spline(w.rows(), i * dt, at.span());
      for (int j = 0; j < dof; ++j) CHECK_NEAR(at.q[j], w.chunk.row(i)[j], 1e-12);
      if (i == 0 || i == rows - 1) continue;
      const double step = 1e-9 * dt;
      sample_spline(w.rows(), i * dt - step, before.span());
      sample_spline(w.rows(), i * dt + step, after.span());
      for (int j = 0; j < dof; ++j) {
        const double scale = 1 / dt;
        CHECK_NEAR(before.q[j], after.q[j], 1e-7);
        CHECK_NEAR(before.v[j], after.v[j], 1e-6 * scale);
        CHECK_NEAR(before.a[j], after.a[j], 1e-5 * scale * scale);
      }
    }
  }
}

TEST(spline_derivatives_are_those_of_its_positions) {
  const Waypoints w = random_waypoints(12, 1, 0);
  Motion low(1), high(1), at(1);
  for (int k = 0; k < 200; ++k) {
    const double t = uniform(0.01, 1.09), h = 1e-5;
    if (std::abs(t / 0.1 - std::round(t / 0.1)) < 0.01) continue;
    sample_spline(w.rows(), t - h, low.span());
    sample_spline(w.rows(), t, at.span());
    sample_spline(w.rows(), t + h, high.span());
    CHECK_NEAR(at.v[0], (high.q[0] - low.q[0]) / (2 * h), 1e-5 * (1 + std::abs(at.v[0])));
    CHECK_NEAR(at.a[0], (high.v[0] - low.v[0]) / (2 * h), 1e-5 * (1 + std::abs(at.a[0])));
  }
}

TEST(spline_reproduces_a_sine_where_steps_and_lines_do_not) {
  // 0.5 Hz, +-0.5 rad, 30 Hz rows: the true peak acceleration is 4.93 rad/s^2.
  const double w0 = std::numbers::pi, dt = 1.0 / 30;
  const Waypoints w = waypoints(60, 1, 0, dt, [&](int i, int) { return 0.5 * std::sin(w0 * i * dt); });
  Motion at(1);
  double error = 0, end_error = 0, peak = 0;
  for (double t = 0; t < 59 * dt; t += 0.002) {
    sample_spline(w.rows(), t, at.span());
    const double off = std::abs(at.q[0] - 0.5 * std::sin(w0 * t));
    (t < 5 * dt || t > 54 * dt ? end_error : error) = std::max(t < 5 * dt || t > 54 * dt ? end_error : error, off);
    peak = std::max(peak, std::abs(at.a[0]));
  }
  CHECK(error < 1e-6);
  CHECK(end_error < 1e-4);  // the curvature at the ends is estimated
  CHECK_NEAR(peak, 0.5 * w0 * w0, 0.05);
}

TEST(short_chunks_have_a_meaning) {
  Motion at(2);
  const Waypoints line = waypoints(2, 2, 0, 0.1, [](int i, int j) { return i + 10.0 * j; });
  sample_spline(line.rows(), 0.05, at.span());
  CHECK_NEAR(at.q[0], 0.5, 1e-15);
  CHECK_NEAR(at.v[1], 10.0, 1e-12);
  const Waypoints point = waypoints(1, 2, 0, 0.1, [](int, int j) { return 3.0 + j; });
  sample_spline(point.rows(), 0.05, at.span());
  CHECK(at.q[0] == 3.0 && at.q[1] == 4.0 && at.v[0] == 0.0 && at.a[1] == 0.0);
}

TEST(a_seam_is_c2_even_during_another_blend) {
  for (int round = 0; round < 50; ++round) {
    const int dof = integer(1, 7);
    Interpolator interpolator(dof, kTick);
    std::vector<std::unique_ptr<Waypoints>> chunks;
    Motion before(dof), after(dof);
    int64_t position = 0;
    for (int switches = 0; switches < 6; ++switches) {
      const int64_t tick = position / kTick;
      chunks.push_back(std::make_unique<Waypoints>(random_waypoints(24, dof, tick - integer(0, 3))));
      if (!interpolator.sample(position, before.span())) {  // the very first: from rest
        for (int j = 0; j < dof; ++j) before.q[j] = 0.3, before.v[j] = before.a[j] = 0;
      }
      const double gap = interpolator.switch_to(chunks.back().get(), position, integer(1, 5) * kTick, before.span());
      CHECK(interpolator.sample(position, after.span()));
      double size = 0;
      for (int j = 0; j < dof; ++j) {
        CHECK_NEAR(after.q[j], before.q[j], 1e-12);
        CHECK_NEAR(after.v[j], before.v[j], 1e-9);
        CHECK_NEAR(after.a[j], before.a[j], 1e-6);
      }
      const Waypoints& w = *chunks.back();
      sample_spline(w.rows(), static_cast<double>(position - w.chunk.obs_tick * kTick) * 1e-9, after.span());
      for (int j = 0; j < dof; ++j) size = std::max(size, std::abs(after.q[j] - before.q[j]));
      CHECK_NEAR(gap, size, 1e-12);
      position += integer(1, 7) * kTick + integer(0, 99) * 1'000'000;
    }
  }
}

TEST(a_blend_ends_on_the_new_chunk) {
  Interpolator interpolator(3, kTick);
  Waypoints first = random_waypoints(24, 3, 0), second = random_waypoints(24, 3, 5);
  Motion from(3), at(3), pure(3), near(3);
  interpolator.switch_to(&first, 0, 0, from.span());
  const int64_t seam = 6 * kTick + 12'345'678, blend = 3 * kTick;
  CHECK(interpolator.sample(seam, from.span()));
  interpolator.switch_to(&second, seam, blend, from.span());
  const auto truth = [&](int64_t position, Motion& out) {
    sample_spline(second.rows(), static_cast<double>(position - 5 * kTick) / kTick * 0.1, out.span());
  };
  for (int64_t t = 0; t < 10 * kTick; t += 1'000'000) {
    CHECK(interpolator.sample(seam + blend + t, at.span()));
    truth(seam + blend + t, pure);
    for (int j = 0; j < 3; ++j) CHECK(at.q[j] == pure.q[j] && at.v[j] == pure.v[j] && at.a[j] == pure.a[j]);
  }
  // and it meets it with all three derivatives
  CHECK(interpolator.sample(seam + blend - 100, near.span()));
  truth(seam + blend - 100, pure);
  for (int j = 0; j < 3; ++j) {
    CHECK_NEAR(near.q[j], pure.q[j], 1e-9);
    CHECK_NEAR(near.v[j], pure.v[j], 1e-7);
    CHECK_NEAR(near.a[j], pure.a[j], 1e-2);
  }
}

TEST(rows_count_by_absolute_tick) {
  Interpolator interpolator(1, kTick);
  Waypoints w = waypoints(10, 1, 1'000'000'007, 0.1, [](int i, int) { return i; });
  Motion at(1);
  CHECK(!interpolator.sample(0, at.span()));  // follows nothing
  interpolator.switch_to(&w, 1'000'000'010 * kTick, 0, at.span());
  for (int i = 0; i < 10; ++i) {
    CHECK(interpolator.sample((1'000'000'007 + i) * kTick, at.span()));
    CHECK_NEAR(at.q[0], i, 1e-12);
  }
  CHECK(!interpolator.sample(1'000'000'006 * kTick, at.span()));      // before its observation
  CHECK(!interpolator.sample(1'000'000'016 * kTick + 1, at.span()));  // after its last row
  CHECK(interpolator.release() == &w);
  CHECK(!interpolator.sample(1'000'000'010 * kTick, at.span()));
}

TEST(time_line_pauses_and_runs_on) {
  Timeline line(kTick);
  CHECK(line.paused() && line.position(123) == 0);
  line.resume(0, 5'000);
  CHECK(line.position(5'000) == 0 && line.position(5'000 + 3 * kTick) == 3 * kTick);
  line.pause(3 * kTick);
  CHECK(line.position(999 * kTick) == 3 * kTick);
  line.resume(3 * kTick + 7, 1000 * kTick);
  CHECK(line.tick_at(line.position(1001 * kTick)) == 4);
  CHECK(line.tick_at(-1) == -1 && line.tick_at(-kTick) == -1 && line.tick_at(-kTick - 1) == -2);
  CHECK(line.tick_at(kTick - 1) == 0 && line.tick_at(kTick) == 1);
}

CHECK_MAIN()
