// The fault matrix: what goes wrong on a robot, how far it still moves then, and what the flight record says.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <new>

#include "check.h"
#include "fresh.h"
#include "robot_fixture.h"

using namespace wam;
using namespace fixture;
using check::integer;
using check::uniform;

namespace {

constexpr double kPeriod = 1.0 / 200;  // s
constexpr double kClose = 0.0005;      // rad, to which the distances in the matrix are given
constexpr size_t kJoint = 1;           // the faster one, which they are of

bool in(const RunRecord& r, size_t k, Phase phase) { return r.phase[k] == static_cast<uint8_t>(phase); }
bool follows(const RunRecord& r, size_t k) { return in(r, k, Phase::follow); }

/// The first stretch of cycles in which a robot that had followed a chunk did not: [from, to). Both are the length of
/// the record if there is none.
struct Stretch {
  size_t from = 0, to = 0;
};
Stretch interruption(const RunRecord& r) {
  const size_t n = r.t_ns.size();
  size_t k = 0;
  while (k < n && !follows(r, k)) ++k;
  while (k < n && follows(r, k)) ++k;
  Stretch out{.from = k};
  while (k < n && !follows(r, k)) ++k;
  out.to = k;
  return out;
}

/// How far the commands went on in it, rad, and from which speed, rad/s.
double stop_distance(const RunRecord& r) {
  const Stretch s = interruption(r);
  double out = 0.0;
  for (size_t k = s.from; k < s.to; ++k)
    out = std::max(out, std::abs(r.command[k * kDof + kJoint] - r.command[(s.from - 1) * kDof + kJoint]));
  return out;
}
double speed_before(const RunRecord& r) {
  const size_t k = std::min(interruption(r).from, r.t_ns.size());
  return std::abs(r.command[(k - 1) * kDof + kJoint] - r.command[(k - 2) * kDof + kJoint]) / kPeriod;
}

uint64_t count(const RunnerStats& s, Reason r) { return s.safety[static_cast<size_t>(r)]; }

constexpr uint64_t kFirst = 3;   // chunk from which on a policy fails
constexpr uint64_t kLate = 440;  // servo tick from which on a driver fails: the joint is at its fastest
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

using Spoil = std::function<void(ActionChunk&, const ActionChunk& before)>;

const Spoil repeated = [](ActionChunk& c, const ActionChunk& before) { c = before; };
const Spoil of_an_old_number = [](ActionChunk& c, const ActionChunk&) { c.sequence = 1; };
const Spoil of_another_epoch = [](ActionChunk& c, const ActionChunk&) { c.epoch = 9; };
const Spoil with_nan = [](ActionChunk& c, const ActionChunk&) { c.q[9] = kNaN; };
const Spoil far_off = [](ActionChunk& c, const ActionChunk&) { c.q.assign(c.q.size(), -1.9); };
const Spoil none_at_all = [](ActionChunk&, const ActionChunk&) { throw RobotError("out of memory"); };

/// Something that the flight record shows.
struct Shown {
  std::string what;
  std::function<bool(const RunRecord&)> there;
};

/// From `low` to `high` cycles in this phase for want of a command. The wait before the first chunk has no reason.
Shown cycles_of(Phase phase, Reason reason, long low, long high) {
  return {std::string(name(phase)) + " for " + std::to_string(low) + " to " + std::to_string(high) + " cycles",
          [=](const RunRecord& r) {
            long n = 0;
            for (size_t k = 0; k < r.t_ns.size(); ++k)
              n += in(r, k, phase) && r.reason[k] == static_cast<uint8_t>(reason);
            return n >= low && n <= high;
          }};
}
Shown held(long low, long high) { return cycles_of(Phase::hold, Reason::hold, low, high); }
Shown braked(long low, long high) { return cycles_of(Phase::stop, Reason::stop, low, high); }

/// The chunks before and after this one were executed, it was not.
Shown without_chunk(int64_t number) {
  return {"the chunks before and after " + std::to_string(number) + " only", [=](const RunRecord& r) {
            const auto n = [&](int64_t c) { return std::count(r.chunk.begin(), r.chunk.end(), c); };
            return n(number) == 0 && n(number - 1) > 0 && n(number + 1) > 0;
          }};
}
Shown last_chunk(int64_t number) {
  return {"chunk " + std::to_string(number) + " as the last", [=](const RunRecord& r) {
            return r.chunk.back() == number && *std::max_element(r.chunk.begin(), r.chunk.end()) == number;
          }};
}
/// What was executed became so old, in s, and not much older.
Shown aged(double s) {
  return {"an observation aged " + std::to_string(s) + " s", [=](const RunRecord& r) {
            double oldest = 0.0;
            for (const double age : r.obs_age) oldest = age > oldest ? age : oldest;  // NaN: none
            return std::abs(oldest - s) < 0.06;
          }};
}
/// The joints were this far from where they were told to be, in rad, and not much further.
Shown behind(double rad) {
  return {"joints " + std::to_string(rad) + " rad behind", [=](const RunRecord& r) {
            double worst = 0.0;
            for (size_t k = 0; k < r.command.size(); ++k)
              worst = std::max(worst, std::abs(r.command[k] - r.measured[k]));
            return std::abs(worst - rad) < 0.1 * rad;
          }};
}
/// The same measurement from cycle `k` to the end.
Shown blind_from(size_t from) {
  return {"no new measurement from cycle " + std::to_string(from) + " on", [=](const RunRecord& r) {
            for (size_t k = from; k < r.t_ns.size(); ++k)
              if (r.measured[k * kDof + kJoint] != r.measured[(from - 1) * kDof + kJoint]) return false;
            return r.measured[(from - 1) * kDof + kJoint] != r.measured[(from - 2) * kDof + kJoint];
          }};
}
Shown ends_at(size_t cycle) {
  return {"cycle " + std::to_string(cycle) + " as the last",
          [=](const RunRecord& r) { return r.t_ns.size() == cycle && follows(r, cycle - 1); }};
}
/// A time without cycles, in s.
Shown gap(double s) {
  return {"a gap of " + std::to_string(s) + " s", [=](const RunRecord& r) {
            uint64_t longest = 0;
            for (size_t k = 1; k < r.t_ns.size(); ++k) longest = std::max(longest, r.t_ns[k] - r.t_ns[k - 1]);
            return std::abs(static_cast<double>(longest) * 1e-9 - s - kPeriod) < 1e-6;
          }};
}

struct Fault {
  const char* name;
  Spoil spoil;                    // chunks from kFirst on, or nothing
  bool lost = false;              // or they are lost: the chunk stays what it was, which is empty the first time
  bool once = false;              // that one chunk only
  std::vector<HalFault> driver;   // or the driver
  std::vector<int> delays = {1};  // or the time it takes
  bool ends = false;              // the run, by itself
  const char* words = "";         // what it says then, and the record
  Reason reason = Reason::none;   // that was counted
  Phase last = Phase::follow;     // phase of the last cycle
  double distance = 0.0;          // rad that the commands went on after the last that followed a chunk; 0: all did
  double coast = 0.0;             // rad that the device went on until it stood, from where it was then or at the fault
  std::vector<Shown> record;      // what the flight record shows
};

const Phase stopped = Phase::stopped;
const HalCall kRead = HalCall::read, kWrite = HalCall::write, kFrame = HalCall::frame;

// The joint moves at 0.44 to 0.48 rad/s in most rows. Holding brakes with half of 20 rad/s^2: v^2 / 2a = 0.0108 rad
// from 0.464 rad/s; an inference that fails brakes with all of it, after a jerk of 1000 rad/s^3 has brought that about.
// The device lags 50 ms behind, 0.023 rad at that speed; joints that are not measured are followed on for 0.1 s, 0.046
// rad.
const std::vector<Fault> matrix = {
    {.name = "latency spike, short",
     .delays = {1, 1, 10, 1, 1, 1, 1, 1, 1, 1},
     .reason = Reason::hold,
     .distance = 0.0108,
     .record = {held(59, 59), aged(1.8)}},
    {.name = "latency spike, long",
     .delays = {1, 1, 60},
     .ends = true,
     .words = "no admissible command for too long; the robot was braked to a stand. Safety stages that objected: "
              "hold=100 stop=1.",
     .reason = Reason::stop,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0353,
     .record = {last_chunk(2), held(100, 100), aged(2.0)}},
    {.name = "one duplicate",
     .spoil = repeated,
     .once = true,
     .reason = Reason::mismatch,
     .record = {without_chunk(kFirst), held(0, 0), aged(1.0)}},
    {.name = "one of an old number",
     .spoil = of_an_old_number,
     .once = true,
     .reason = Reason::sequence,
     .record = {without_chunk(kFirst), held(0, 0), aged(1.0)}},
    {.name = "one of another epoch",
     .spoil = of_another_epoch,
     .once = true,
     .reason = Reason::epoch,
     .record = {without_chunk(kFirst), held(0, 0), aged(1.0)}},
    {.name = "one of NaN",
     .spoil = with_nan,
     .once = true,
     .reason = Reason::non_finite,
     .record = {without_chunk(kFirst), held(0, 0), aged(1.0)}},
    {.name = "one far off",
     .spoil = far_off,
     .once = true,
     .reason = Reason::first_step,
     .record = {without_chunk(kFirst), held(0, 0), aged(1.0)}},
    {.name = "one lost",
     .lost = true,
     .once = true,
     .reason = Reason::shape,
     .record = {without_chunk(kFirst), held(0, 0), aged(1.0)}},
    {.name = "duplicates for ever",
     .spoil = repeated,
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: mismatch=10",
     .reason = Reason::mismatch,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0353,
     .record = {last_chunk(2), held(60, 60), aged(1.8)}},
    {.name = "old numbers for ever",
     .spoil = of_an_old_number,
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: sequence=10",
     .reason = Reason::sequence,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0353,
     .record = {last_chunk(2), held(60, 60), aged(1.8)}},
    {.name = "another epoch for ever",
     .spoil = of_another_epoch,
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: epoch=10",
     .reason = Reason::epoch,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0353,
     .record = {last_chunk(2), held(60, 60), aged(1.8)}},
    {.name = "NaN for ever",
     .spoil = with_nan,
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: non_finite=10",
     .reason = Reason::non_finite,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0353,
     .record = {last_chunk(2), held(60, 60), aged(1.8)}},
    {.name = "targets far off for ever",
     .spoil = far_off,
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: first_step=10",
     .reason = Reason::first_step,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0353,
     .record = {last_chunk(2), held(60, 60), aged(1.8)}},
    {.name = "all lost",
     .lost = true,
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: shape=10",
     .reason = Reason::shape,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0353,
     .record = {last_chunk(2), held(60, 60), aged(1.8)}},
    {.name = "dead inference",
     .spoil = none_at_all,
     .ends = true,
     .words = "out of memory",
     .reason = Reason::stop,
     .last = stopped,
     .distance = 0.0079,
     .coast = 0.0178,
     .record = {last_chunk(2), held(0, 0), braked(5, 12)}},
    {.name = "frozen camera",
     .driver = {{.call = kFrame, .kind = FaultKind::freeze, .from = 500}},
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: obs_age=10",
     .reason = Reason::obs_age,
     .last = stopped,
     .distance = 0.004,
     .coast = 0.0178,
     .record = {last_chunk(5), held(60, 60), aged(2.6)}},
    {.name = "stale joints",
     .driver = {{.call = kRead, .from = kLate, .status = Status::stale}},
     .ends = true,
     .words = "no admissible command",
     .reason = Reason::stop,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0838,
     .record = {blind_from(kLate - 1), held(100, 100)}},
    {.name = "joints of NaN",
     .driver = {{.call = kRead, .kind = FaultKind::offset, .from = kLate, .joint = 1, .value = kNaN}},
     .ends = true,
     .words = "no admissible command",
     .reason = Reason::stop,
     .last = stopped,
     .distance = 0.0108,
     .coast = 0.0838,
     .record = {blind_from(kLate - 1), held(100, 100)}},
    {.name = "joints that are late",
     .driver = {{.call = kRead, .kind = FaultKind::late, .from = kLate, .ticks = 8}},
     .record = {held(0, 0), behind(0.044), aged(1.0)}},
    {.name = "some joints lost",
     .driver = {{.call = kRead, .kind = FaultKind::drop, .from = 100, .probability = 0.3}},
     .record = {held(0, 0), behind(0.047), aged(1.0)}},
    {.name = "some commands lost",
     .driver = {{.call = kWrite, .kind = FaultKind::drop, .from = 100, .probability = 0.3}},
     .record = {held(0, 0), behind(0.034), aged(1.0)}},
    {.name = "commands that come late",
     .driver = {{.call = kWrite, .kind = FaultKind::late, .from = kLate, .ticks = 4}},
     .record = {held(0, 0), behind(0.035), aged(1.0)}},
    {.name = "all commands lost",
     .driver = {{.call = kWrite, .kind = FaultKind::drop, .from = 700}},
     .ends = true,
     .words = "10 chunks in a row were refused. Safety stages that objected: first_step=10",
     .reason = Reason::first_step,
     .last = stopped,
     .distance = 0.004,
     .coast = 0.0097,
     .record = {behind(1.0), held(60, 60)}},
    {.name = "stalled driver",
     .driver = {{.call = kWrite, .from = kLate, .status = Status::retry}},
     .ends = true,
     .words = "took no command",
     .coast = 0.0217,
     .record = {held(0, 0), ends_at(kLate + 21)}},
    {.name = "a driver that hangs for a second",
     .driver = {{.call = kWrite, .kind = FaultKind::stall, .from = kLate, .count = 1, .seconds = 1.0}},
     .distance = 0.0115,
     .record = {gap(1.0), held(10, 40)}},
    {.name = "a driver that refuses one command after such a gap",
     .driver = {{.call = kWrite, .kind = FaultKind::stall, .from = kLate, .count = 1, .seconds = 1.0},
                {.call = kWrite, .from = kLate + 1, .count = 1, .status = Status::retry}},
     .distance = 0.0115,
     .record = {gap(1.0), held(10, 40)}},
    {.name = "failing driver",
     .driver = {{.call = kRead, .from = kLate}},
     .ends = true,
     .words = "could not read",
     .coast = 0.002,
     .record = {held(0, 0), ends_at(kLate - 1)}},
};

/// A sine that is spoilt as the fault says.
std::shared_ptr<Policy> policy_of(const Fault& fault) {
  auto before = std::make_shared<ActionChunk>();
  const auto struck = [&fault](uint64_t n) { return fault.once ? n == kFirst : n >= kFirst; };
  auto policy = std::make_shared<TestPolicy>([&fault, before, struck](const Observation& o, ActionChunk& c) {
    fill_sine(o, c);
    const ActionChunk good = c;
    if (fault.spoil && struck(c.sequence)) fault.spoil(c, *before);
    *before = good;
  });
  if (fault.lost) policy->loses = struck;
  return policy;
}

/// How far the device has gone on until it stands, rad: since the cycle before the commands stopped, or before its
/// driver took them no more. What ended the run or not, it stands soon: its dead-man time sees to that. A second later
/// it must be where it is now.
double coasted(const Fault& fault, VirtualRun& run, const RunRecord& r,
               const std::function<void(const std::string&)>& wrong) {
  std::vector<double> q(kDof), dq(kDof), tau(kDof);
  State state{.q = q, .dq = dq, .tau = tau};
  run.clock->advance(1'000'000'000);
  run.hal->read(state);  // it moves the device to now
  const std::vector<double> at = q;
  run.clock->advance(1'000'000'000);
  run.hal->read(state);
  if (at != q || dq != std::vector<double>(kDof, 0.0)) wrong("the device went on moving");
  size_t since = interruption(r).from;
  for (const HalFault& f : fault.driver)
    if (f.call == HalCall::write) since = std::min<size_t>(since, f.from - 1);
  return std::abs(q[kJoint] - r.measured[(since - 1) * kDof + kJoint]);
}

/// The flight record that a run has left in `folder`, as bytes; there must be one, and it is removed.
std::string dumped(const std::filesystem::path& folder) {
  std::string bytes;
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    std::ifstream in(file.path(), std::ios::binary);
    bytes += std::string(std::istreambuf_iterator<char>(in), {});
  }
  std::filesystem::remove_all(folder);
  return bytes;
}

/// What the record must hold: why the run ended, the motion before the fault, and what the row says of it.
void check_record(const Fault& fault, const RunRecord& r, const std::string& file,
                  const std::function<void(const std::string&)>& wrong) {
  if (file.find(fault.ends ? fault.words : "asked to stop") == std::string::npos) wrong("the dump does not say why");
  if (file.find("\"reference\"") == std::string::npos) wrong("the dump lacks columns");
  const auto follow = static_cast<uint8_t>(Phase::follow);
  if (std::count(r.phase.begin(), r.phase.end(), follow) < 100) wrong("the motion before the fault is not recorded");
  if (fault.record.empty() || (fault.ends && !*fault.words)) wrong("the row does not say what the record shows");
  for (const Shown& shown : fault.record)
    if (!shown.there(r)) wrong("the record lacks " + shown.what);
}

void try_out(const Fault& fault) {
  const auto folder = std::filesystem::temp_directory_path() / ("wamcore_faults_" + std::to_string(getpid()));
  VirtualRun run(policy_of(fault), {.dump = folder.string()}, fault.delays, robot(1));
  for (const HalFault& f : fault.driver) run.faults->inject(f);
  const std::string words = run_to_error(*run.runner, 12.0);
  const RunnerStats s = run.runner->stats();
  const RunRecord r = run.runner->record();
  const bool ended = !words.empty();
  const std::function<void(const std::string&)> wrong = [&](const std::string& what) {
    check::fail(__FILE__, __LINE__, std::string(fault.name) + ": " + what + ". " + words);
  };
  for (const HalFault& f : fault.driver)
    if (run.faults->struck(f.call) == 0)
      wrong("was not injected");
    else if (f.kind == FaultKind::stall && run.hal->lapses() == 0)
      wrong("the device did not stop by itself meanwhile");
  if (ended != fault.ends) wrong("ended or not");
  if (words.find(fault.words) == std::string::npos) wrong("says another thing");
  if (fault.reason != Reason::none && count(s, fault.reason) == 0) wrong("was not counted");
  if (static_cast<Phase>(r.phase.back()) != fault.last) wrong("last phase is " + std::to_string(r.phase.back()));
  const double distance = stop_distance(r);
  if (std::abs(distance - fault.distance) > kClose) wrong("commands went on for " + std::to_string(distance) + " rad");
  // A distance says something only of a joint that moves.
  if (fault.distance > 0.0 && speed_before(r) < 0.2) wrong("was slow, " + std::to_string(speed_before(r)) + " rad/s");
  const bool stands = std::equal(r.command.end() - kDof, r.command.end(), r.command.end() - 2 * kDof);
  if (fault.last == Phase::stopped && !stands) wrong("does not stand");
  if (ended == run.hal->active() || (ended && run.hal->stops() == 0)) wrong("the device was left in the wrong state");
  if (!worst(r.command, limits(), kPeriod, {0, 0}).within()) wrong("left the limits");
  if (ended) {
    const double coast = coasted(fault, run, r, wrong);
    if (std::abs(coast - fault.coast) > kClose) wrong("the device went on for " + std::to_string(coast) + " rad");
  }
  run.runner->stop();
  check_record(fault, run.runner->record(), dumped(folder), wrong);
}

}  // namespace

TEST(fault_matrix) {
  for (const Fault& fault : matrix) try_out(fault);
}

TEST(a_clock_that_jumps) {
  auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
    for (size_t i = 0; i < c.q.size(); ++i)  // on from where the robot is, at 0.2 rad/s
      c.q[i] = o.state[i % kDof] + 0.02 * static_cast<double>(i / kDof);
  });
  VirtualRun run(policy, {.safety = {.hold_time = 2.0}});
  run.runner->start();
  run.runner->run(3.0);
  run.clock->advance(5'000'000'000);  // the machine slept
  run.runner->run(3.0);
  CHECK(run.runner->running() && run.hal->lapses() == 1);  // the device did not wait for us
  CHECK(worst(run.hal->commands(), limits(), kPeriod, {0, 0}).within());
  CHECK(run.runner->stats().phase == Phase::follow);
  const RunRecord r = run.runner->record();
  // It holds for a tick, which the first chunk after the jump takes: v^2 / 2a with half of 20 rad/s^2.
  CHECK(gap(5.0).there(r) && held(19, 21).there(r));
  CHECK_NEAR(speed_before(r), 0.2, 0.001);
  CHECK_NEAR(stop_distance(r), 0.002, 0.0001);
}

