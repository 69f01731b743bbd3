// sampler_step over whole schedules against the recurrences in float64, with guidance, skipped steps, held frames.
#include "cuda/sampler_step.cuh"

#include <cmath>

#include "launcher.h"
#include "planted.h"

using namespace sim;

namespace {

// Clean schedules stay below 3e-6 of the largest number met on the way, in hundreds of runs; the smallest of the
// planted bugs comes to 1e-3.
constexpr double kTolerance = 5e-5;

// Coefficients as a solver would make them: fresh, with the zeros of a first and second step.
std::vector<StepCoefficients> fresh_steps(int steps, int moving) {
  std::vector<StepCoefficients> out(static_cast<size_t>(steps));
  for (int i = 0; i < steps; ++i) {
    StepCoefficients& k = out[size_t(i)];
    const auto number = [] { return float(check::uniform(-1.5, 1.5)); };
    k = {.data_x = number(), .data_v = number(), .fix_x = i ? 0.0f : 1.0f, .next_x = number(), .next_m0 = number()};
    if (i > 0) k.fix_last = number(), k.fix_m0 = number(), k.fix_m1 = number(), k.next_m1 = number();
    if (i > 1) k.fix_m2 = number();
    k.sigma = number();
    k.moves = i < moving;
  }
  return out;
}

struct Modality {
  Modality(int n, int step_count, int moving, bool guided) : steps(fresh_steps(step_count, moving)) {
    x = normal(n), conditional = normal(n), unconditional = normal(n);
    for (auto* v : {&velocity, &last}) v->assign(size_t(n), NAN);
    history.assign(size_t(3 * n), NAN);
    want.assign(x.begin(), x.end());
    params = {.x = x.data(),
              .conditional = conditional.data(),
              .unconditional = guided ? unconditional.data() : nullptr,
              .velocity = velocity.data(),
              .last = last.data(),
              .history = history.data(),
              .steps = steps.data(),
              .count = n,
              .guidance = guided ? 5.0f : 1.0f};
    for (auto* v : {&v_, &last_, &m0_, &m1_, &m2_}) v->assign(size_t(n), 0.0);
  }
  // Pulled toward fresh numbers in every step but the second, with weight on every other element.
  void pull_toward_a_plan() {
    pull = normal(int64_t(steps.size())), target = normal(params.count), weight = normal(params.count);
    if (pull.size() > 1) pull[1] = 0;
    for (size_t i = 0; i < weight.size(); i += 2) weight[i] = 0, target[i] = NAN;
    params.pull = pull.data(), params.target = target.data(), params.weight = weight.data();
  }
  void new_velocities() {
    const auto copy = [](std::vector<float>& to) { to = normal(int64_t(to.size())); };
    copy(conditional), copy(unconditional);
    params.conditional = conditional.data();
    if (params.unconditional) params.unconditional = unconditional.data();
  }
  void advance(int step, bool executed) {
    const StepCoefficients& k = steps[size_t(step)];
    for (size_t i = 0; i < want.size(); ++i) {
      if (executed)
        v_[i] = params.unconditional
                    ? unconditional[i] + double(params.guidance) * (double(conditional[i]) - unconditional[i])
                    : conditional[i];
      if (!k.moves || (params.area && int(i) / params.area % params.frames >= params.held)) continue;
      double v = v_[i];
      if (!pull.empty() && weight[i] != 0)
        v -= double(pull[size_t(step)]) * (target[i] - (want[i] - double(k.sigma) * v)) * weight[i];
      m2_[i] = m1_[i], m1_[i] = m0_[i], m0_[i] = k.data_x * want[i] + k.data_v * v;
      last_[i] = k.fix_x * want[i] + k.fix_last * last_[i] + k.fix_m0 * m0_[i] + k.fix_m1 * m1_[i] + k.fix_m2 * m2_[i];
      want[i] = k.next_x * last_[i] + k.next_m0 * m0_[i] + k.next_m1 * m1_[i];
      for (const double met : {double(params.guidance) * unconditional[i], v, m0_[i], last_[i], want[i]})
        largest_ = std::max(largest_, std::abs(met));
    }
  }
  // Against the largest number met on the way: the last may be small by chance, and rounding errors are not.
  double error() const { return check::relative_error(x, want, want.size(), largest_); }

