// Cameras and joint sensors that report late: observations are of one moment all the same, and say which.
#include <deque>

#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"

using namespace wam;
using namespace fixture;
using check::integer;
using check::uniform;

namespace {

constexpr int kOffset = 3;  // ticks between the two frames of an observation

/// A mock whose pictures and joints come late and claim to be of now. A picture's grey level is the control tick of the
/// machine's clock in which it was captured.
class LateHal final : public Hal {
 public:
  LateHal(std::shared_ptr<ManualClock> clock, std::vector<int64_t> cameras_ns, int64_t state_ns)
      : clock_(std::move(clock)),
        inner_(clock_, robot(static_cast<int>(cameras_ns.size()))),
        cameras_ns_(std::move(cameras_ns)),
        state_ns_(state_ns),
        pixels_(cameras_ns_.size()) {}
  Description configure(const HalConfig& c) override { return inner_.configure(c); }
  void activate(Mode m) override { inner_.activate(m); }
  Status read(State& s) noexcept override {
    const Status status = inner_.read(s);
    const uint64_t now = clock_->now_ns();
    history_.push_back({now, {s.q[0], s.q[1]}});
    for (const auto& [t, q] : history_)
      if (t + static_cast<uint64_t>(state_ns_) <= now) std::copy(q.begin(), q.end(), s.q.begin());
    s.t_ns = now;
    return status;
  }
  Status write(const Command& c) noexcept override { return inner_.write(c); }
  void deactivate() override { inner_.deactivate(); }
  void stop(StopKind k) noexcept override { inner_.stop(k); }
  void close() noexcept override { inner_.close(); }
  Status frame(int camera, FrameView& view) noexcept override {
    const auto c = static_cast<size_t>(camera);
    pixels_[c].assign(4 * 6 * 3, grey(clock_->now_ns() - static_cast<uint64_t>(cameras_ns_[c])));
    view = {pixels_[c].data(), 4, 6, clock_->now_ns()};
    return Status::ok;
  }
  /// Where the joints were at a time.
  std::array<double, kDof> at(uint64_t t_ns) const {
    std::array<double, kDof> q{};
    for (const auto& [t, value] : history_)
      if (t <= t_ns) q = value;
    return q;
  }
  static uint8_t grey(uint64_t t_ns) { return static_cast<uint8_t>(t_ns / kTickNs); }
  static constexpr uint64_t kTickNs = static_cast<uint64_t>(kDt * 1e9);

 private:
  std::shared_ptr<ManualClock> clock_;
  MockHal inner_;
  std::vector<int64_t> cameras_ns_;
  int64_t state_ns_;
  std::vector<std::vector<uint8_t>> pixels_;
  std::deque<std::pair<uint64_t, std::array<double, kDof>>> history_;
};

struct Rig {
  std::vector<int> cameras;  // ticks by which they are late
  int state = 0;
};

RunnerOptions stated(const Rig& rig, std::shared_ptr<Clock> clock) {
  RunnerOptions o{.clock = std::move(clock)};
  for (size_t c = 0; c < rig.cameras.size(); ++c) o.camera_latency["cam" + std::to_string(c)] = kDt * rig.cameras[c];
  o.state_latency = kDt * rig.state;
  return o;
}

}  // namespace