namespace {

/// What a run in another process leaves behind when it is killed; a page of shared memory.
struct Wire {
  uint64_t t_ns, valid_until_ns;
  double goal[kDof], at[kDof], speed[kDof];  // last command and where the device was then; rad, rad/s
  int writes;
};
constexpr int kWrites = 260;        // after so many the run is killed
constexpr double kSluggish = 0.3;   // s; a device that follows so slowly is far from its goal as long as that moves
constexpr double kFastest = 0.9;    // rad/s, of the motion below
constexpr double kValidity = 0.05;  // s

MockOptions sluggish_robot() {
  MockOptions options = robot();
  options.time_constant = kSluggish;
  return options;
}

/// A sluggish arm whose process is killed in the middle of a command.
class WiredHal final : public Hal {
 public:
  WiredHal(Wire* wire, std::shared_ptr<Clock> clock) : wire_(wire), inner_(std::move(clock), sluggish_robot()) {}
  Description configure(const HalConfig& c) override { return inner_.configure(c); }
  void activate(Mode m) override { inner_.activate(m); }
  Status read(State& s) noexcept override {
    const Status status = inner_.read(s);
    std::copy(s.q.begin(), s.q.end(), wire_->at);
    std::copy(s.dq.begin(), s.dq.end(), wire_->speed);
    return status;
  }
  Status write(const Command& c) noexcept override {
    std::copy(c.q.begin(), c.q.end(), wire_->goal);
    wire_->t_ns = c.t_ns, wire_->valid_until_ns = c.valid_until_ns;
    if (++wire_->writes == kWrites) kill(getpid(), SIGKILL);
    return inner_.write(c);
  }
  void deactivate() override { inner_.deactivate(); }
  void stop(StopKind) noexcept override { wire_->writes = -1; }
  void close() noexcept override { inner_.close(); }

