#include "wamcore/fault_injector.h"

#include <algorithm>
#include <cmath>

#include "wamcore/error.h"

namespace wam {
namespace {

constexpr int kLatest = 10'000;  // ticks

/// Whether an event of this probability happens; the same for the same three numbers (splitmix64).
bool happens(uint64_t seed, uint64_t fault, uint64_t tick, double probability) noexcept {
  uint64_t x = seed + 0x9e3779b97f4a7c15u * (fault + 1) + 0xbf58476d1ce4e5b9u * (tick + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  x ^= x >> 31;
  return static_cast<double>(x >> 11) * 0x1p-53 < probability;
}

bool can(HalCall call, FaultKind kind) {
  const bool servo = call == HalCall::read || call == HalCall::write;
  switch (kind) {
    case FaultKind::answer:
    case FaultKind::stall:
      return true;
    case FaultKind::drop:
      return servo || call == HalCall::frame;
    case FaultKind::freeze:
    case FaultKind::stuck:
    case FaultKind::skew:
      return call == HalCall::read || call == HalCall::frame;
    case FaultKind::late:
      return servo;
    case FaultKind::offset:
      return call == HalCall::read;
  }
  return false;
}

uint64_t shifted(uint64_t t_ns, double seconds) noexcept {
  return static_cast<uint64_t>(std::max<int64_t>(1, static_cast<int64_t>(t_ns) + std::llround(seconds * 1e9)));
}

}  // namespace

const char* name(HalCall call) noexcept {
  static constexpr const char* names[] = {"configure", "activate", "read", "write", "frame", "deactivate"};
  const auto i = static_cast<size_t>(call);
  return i < std::size(names) ? names[i] : "unknown";
}

const char* name(FaultKind kind) noexcept {
  static constexpr const char* names[] = {"answer", "drop", "freeze", "stuck", "late", "stall", "skew", "offset"};
  const auto i = static_cast<size_t>(kind);
  return i < std::size(names) ? names[i] : "unknown";
}

FaultInjector::FaultInjector(std::shared_ptr<Hal> inner, std::shared_ptr<Clock> clock, uint64_t seed)
    : inner_(std::move(inner)), clock_(std::move(clock)), seed_(seed) {
  if (!inner_ || !clock_) throw ConfigError("FaultInjector: wants a driver and a clock");
}

void FaultInjector::inject(const HalFault& f) {
  const auto refuse = [](const std::string& what) { throw ConfigError("FaultInjector.inject: " + what); };
  if (!can(f.call, f.kind)) refuse(std::string(name(f.call)) + " cannot fail by '" + name(f.kind) + "'");
  if (!(f.probability >= 0.0 && f.probability <= 1.0)) refuse("probability wants 0 to 1");
  if (f.kind == FaultKind::late && (f.ticks < 1 || f.ticks > kLatest)) refuse("ticks wants 1 to 10000");
  if (!std::isfinite(f.seconds) || std::abs(f.seconds) > 1e6 || (f.kind == FaultKind::stall && f.seconds < 0.0))
    refuse("seconds wants a number, of a stall not below 0");
  if (f.kind == FaultKind::late) {
    const size_t room = static_cast<size_t>(f.ticks) + 1;
    if (!measured_.empty() && room > measured_.size()) refuse("a fault of this length comes before configure()");
    room_ = std::max(room_, room);
  }
  faults_.push_back(f);
}

const HalFault* FaultInjector::strikes(HalCall call, uint64_t tick) noexcept {
  for (size_t i = 0; i < faults_.size(); ++i) {
    const HalFault& f = faults_[i];
    if (f.call != call || tick < f.from || tick - f.from >= f.count || !happens(seed_, i, tick, f.probability))
      continue;
    ++struck_[static_cast<size_t>(call)];
    return &f;
  }
  return nullptr;
}

void FaultInjector::stall(double seconds) noexcept {
  const auto ns = static_cast<uint64_t>(seconds * 1e9);
  if (auto* manual = dynamic_cast<ManualClock*>(clock_.get()))
    manual->advance(ns);
  else
    clock_->sleep_until(clock_->now_ns() + ns);
}

void FaultInjector::set_up(HalCall call, const char* what) {
  const HalFault* f = strikes(call, tick_);
  if (!f) return;
  if (f->kind == FaultKind::answer) throw RobotError(std::string("FaultInjector.") + what + ": injected fault");
  stall(f->seconds);
}

Description FaultInjector::configure(const HalConfig& config) {
  set_up(HalCall::configure, "configure");
  const Description d = inner_->configure(config);
  if (measured_.size() == room_ && measured_[0].q.size() == d.joints.size()) return d;  // again
  const std::vector<double> zeros(d.joints.size(), 0.0);
  const Sample empty{.q = zeros, .dq = zeros, .tau = zeros};
  measured_.assign(room_, empty);
  commands_.assign(room_, empty);
  views_.assign(d.cameras.size(), {});
  return d;
}

void FaultInjector::activate(Mode mode) {
  tick_ = 0;
  written_ = 0;
  set_up(HalCall::activate, "activate");
  inner_->activate(mode);
}

void FaultInjector::deactivate() {
  set_up(HalCall::deactivate, "deactivate");
  inner_->deactivate();
}

Status FaultInjector::read(State& state) noexcept {
  const uint64_t tick = tick_.fetch_add(1);
  const HalFault* f = strikes(HalCall::read, tick);
  if (f && f->kind == FaultKind::stall) stall(f->seconds);
  // The device is asked all the same: a simulated one moves then.
  Status status = inner_->read(state);
  answered_ = f && f->kind == FaultKind::answer;
  if (answered_) return f->status;
  if (status != Status::ok) return status;
  if (state.t_ns == 0) state.t_ns = clock_->now_ns();
  if (measured_.empty() || state.q.size() != measured_[0].q.size()) return Status::fault;
  const bool holds = f && (f->kind == FaultKind::freeze || f->kind == FaultKind::stuck) && tick > 0;
  Sample& now = measured_[tick % measured_.size()];
  if (holds) {
    now = measured_[(tick - 1) % measured_.size()];  // of equal size: no allocation
  } else {
    std::copy(state.q.begin(), state.q.end(), now.q.begin());
    std::copy_n(state.dq.begin(), std::min(state.dq.size(), now.dq.size()), now.dq.begin());
    std::copy_n(state.tau.begin(), std::min(state.tau.size(), now.tau.size()), now.tau.begin());
    now.t_ns = state.t_ns;
  }
  if (f && f->kind == FaultKind::drop) return Status::stale;
  if (f) change(*f, state);
  return status;
}

void FaultInjector::change(const HalFault& f, State& state) noexcept {
  const uint64_t tick = tick_ - 1, device = state.t_ns;
  if (f.kind == FaultKind::freeze || f.kind == FaultKind::stuck || f.kind == FaultKind::late) {
    const uint64_t back = f.kind == FaultKind::late ? std::min<uint64_t>(tick, static_cast<uint64_t>(f.ticks)) : 0;
    const Sample& sample = measured_[(tick - back) % measured_.size()];
    std::copy(sample.q.begin(), sample.q.end(), state.q.begin());
    std::copy_n(sample.dq.begin(), state.dq.size(), state.dq.begin());
    std::copy_n(sample.tau.begin(), state.tau.size(), state.tau.begin());
    state.t_ns = f.kind == FaultKind::stuck ? device : sample.t_ns;
  } else if (f.kind == FaultKind::skew) {
    state.t_ns = shifted(state.t_ns, f.seconds);
  } else if (f.kind == FaultKind::offset) {
    for (size_t j = 0; j < state.q.size(); ++j)
      if (f.joint < 0 || static_cast<size_t>(f.joint) == j) state.q[j] += f.value;
  }
}

Status FaultInjector::write(const Command& command) noexcept {
  const uint64_t tick = tick_.load();
  const HalFault* f = strikes(HalCall::write, tick ? tick - 1 : 0);
  answered_ = f && f->kind == FaultKind::answer;
  if (answered_) return f->status;
  if (f && f->kind == FaultKind::stall) stall(f->seconds);
  if (commands_.empty() || command.q.size() != commands_[0].q.size()) return Status::fault;
  Sample& now = commands_[written_++ % commands_.size()];
  std::copy(command.q.begin(), command.q.end(), now.q.begin());
  std::copy_n(command.dq.begin(), std::min(command.dq.size(), now.dq.size()), now.dq.begin());
  now.t_ns = command.t_ns;
  now.valid_until_ns = command.valid_until_ns;
  now.mode = command.mode;
  if (f && f->kind == FaultKind::drop) return Status::ok;
  if (f && f->kind == FaultKind::late) return write_late(command, f->ticks);
  return inner_->write(command);
}

Status FaultInjector::write_late(const Command& command, int ticks) noexcept {
  if (written_ <= static_cast<uint64_t>(ticks)) return Status::ok;  // nothing has arrived yet
  const Sample& old = commands_[(written_ - 1 - static_cast<uint64_t>(ticks)) % commands_.size()];
  Command late = command;
  late.t_ns = old.t_ns;
  late.valid_until_ns = old.valid_until_ns;
  late.mode = old.mode;
  late.q = old.q;
  if (!command.dq.empty()) late.dq = old.dq;
  return inner_->write(late);
}

Status FaultInjector::frame(int camera, FrameView& view) noexcept {
  const uint64_t tick = tick_.load();
  const HalFault* f = strikes(HalCall::frame, tick ? tick - 1 : 0);
  answered_ = f && f->kind == FaultKind::answer;
  if (answered_) return f->status;
  if (f && f->kind == FaultKind::drop) return Status::stale;
  if (f && f->kind == FaultKind::stall) stall(f->seconds);
  if (camera < 0 || static_cast<size_t>(camera) >= views_.size()) return Status::fault;
  FrameView& last = views_[static_cast<size_t>(camera)];
  const bool holds = f && (f->kind == FaultKind::freeze || f->kind == FaultKind::stuck) && last.rgb;
  if (holds) {  // the driver is not asked, so its last frame stays valid
    view = last;
    if (f->kind == FaultKind::stuck) view.t_ns = clock_->now_ns();
    return Status::ok;
  }
  const Status status = inner_->frame(camera, view);
  if (status != Status::ok) return status;
  if (view.t_ns == 0) view.t_ns = clock_->now_ns();
  last = view;
  if (f && f->kind == FaultKind::skew) view.t_ns = shifted(view.t_ns, f->seconds);
  return status;
}

std::string FaultInjector::error() const { return answered_ ? "injected fault" : inner_->error(); }

}  // namespace wam
