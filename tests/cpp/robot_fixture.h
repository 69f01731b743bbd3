#pragma once

// A mock arm, limits that fit it, and policies that stand in for a model.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "wamcore/error.h"
#include "wamcore/fault_injector.h"
#include "wamcore/mock_hal.h"
#include "wamcore/virtual_runner.h"

namespace fixture {

inline constexpr double kDt = 0.1;  // s, of a control tick
inline constexpr int kDof = 2;

inline wam::JointLimits limits(double velocity = 2.0, double acceleration = 20.0) {
  wam::JointLimits l;
  for (int j = 0; j < kDof; ++j) {
    l.names.push_back("joint" + std::to_string(j));
    l.position_min.push_back(-2.0);
    l.position_max.push_back(2.0);
    l.velocity.push_back(velocity);
    l.acceleration.push_back(acceleration);
  }
  return l;
}

inline wam::MockOptions robot(int cameras = 0) {
  wam::MockOptions o;
  for (int j = 0; j < kDof; ++j) o.joints.push_back({.name = "joint" + std::to_string(j)});
  for (int c = 0; c < cameras; ++c) o.cameras.push_back({.name = "cam" + std::to_string(c), .height = 4, .width = 6});
  o.record_commands = 200'000;
  return o;
}

/// Where the sine policy wants joint j at a tick: slow enough for the limits, and at rest at tick 0.
inline double sine(double tick, int j) { return 0.3 * (j + 1) * (1 - std::cos(0.8 * tick * kDt)); }

/// Calls a function to fill the rows; does the bookkeeping a well-behaved policy does.
class TestPolicy : public wam::Policy {
 public:
  using Fill = std::function<void(const wam::Observation&, wam::ActionChunk&)>;
  explicit TestPolicy(Fill fill, int horizon = 16) : fill_(std::move(fill)), horizon_(horizon) {}

  void infer(const wam::Observation& obs, wam::ActionChunk& out) override {
    if (loses && loses(calls + 1)) {
      ++calls;
      ++answers;
      return;
    }
    out.horizon = horizon_;
    out.dof = kDof;
    out.dt = kDt;
    out.obs_tick = obs.tick;
    out.obs_ns = obs.t_ns;
    out.sequence = ++calls;
    out.epoch = now_epoch;
    out.q.assign(static_cast<size_t>(horizon_) * kDof, 0.0);
    fill_(obs, out);
    ++answers;
  }
  double dt() const override { return kDt; }
  int horizon() const override { return horizon_; }
  int dof() const override { return kDof; }
  std::vector<int> frame_offsets() const override { return offsets; }
  uint32_t epoch() const noexcept override { return now_epoch; }

  std::atomic<uint64_t> calls{0};
  std::atomic<uint64_t> answers{0};  // calls that have returned
  std::atomic<uint32_t> now_epoch{0};
  std::vector<int> offsets{0};
  std::function<bool(uint64_t call)> loses;  // calls, from 1, whose answer is lost: the chunk stays what it was

 private:
  Fill fill_;
  int horizon_;
};

inline void fill_sine(const wam::Observation& obs, wam::ActionChunk& out) {
  for (int i = 0; i < out.horizon; ++i)
    for (int j = 0; j < kDof; ++j)
      out.q[static_cast<size_t>(i) * kDof + j] = sine(static_cast<double>(obs.tick + i), j);
}

inline std::shared_ptr<TestPolicy> sine_policy(int horizon = 16) {
  return std::make_shared<TestPolicy>(fill_sine, horizon);
}

/// How far from the measured joints a chunk may begin in these tests, s at the velocity limit, unless a test says it:
/// the sine goes on while a robot brakes, stands or waits for a slow machine.
inline constexpr double kFirstStep = 0.4;

inline void go_on(wam::RunnerOptions& options) {
  if (options.safety.first_step_time == wam::SafetyOptions{}.first_step_time)
    options.safety.first_step_time = kFirstStep;
}

/// A run in virtual time with all its parts at hand.
struct VirtualRun {
  std::shared_ptr<wam::ManualClock> clock = std::make_shared<wam::ManualClock>(1'000'000'000);
  std::shared_ptr<wam::MockHal> hal;
  std::shared_ptr<wam::FaultInjector> faults;  // around it
  std::unique_ptr<wam::VirtualRunner> runner;

  VirtualRun(std::shared_ptr<wam::Policy> policy, wam::RunnerOptions options = {}, std::vector<int> delays = {1},
             wam::MockOptions mock = robot(), wam::JointLimits l = limits()) {
    hal = std::make_shared<wam::MockHal>(clock, std::move(mock));
    options.clock = clock;
    go_on(options);
    if (options.record == 0.0) options.record = 60.0;
    faults = std::make_shared<wam::FaultInjector>(hal, clock);
    runner = std::make_unique<wam::VirtualRunner>(std::move(policy), faults, std::move(l), options, std::move(delays));
  }
};

/// The worst ratio of a stream of commands [n, dof] to the limits; the first is compared with `start` at rest.
struct WorstRatio {
  double position = 0, velocity = 0, acceleration = 0, jerk = 0;
  bool within() const { return position <= 1 && velocity <= 1 + 1e-9 && acceleration <= 1 + 1e-6 && jerk <= 1 + 1e-5; }
};
inline WorstRatio worst(const std::vector<double>& commands, const wam::JointLimits& l, double period,
                        const std::vector<double>& start) {
  WorstRatio w;
  const size_t dof = l.names.size();
  std::vector<double> q = start, v(dof, 0.0), a(dof, 0.0);
  for (size_t k = 0; k * dof < commands.size(); ++k)
    for (size_t j = 0; j < dof; ++j) {
      const double now = commands[k * dof + j], speed = (now - q[j]) / period;
      if (!std::isfinite(now)) w.position = 1e9;
      w.position = std::max({w.position, now / l.position_max[j], now / l.position_min[j]});
      w.velocity = std::max(w.velocity, std::abs(speed) / l.velocity[j]);
      const double push = (speed - v[j]) / period;
      w.acceleration = std::max(w.acceleration, std::abs(push) / l.acceleration[j]);
      w.jerk = std::max(w.jerk, std::abs(push - a[j]) / period / l.jerk_of(static_cast<int>(j)));
      a[j] = push;
      v[j] = speed;
      q[j] = now;
    }
  return w;
}

/// Runs until it ends by an error, at most `seconds`; returns its text, or "" if it did not end.
inline std::string run_to_error(wam::VirtualRunner& runner, double seconds) {
  try {
    if (!runner.running()) runner.start();
    runner.run(seconds);
  } catch (const wam::Error& e) {
    return e.what();
  }
  return "";
}

}  // namespace fixture