 private:
  Wire* wire_;
  MockHal inner_;
};

/// The process that is killed.
[[noreturn]] void run_until_killed(Wire* wire) {
  try {
    const auto clock = std::make_shared<ManualClock>(1'000'000'000);
    auto policy = std::make_shared<TestPolicy>([](const Observation& o, ActionChunk& c) {
      for (int i = 0; i < c.horizon; ++i)
        for (size_t j = 0; j < kDof; ++j)
          c.q[static_cast<size_t>(i) * kDof + j] = 0.6 * (1 - std::cos(kFastest / 0.6 * kDt * double(o.tick + i)));
    });
    VirtualRunner runner(policy, std::make_shared<WiredHal>(wire, clock), limits(),
                         {.command_validity = kValidity, .safety = {.first_step_time = kFirstStep}, .clock = clock});
    runner.start();
    runner.run(60.0);
  } catch (...) {
  }
  _exit(1);
}

}  // namespace

TEST(killed_in_mid_motion_the_device_stops_by_itself) {
  // The device lives in this process, the run in another that is killed.
  void* page = mmap(nullptr, sizeof(Wire), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  Wire* wire = new (page) Wire{};
  const pid_t child = fork();
  if (child == 0) run_until_killed(wire);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
  CHECK(wire->writes == kWrites);  // and nobody could say stop
  const double way = wire->goal[0] - wire->at[0], expected = way * (1 - std::exp(-kValidity / kSluggish));
  CHECK(wire->speed[0] > 0.7 && way > 0.2);  // in full motion, far from where it was sent
  CHECK_NEAR(static_cast<double>(wire->valid_until_ns - wire->t_ns) * 1e-9, kValidity, 1e-6);
  for (const bool guarded : {true, false}) {
    auto clock = std::make_shared<ManualClock>(wire->t_ns);
    MockOptions options = sluggish_robot();
    options.start.assign(wire->at, wire->at + kDof);
    MockHal device(clock, options);
    device.configure({});
    device.activate(Mode::position);
    const std::vector<double> goal(wire->goal, wire->goal + kDof);
    const uint64_t until = guarded ? wire->valid_until_ns : UINT64_MAX;
    CHECK(device.write({.t_ns = wire->t_ns, .valid_until_ns = until, .q = goal}) == Status::ok);
    clock->advance(3'000'000'000);
    std::vector<double> at(kDof), dq(kDof), tau(kDof);
    State state{.q = at, .dq = dq, .tau = tau};
    CHECK(device.read(state) == Status::ok && device.lapses() == guarded);
    const double moved = at[0] - wire->at[0];
    if (!guarded) {
      CHECK(moved > 5 * expected);  // so far a device without a dead-man time would go on
      continue;
    }
    CHECK_NEAR(moved, expected, 1e-9);
    CHECK(moved > 0.02 && moved < kFastest * kValidity);
    clock->advance(1'000'000'000);
    CHECK(device.read(state) == Status::ok && at[0] - wire->at[0] == moved && dq[0] == 0.0);
  }
  munmap(page, sizeof(Wire));
}

CHECK_MAIN()