TEST(an_observation_is_of_one_moment_and_says_which) {
  for (int round = 0; round < 12; ++round) {
    const Rig rig{{integer(0, 4), integer(0, 4)}, integer(0, 3)};
    const int lag = std::max({rig.cameras[0], rig.cameras[1], rig.state}), delay = integer(0, 2);
    auto clock = std::make_shared<ManualClock>(1'000'000'000);
    const auto ns = [](int ticks) { return static_cast<int64_t>(LateHal::kTickNs) * ticks; };
    auto hal = std::make_shared<LateHal>(clock, std::vector{ns(rig.cameras[0]), ns(rig.cameras[1])}, ns(rig.state));
    std::vector<Observation> seen;
    std::vector<uint64_t> when;
    auto policy = std::make_shared<TestPolicy>([&](const Observation& o, ActionChunk& c) {
      fill_sine(o, c);
      seen.push_back(o);
      when.push_back(clock->now_ns());
    });
    policy->offsets = {-kOffset, 0};
    VirtualRunner runner(policy, hal, limits(), stated(rig, clock), {delay});
    runner.start();
    runner.run(8.0);
    CHECK(runner.running() && runner.stats().refused_chunks == 0 && seen.size() > 8);
    for (size_t k = 2; k < seen.size(); ++k) {  // the time line runs, and the ring reaches back
      const Observation& o = seen[k];
      const uint64_t captured = when[k] - static_cast<uint64_t>(ns(lag));
      for (const CameraFrames& c : o.cameras) {
        CHECK(c.rgb.front() == LateHal::grey(captured) - kOffset);
        CHECK(c.rgb.back() == LateHal::grey(captured));
      }
      const auto joints = hal->at(captured);
      for (size_t j = 0; j < kDof; ++j) CHECK_NEAR(o.state[j], joints[j], 0.01);  // to within a servo cycle
      CHECK(o.t_ns <= captured + 10'000'000 && o.t_ns + 10'000'000 >= captured);
      CHECK(o.tick - seen[k - 1].tick == static_cast<int64_t>((when[k] - when[k - 1] + 1'000'000) / LateHal::kTickNs));
    }
    // rows are skipped by what really passed since the capture
    const RunnerStats s = runner.stats();
    CHECK(s.delay_ticks[static_cast<size_t>(lag + delay)] >= s.chunks - 1);
  }
}

/// A camera that has a new picture when it likes. Without one it says so, or gives the last again, with its old time.
/// The grey level counts pictures.
class MoodyCamera final : public Hal {
 public:
  explicit MoodyCamera(std::shared_ptr<ManualClock> clock) : clock_(std::move(clock)), inner_(clock_, robot(1)) {}
  Description configure(const HalConfig& c) override { return inner_.configure(c); }
  void activate(Mode m) override { inner_.activate(m); }
  Status read(State& s) noexcept override { return inner_.read(s); }
  Status write(const Command& c) noexcept override { return inner_.write(c); }
  void deactivate() override { inner_.deactivate(); }
  void stop(StopKind k) noexcept override { inner_.stop(k); }
  void close() noexcept override { inner_.close(); }
  Status frame(int, FrameView& view) noexcept override {
    const bool fresh = pictures_ == 0 || integer(0, 2) == 0;
    if (fresh) pixels_.assign(4 * 6 * 3, static_cast<uint8_t>(++pictures_)), taken_ = clock_->now_ns();
    looks_.emplace_back(clock_->now_ns(), pixels_[0]);
    view = {pixels_.data(), 4, 6, taken_};
    return fresh || integer(0, 1) == 0 ? Status::ok : Status::stale;
  }
  /// The last picture that there was at a time.
  int at(uint64_t t_ns) const {
    int grey = -1;
    for (const auto& [t, value] : looks_)
      if (t <= t_ns) grey = value;
    return grey;
  }
  uint64_t taken() const { return taken_; }

 private:
  std::shared_ptr<ManualClock> clock_;
  MockHal inner_;
  int pictures_ = 0;
  uint64_t taken_ = 0;
  std::vector<uint8_t> pixels_;
  std::vector<std::pair<uint64_t, uint8_t>> looks_;
};

TEST(a_slow_and_irregular_camera_is_looked_at_at_the_trained_offsets) {
  constexpr int kOld = 7;
  for (int round = 0; round < 20; ++round) {
    auto clock = std::make_shared<ManualClock>(1'000'000'000);
    auto hal = std::make_shared<MoodyCamera>(clock);
    int checked = 0;
    auto policy = std::make_shared<TestPolicy>([&](const Observation& o, ActionChunk& c) {
      fill_sine(o, c);
      CHECK(o.t_ns <= hal->taken());  // as old as its oldest part says
      if (o.tick < kOld) return;      // before, the first picture stands in
      const uint64_t half = LateHal::kTickNs / 2, now = clock->now_ns();
      const std::vector<uint8_t>& rgb = o.cameras[0].rgb;
      CHECK(rgb.front() == hal->at(now + half - kOld * LateHal::kTickNs));
      CHECK(rgb[rgb.size() / 3] == hal->at(now + half - kOffset * LateHal::kTickNs));
      CHECK(rgb.back() == hal->at(now));
      ++checked;
    });
    policy->offsets = {-kOld, -kOffset, 0};
    RunnerOptions options{.clock = clock};
    go_on(options);
    VirtualRunner runner(policy, hal, limits(), options, {integer(0, 3)});
    runner.start();
    runner.run(12.0);
    CHECK(runner.running() && checked > 8);
  }
}

TEST(a_stated_latency_removes_the_lag_of_the_motion) {
  // A policy that goes on from where the joints were seen is behind by the latency, unless it knows of it.
  const auto behind = [](bool told) {
    const Rig rig{{0}, 3};
    auto clock = std::make_shared<ManualClock>(1'000'000'000);
    auto hal = std::make_shared<LateHal>(clock, std::vector<int64_t>{0}, 3 * static_cast<int64_t>(LateHal::kTickNs));
    auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
      for (int i = 0; i < c.horizon; ++i)
        for (size_t j = 0; j < kDof; ++j) c.q[static_cast<size_t>(i) * kDof + j] = o.state[j] + 0.03 * i;
    });
    RunnerOptions options = stated(rig, clock);
    if (!told) options.state_latency = 0.0;
    VirtualRunner runner(policy, hal, limits(), options, {1});
    runner.start();
    runner.run(3.0);
    return runner.record().command.back();
  };
  CHECK(behind(true) > behind(false) + 0.1);
}

TEST(latencies_that_cannot_be_are_refused) {
  const auto start = [](const RunnerOptions& options) {
    VirtualRun run(sine_policy(), options, {1}, robot(1));
    run.runner->start();
  };
  CHECK_THROWS(start({.camera_latency = {{"wrist", 0.05}}}), ConfigError, "no camera of the robot");
  CHECK_THROWS(start({.camera_latency = {{"cam0", -0.05}}}), ConfigError, "camera_latency wants");
  CHECK_THROWS(start({.camera_latency = {{"cam0", NAN}}}), ConfigError, "camera_latency wants");
  CHECK_THROWS(start({.state_latency = 0.8}), ConfigError, "half of a chunk");
  start({.camera_latency = {{"cam0", 0.055}}, .state_latency = 0.05});
}

CHECK_MAIN()
