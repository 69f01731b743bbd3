// How chunks are executed: what each mode hands to the policy and to the servo, in virtual time.
#include <cmath>

#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"
#include "runtime/ensemble.h"

using namespace wam;
using namespace fixture;
using check::uniform;

namespace {

/// A policy whose chunks differ from one to the next, and which can continue a plan: it then copies the plan's rows.
class Continuing final : public Policy {
 public:
  explicit Continuing(Continuity can) : can_(can) {}
  void infer(const Observation& obs, ActionChunk& out) override {
    ++fresh;
    fill(obs, out);
  }
  void extend(const Observation& obs, const Continuation& plan, ActionChunk& out) override {
    plans.push_back(plan);
    ticks.push_back(obs.tick);
    fill(obs, out);
    for (int i = 0; i < plan.rows; ++i)
      for (int j = 0; j < kDof; ++j) out.q[at(i, j)] = plan.q[at(i, j)];
    // beyond the plan a new idea, from where the plan ends
    const double turn = uniform(-0.02, 0.02);
    for (int i = plan.rows; i < out.horizon; ++i)
      for (int j = 0; j < kDof; ++j) out.q[at(i, j)] = plan.q[at(plan.rows - 1, j)] + turn * (i - plan.rows + 1);
  }
  Continuity continuity() const noexcept override { return can_; }
  double dt() const override { return kDt; }
  int horizon() const override { return 16; }
  int dof() const override { return kDof; }
  uint32_t epoch() const noexcept override { return now_epoch; }

  static size_t at(int i, int j) { return static_cast<size_t>(i) * kDof + static_cast<size_t>(j); }
  std::vector<Continuation> plans;
  std::vector<int64_t> ticks;
  std::vector<ActionChunk> chunks;
  int fresh = 0;
  uint32_t now_epoch = 0;

 private:
  void fill(const Observation& obs, ActionChunk& out) {
    out = {.horizon = 16, .dof = kDof, .dt = kDt, .obs_tick = obs.tick, .obs_ns = obs.t_ns, .sequence = ++sequence_};
    out.epoch = now_epoch;
    out.q.resize(16 * kDof);
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < kDof; ++j) out.q[at(i, j)] = obs.state[static_cast<size_t>(j)] + 0.01 * i;
  }
  Continuity can_;
  uint64_t sequence_ = 0;
};

double worst_seam(const std::shared_ptr<Policy>& policy, Execution mode, int delay) {
  VirtualRun run(policy, {.mode = mode}, {delay});
  run.runner->start();
  run.runner->run(20.0);
  const RunnerStats s = run.runner->stats();
  CHECK(run.runner->running() && s.refused_chunks == 0);
  CHECK(worst(run.hal->commands(), limits(), 1.0 / 200, {0, 0}).within());
  return s.seam_gap.max;
}

}  // namespace

TEST(automatic_is_what_the_policy_can) {
  const auto mode_of = [](Continuity can, Execution wish = Execution::automatic) {
    VirtualRun run(std::make_shared<Continuing>(can), {.mode = wish});
    return run.runner->stats().mode;
  };
  CHECK(mode_of(Continuity::none) == Execution::blend);
  CHECK(mode_of(Continuity::guided) == Execution::rtc_guided);
  CHECK(mode_of(Continuity::trained) == Execution::rtc_trained);
  CHECK(mode_of(Continuity::guided, Execution::sync) == Execution::sync);
  CHECK_THROWS(mode_of(Continuity::none, Execution::rtc_guided), ConfigError, "can be guided");
  CHECK_THROWS(mode_of(Continuity::guided, Execution::rtc_trained), ConfigError, "clean prefixes");
  CHECK_THROWS(sine_policy()->extend({}, {}, *std::make_unique<ActionChunk>()), RobotError, "cannot continue");
}

TEST(a_plan_is_the_rest_of_the_chunk_in_execution_by_absolute_tick) {
  for (const int delay : {1, 2, 4, 7}) {
    const auto policy = std::make_shared<Continuing>(Continuity::guided);
    // keep every chunk as it was sent, to compare with
    std::vector<ActionChunk> sent;
    struct Keep final : Policy {
      std::shared_ptr<Continuing> inner;
      std::vector<ActionChunk>* sent = nullptr;
      void infer(const Observation& o, ActionChunk& c) override { inner->infer(o, c), sent->push_back(c); }
      void extend(const Observation& o, const Continuation& p, ActionChunk& c) override {
        inner->extend(o, p, c), sent->push_back(c);
      }
      Continuity continuity() const noexcept override { return Continuity::guided; }
      double dt() const override { return kDt; }
      int horizon() const override { return 16; }
      int dof() const override { return kDof; }
    };
    const auto keep = std::make_shared<Keep>();
    keep->inner = policy, keep->sent = &sent;
    VirtualRun run(keep, {.soft_ticks = -1}, {delay});
    run.runner->start();
    run.runner->run(20.0);
    CHECK(policy->fresh == 1);  // the first; afterwards there is always something to continue
    CHECK(policy->plans.size() > 10 && run.runner->stats().continued_chunks == policy->plans.size());
    for (size_t k = 0; k < policy->plans.size(); ++k) {
      const Continuation& plan = policy->plans[k];
      const ActionChunk& old = sent[k];  // the chunk before is in execution when the next inference starts
      const int64_t from = policy->ticks[k] - old.obs_tick;
      CHECK(plan.rows == 16 - static_cast<int>(from) && plan.rows >= delay);
      CHECK(plan.frozen == std::min(delay + 1, plan.rows) || k == 0);
      for (int i = 0; i < plan.rows; ++i)
        CHECK(plan.q[Continuing::at(i, 0)] == old.q[Continuing::at(i + static_cast<int>(from), 0)]);
    }
  }
}

