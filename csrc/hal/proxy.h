#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/mailbox.h"
#include "wamcore/clock.h"
#include "wamcore/hal.h"

namespace wam {

/// Runs a driver that is not fit for the servo thread (one in Python, say) on a thread of its own. The servo thread
/// only exchanges values with it through mailboxes; it never waits for the driver, nor for the interpreter lock. The
/// driver is called from that one thread only, set-up calls included. While active the thread serves the driver once a
/// period: forward a stop, read the joints, write the newest command if it has not expired. A command that expires
/// without a successor makes it stop the driver: the dead-man time holds even if the servo thread dies.
class WAMCORE_API ProxyHal final : public Hal {
 public:
  ProxyHal(std::shared_ptr<Hal> inner, std::shared_ptr<Clock> clock, uint64_t period_ns);
  ~ProxyHal() override;

  Description configure(const HalConfig& config) override;
  void activate(Mode mode) override;
  Status read(State& state) noexcept override;
  Status write(const Command& command) noexcept override;
  void deactivate() override;
  void stop(StopKind kind) noexcept override;
  void close() noexcept override;
  Status frame(int camera, FrameView& view) noexcept override;
  std::string error() const override;

 private:
  struct Joints {
    uint64_t t_ns = 0;
    std::vector<double> q, dq, tau;  // [dof]
  };
  struct Order {
    uint64_t t_ns = 0, valid_until_ns = 0;
    Mode mode = Mode::position;
    std::vector<double> q, dq;  // [dof]
  };
  void run();
  void serve() noexcept;
  Status read_inner(Joints& joints) noexcept;
  /// Runs `job` on the driver's thread and waits for it; throws what it throws.
  void call(std::function<void()> job);

  std::shared_ptr<Hal> inner_;
  std::shared_ptr<Clock> clock_;
  const uint64_t period_ns_;
  size_t dof_ = 0;  // from configure()

  std::unique_ptr<Mailbox<Joints>> joints_;  // driver -> servo
  std::unique_ptr<Mailbox<Order>> orders_;   // servo -> driver
  std::atomic<Status> inner_status_{Status::ok};
  std::atomic<Status> write_status_{Status::ok};  // what the driver said to the last command
  std::atomic<uint32_t> fault_bits_{0};           // every bit the servo thread has not heard of yet
  std::atomic<bool> estop_{false};                // it has said estop, and the servo thread has not heard it yet
  std::atomic<int> stop_wish_{-1};                // a StopKind that has not been forwarded yet
  std::atomic<uint64_t> served_ns_{0};            // when the driver's thread last finished a round
  bool active_ = false;                           // driver's thread only, like the rest of this group
  bool written_ = false;                          // a command is in force
  uint64_t valid_until_ns_ = 0;                   // of that command

  std::mutex mutex_;  // guards the job
  std::condition_variable changed_;
  std::function<void()> job_;
  std::exception_ptr job_error_;
  bool job_done_ = true;
  bool quit_ = false;
  std::mutex callers_;  // one job at a time
  std::thread thread_;
};

}  // namespace wam
