#include "proxy.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "wamcore/error.h"

namespace wam {

ProxyHal::ProxyHal(std::shared_ptr<Hal> inner, std::shared_ptr<Clock> clock, uint64_t period_ns)
    : inner_(std::move(inner)), clock_(std::move(clock)), period_ns_(period_ns), thread_([this] { run(); }) {}

ProxyHal::~ProxyHal() {
  {
    const std::scoped_lock lock(mutex_);
    quit_ = true;
  }
  changed_.notify_all();
  clock_->run_free();
  thread_.join();
}

void ProxyHal::run() {
  uint64_t next = clock_->now_ns();
  std::unique_lock lock(mutex_);
  while (!quit_) {
    if (job_) {
      const std::function<void()> job = std::move(job_);
      job_ = nullptr;
      lock.unlock();
      std::exception_ptr error;
      try {
        job();
      } catch (...) {
        error = std::current_exception();
      }
      lock.lock();
      job_error_ = std::move(error);
      job_done_ = true;
      changed_.notify_all();
      continue;
    }
    if (!active_) {
      // stop() leaves no note under the lock, so an idle thread looks for one now and then.
      changed_.wait_for(lock, std::chrono::milliseconds(20), [this] { return quit_ || job_; });
      next = clock_->now_ns();
      const int wish = stop_wish_.exchange(-1);
      if (wish >= 0) {
        lock.unlock();
        inner_->stop(static_cast<StopKind>(wish));
        lock.lock();
      }
      continue;
    }
    lock.unlock();
    serve();
    next = std::max(next + period_ns_, clock_->now_ns());  // rounds that came late are skipped
    clock_->sleep_until(next);
    lock.lock();
  }
}

void ProxyHal::call(std::function<void()> job) {
  if (std::this_thread::get_id() == thread_.get_id()) return job();
  const std::scoped_lock one(callers_);
  std::unique_lock lock(mutex_);
  job_ = std::move(job);
  job_done_ = false;
  changed_.notify_all();
  changed_.wait(lock, [this] { return job_done_; });
  if (job_error_) std::rethrow_exception(std::exchange(job_error_, nullptr));
}

Status ProxyHal::read_inner(Joints& joints) noexcept {
  wam::State state{.q = joints.q, .dq = joints.dq, .tau = joints.tau};
  const Status status = inner_->read(state);
  joints.t_ns = state.t_ns ? state.t_ns : clock_->now_ns();
  fault_bits_.fetch_or(state.fault_bits);
  return status;
}

void ProxyHal::serve() noexcept {
  const int wish = stop_wish_.exchange(-1);
  if (wish >= 0) {
    inner_->stop(static_cast<StopKind>(wish));
    written_ = false;
  }
  Status status = read_inner(joints_->draft());
  if (status == Status::ok) joints_->publish();
  const bool fresh = orders_->fetch();
  const Order& order = orders_->latest();
  const uint64_t now = clock_->now_ns();
  bool taken = false;
  if (fresh && status != Status::fault && now <= order.valid_until_ns) {
    const Status wrote = inner_->write(
        {.t_ns = order.t_ns, .valid_until_ns = order.valid_until_ns, .mode = order.mode, .q = order.q, .dq = order.dq});
    if (wrote == Status::fault || wrote == Status::estop) status = wrote;
    write_status_ = wrote;
    taken = wrote == Status::ok;
  }
  if (taken) {
    written_ = true;
    valid_until_ns_ = order.valid_until_ns;
  } else if (written_ && now > valid_until_ns_) {
    inner_->stop(StopKind::hold);  // nobody has renewed the command in time, or the driver did not take what came
    written_ = false;
  }
  if (status == Status::estop) estop_ = true;
  // A fault stays; anything else is what the last round found.
  if (inner_status_.load(std::memory_order_relaxed) != Status::fault) inner_status_ = status;
  served_ns_ = clock_->now_ns();
}

Description ProxyHal::configure(const HalConfig& config) {
  Description description;
  call([&] { description = inner_->configure(config); });
  dof_ = description.joints.size();
  const std::vector<double> zeros(dof_, 0.0);
  joints_ = std::make_unique<Mailbox<Joints>>(Joints{.q = zeros, .dq = zeros, .tau = zeros});
  orders_ = std::make_unique<Mailbox<Order>>(Order{.q = zeros, .dq = zeros});
  return description;
}

void ProxyHal::activate(Mode mode) {
  if (!joints_) throw RobotError("ProxyHal.activate: wants a configured driver");
  call([&] {
    inner_->activate(mode);
    inner_status_ = write_status_ = Status::ok;
    estop_ = false;
    stop_wish_ = -1;
    written_ = false;
    // The first measurement must be there before anybody asks for it: the filter is seeded from it.
    if (read_inner(joints_->draft()) != Status::ok) {
      const std::string why = inner_->error();
      inner_->stop(StopKind::hold);
      try {
        inner_->deactivate();
      } catch (...) {  // it follows from what is told
      }
      throw RobotError("ProxyHal.activate: the joints could not be read: " + why);
    }
    joints_->publish();
    served_ns_ = clock_->now_ns();
    active_ = true;
  });
}

Status ProxyHal::read(State& state) noexcept {
  // The bits come with a fault too, and however short they were there.
  const Status status = inner_status_.load();
  state.fault_bits = fault_bits_.exchange(0);
  if (status == Status::fault) return status;
  if (estop_.exchange(false) || status == Status::estop) return Status::estop;  // however short it was pressed
  if (!joints_->fetch()) return Status::stale;
  const Joints& joints = joints_->latest();
  std::copy_n(joints.q.begin(), std::min(dof_, state.q.size()), state.q.begin());
  std::copy_n(joints.dq.begin(), std::min(dof_, state.dq.size()), state.dq.begin());
  std::copy_n(joints.tau.begin(), std::min(dof_, state.tau.size()), state.tau.begin());
  state.t_ns = joints.t_ns;
  return Status::ok;
}

Status ProxyHal::write(const Command& command) noexcept {
  const Status status = inner_status_.load(std::memory_order_relaxed);
  if (status == Status::fault || status == Status::estop) return status;
  if (command.q.size() != dof_) return Status::fault;
  Order& order = orders_->draft();
  order.t_ns = command.t_ns;
  order.valid_until_ns = command.valid_until_ns;
  order.mode = command.mode;
  std::copy(command.q.begin(), command.q.end(), order.q.begin());
  std::copy_n(command.dq.begin(), std::min(dof_, command.dq.size()), order.dq.begin());
  orders_->publish();
  // A driver that has not come round since well before this command has not taken the last one either.
  const uint64_t served = served_ns_.load(std::memory_order_relaxed);
  if (served + 4 * period_ns_ < command.t_ns) return Status::stale;
  const Status wrote = write_status_.load(std::memory_order_relaxed);
  return wrote == Status::stale || wrote == Status::retry ? wrote : Status::ok;
}

void ProxyHal::deactivate() {
  call([&] {
    const int wish = stop_wish_.exchange(-1);  // asked for before, so done before
    if (wish >= 0) inner_->stop(static_cast<StopKind>(wish));
    active_ = false;
    inner_->deactivate();
  });
}

void ProxyHal::stop(StopKind kind) noexcept { stop_wish_ = static_cast<int>(kind); }

void ProxyHal::close() noexcept {
  call([&] {
    active_ = false;
    inner_->close();
  });
}

Status ProxyHal::frame(int camera, FrameView& view) noexcept {
  Status status = Status::fault;
  call([&] { status = inner_->frame(camera, view); });
  return status;
}

std::string ProxyHal::error() const { return inner_->error(); }

}  // namespace wam