TEST(a_plan_pulls_no_further_than_was_asked) {
  for (const int soft : {0, 2, 5}) {
    const auto policy = std::make_shared<Continuing>(Continuity::guided);
    VirtualRun run(policy, {.soft_ticks = soft}, {3});
    run.runner->start();
    run.runner->run(10.0);
    CHECK(policy->plans.size() > 5);
    for (size_t k = 1; k < policy->plans.size(); ++k) {
      const Continuation& plan = policy->plans[k];
      CHECK(plan.frozen == 4 && plan.rows == std::min(8, 4 + soft) && plan.q.size() == Continuing::at(plan.rows, 0));
    }
  }
  CHECK_THROWS(VirtualRun(sine_policy(), {.soft_ticks = -2}), ConfigError, "soft_ticks");
  CHECK_THROWS(VirtualRun(sine_policy(), {.soft_ticks = 17}), ConfigError, "soft_ticks");
}

TEST(nothing_is_continued_after_a_reset_or_a_stand) {
  const auto policy = std::make_shared<Continuing>(Continuity::guided);
  VirtualRun run(policy);
  run.runner->start();
  run.runner->run(3.0);
  const int fresh = policy->fresh;
  policy->now_epoch = 1;
  run.runner->run(3.0);
  CHECK(policy->fresh == fresh + 1 && run.runner->running());
  const auto standing = std::make_shared<Continuing>(Continuity::guided);
  VirtualRun sync(standing, {.mode = Execution::sync});
  sync.runner->start();
  sync.runner->run(6.0);
  CHECK(standing->plans.empty() && standing->fresh > 3);
}

TEST(continued_chunks_have_no_seam_and_others_do) {
  for (const int delay : {1, 4, 7}) {
    CHECK(worst_seam(std::make_shared<Continuing>(Continuity::guided), Execution::rtc_guided, delay) < 1e-3);
    CHECK(worst_seam(std::make_shared<Continuing>(Continuity::trained), Execution::rtc_trained, delay) < 1e-3);
    CHECK(worst_seam(std::make_shared<Continuing>(Continuity::guided), Execution::blend, delay) > 5e-3);
  }
}

TEST(switching_is_a_jump_of_the_reference) {
  const auto step_of = [](Execution mode) {
    VirtualRun run(std::make_shared<Continuing>(Continuity::none), {.mode = mode}, {4});
    run.runner->start();
    run.runner->run(10.0);
    const RunRecord r = run.runner->record();
    double most = 0;
    for (size_t k = 1; k < r.t_ns.size(); ++k)
      if (r.chunk[k] >= 0 && r.chunk[k - 1] >= 0)
        most = std::max(most, std::abs(r.reference[k * kDof] - r.reference[(k - 1) * kDof]));
    CHECK(worst(run.hal->commands(), limits(), 1.0 / 200, {0, 0}).within());
    return most;
  };
  CHECK(step_of(Execution::async_switch) > 3 * step_of(Execution::blend));
}

TEST(an_ensemble_is_the_weighted_mean_of_what_covers_a_tick) {
  const double decay = 0.3;
  Ensemble ensemble(decay);
  std::vector<ActionChunk> all;
  for (int k = 0; k < 30; ++k) {
    ActionChunk c{.horizon = 8, .dof = 2, .dt = 0.1, .obs_tick = k * 3 / 2, .epoch = k < 20 ? 0u : 1u};
    for (int i = 0; i < 16; ++i) c.q.push_back(uniform(-1, 1));
    all.push_back(c);
    ensemble.add(c);
    for (int i = 0; i < 8; ++i) {
      double sum = 0, total = 0, weight = 1;
      for (const ActionChunk& old : all) {
        const int64_t row = c.obs_tick + i - old.obs_tick;
        if (old.epoch != c.epoch || row < 0 || row >= 8) continue;
        sum += weight * old.q[static_cast<size_t>(row) * 2];
        total += weight;
        weight *= std::exp(-decay);
      }
      // a chunk that ended before this one began weighs nothing, so the first that is left weighs 1
      CHECK_NEAR(c.row(i)[0], sum / total, 1e-12);
    }
  }
  VirtualRun run(sine_policy(), {.mode = Execution::temporal_ensemble}, {1});
  run.runner->start();
  run.runner->run(10.0);
  const RunnerStats s = run.runner->stats();
  CHECK(s.chunks > 90 && s.refused_chunks == 0);  // one a tick
}