  std::vector<StepCoefficients> steps;
  std::vector<float> x, conditional, unconditional, velocity, last, history, pull, target, weight;
  std::vector<double> want;
  SamplerModality params;

 private:
  std::vector<double> v_, last_, m0_, m1_, m2_;
  double largest_ = 1e-12;
};

struct Run {
  double video = 0, action = 0;
  int32_t step = 0;
  std::vector<float> timesteps;
};

Run whole_schedule(int video, int action, int steps, bool guided, const Launcher& launch) {
  Modality a(video, steps, steps - 1, guided), b(action, steps, steps, false);
  a.params.area = 6, a.params.frames = 3, a.params.held = 2;
  if (guided) b.pull_toward_a_plan();
  Run run;
  uint32_t ticket = 0;
  const std::vector<float> table = normal(steps * 4);
  run.timesteps.assign(table.begin(), table.begin() + 4);
  for (int i = 0; i < steps; ++i) {
    const bool executed = i % 3 != 2;
    if (executed) a.new_velocities(), b.new_velocities();
    SamplerStepParams p{.modality = {a.params, b.params},
                        .executed = executed,
                        .step = &run.step,
                        .ticket = &ticket,
                        .steps = steps,
                        .timestep_table = table.data(),
                        .timesteps = run.timesteps.data(),
                        .time_rows = 4};
    CHECK(launch_sampler_step(p, launch));
    a.advance(i, executed), b.advance(i, executed);
    CHECK(ticket == 0);
    const size_t row = size_t(std::min(i + 1, steps - 1)) * 4;
    if (!*launch.planted) CHECK(std::equal(run.timesteps.begin(), run.timesteps.end(), table.begin() + int64_t(row)));
  }
  run.video = a.error(), run.action = b.error();
  return run;
}

}  // namespace

TEST(equals_the_recurrence) {
  for (const auto& [video, action] : {std::pair{1, 1}, {36, 7}, {700, 5}, {255, 1000}})
    for (const bool guided : {false, true}) {
      const Run run = whole_schedule(video, action, 6, guided, {.seed = seed()});
      CHECK(run.video < kTolerance && run.action < kTolerance);
      CHECK(run.step == 6);
    }
}

TEST(no_velocity_is_needed_before_it_exists) {
  // NaN in every buffer that the first steps have not written must not reach x
  const Run run = whole_schedule(36, 7, 3, true, {.seed = seed()});
  CHECK(std::isfinite(run.video) && std::isfinite(run.action));
}

TEST(steps_beyond_the_schedule_change_nothing) {
  Modality a(10, 2, 2, false), b(10, 2, 2, false);
  int32_t step = 2;
  uint32_t ticket = 0;
  float table[2] = {1, 2}, timestep = 7;
  SamplerStepParams p{.modality = {a.params, b.params}, .step = &step, .ticket = &ticket, .steps = 2};
  p.timestep_table = table, p.timesteps = &timestep, p.time_rows = 1;
  CHECK(launch_sampler_step(p, Launcher{}));
  CHECK(step == 2 && ticket == 0 && timestep == 7 && a.error() == 0 && b.error() == 0);
}

TEST(planted_bugs_are_caught) {
  const Run pulled = whole_schedule(36, 100, 6, true, {.seed = 1, .planted = "pull_at_x"});
  CHECK(!(pulled.action < kTolerance));
  const Run run = whole_schedule(36, 7, 6, true, {.seed = 1, .planted = "history_off_by_one"});
  CHECK(!(run.video < kTolerance));
  // a thread that reads the step after the last block has counted it up
  int caught = 0;
  for (unsigned s = 1; s <= 5; ++s) {
    const Run early = whole_schedule(36, 7, 6, true, {.seed = s, .planted = "no_barrier"});
    caught += !(early.video < kTolerance && early.action < kTolerance);
  }
  CHECK(caught >= 3);  // in most orders of the threads; a few hide it
  const ChildResult r = run_in_child([] { whole_schedule(36, 7, 6, true, {.seed = 1, .planted = "out_of_bounds"}); });
  CHECK(!r.clean && r.says("AddressSanitizer"));
}

CHECK_MAIN()