TEST(real_delays_decide_what_is_executed) {
  // whatever the delays are, every command is on the plan of an absolute tick: what is late is skipped, never replayed
  std::vector<int> delays;
  for (int i = 0; i < 40; ++i) delays.push_back(check::integer(0, 6));
  VirtualRun run(sine_policy(), {}, delays);
  run.runner->start();
  run.runner->run(30.0);
  const RunRecord r = run.runner->record();
  size_t off = 0, on = 0;
  for (size_t k = 0; k < r.t_ns.size(); ++k) {
    if (r.phase[k] != static_cast<uint8_t>(Phase::follow) || r.tick[k] < 4) continue;
    ++(std::abs(r.command[k * kDof] - sine(r.tick[k], 0)) < 2e-3 ? on : off);
  }
  CHECK(off == 0 && on > 4000);
}

TEST(a_pause_is_a_stand_and_not_a_fault) {
  auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    for (int i = 0; i < c.horizon; ++i)
      for (size_t j = 0; j < kDof; ++j) c.q[static_cast<size_t>(i) * kDof + j] = o.state[j] + 0.02 * i;
  });
  for (const Execution mode : {Execution::blend, Execution::sync}) {
    VirtualRun run(policy, {.mode = mode}, {3});
    run.runner->start();
    run.runner->run(2.05);
    run.runner->pause();
    run.runner->run(0.3);
    const uint64_t calls = policy->calls;
    const std::vector<double> stand = run.hal->commands();
    run.runner->run(10.0);  // far beyond hold_time
    const std::vector<double> still = run.hal->commands();
    CHECK(run.runner->running() && policy->calls == calls);
    CHECK(std::equal(stand.end() - kDof, stand.end(), still.end() - kDof));
    run.runner->resume();
    run.runner->run(2.0);
    const std::vector<double> on = run.hal->commands();
    CHECK(run.runner->running() && policy->calls > calls && on[on.size() - 1] > still[still.size() - 1] + 0.05);
    CHECK(worst(on, limits(), 1.0 / 200, {0, 0}).within());
    const RunnerStats s = run.runner->stats();
    CHECK(s.safety[static_cast<size_t>(Reason::stop)] == 0 && s.refused_chunks <= 1);
  }
}

TEST(a_gripper_is_open_or_closed_and_does_not_chatter) {
  // joint 1 is a gripper; its wish goes slowly from open to closed with noise on it
  auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    for (int i = 0; i < c.horizon; ++i) {
      c.q[Continuing::at(i, 0)] = sine(static_cast<double>(o.tick + i), 0);
      c.q[Continuing::at(i, 1)] = std::clamp(0.01 * static_cast<double>(o.tick + i) + uniform(-0.04, 0.04), 0.0, 1.0);
    }
  });
  VirtualRun run(policy, {.grippers = {{.joint = 1, .open = 0.0, .closed = 1.0, .hysteresis = 0.2}}}, {2});
  run.runner->start();
  run.runner->run(12.0);
  const RunRecord r = run.runner->record();
  size_t changes = 0, between = 0, off = 0;
  for (size_t k = 1; k < r.t_ns.size(); ++k) {
    const double now = r.reference[k * kDof + 1], before = r.reference[(k - 1) * kDof + 1];
    if (std::isnan(now) || std::isnan(before)) continue;
    changes += now != before;
    between += now != 0.0 && now != 1.0;
    off += r.tick[k] > 4 && std::abs(r.reference[k * kDof] - sine(r.tick[k], 0)) > 2e-3;  // the other goes its way
  }
  CHECK(changes == 1 && between == 0 && off == 0 && run.runner->stats().refused_chunks == 0);
  CHECK(run.hal->position()[1] > 0.99);
  CHECK(worst(run.hal->commands(), limits(), 1.0 / 200, {0, 0}).within());
  const auto with = [](Gripper g) { VirtualRun(sine_policy(), {.grippers = {g}}); };
  CHECK_THROWS(with({.joint = 2}), ConfigError, "numbers of joints");
  CHECK_THROWS(with({.joint = 1, .closed = 0.0}), ConfigError, "two different positions");
  CHECK_THROWS(with({.joint = 1, .closed = 9.0}), ConfigError, "within the limits");
  CHECK_THROWS(with({.joint = 1, .hysteresis = 1.0}), ConfigError, "hysteresis");
}

CHECK_MAIN()
