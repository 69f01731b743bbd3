class Arm final : public wam::Hal {
 public:
  wam::Description configure(const wam::HalConfig& config) override {  // connect; may be slow; moves nothing
    bus_.open(config.parameters.at("port"));
    return {.joints = {{.name = "shoulder"}, {.name = "elbow"}}, .has_hw_watchdog = true};
  }
  void activate(wam::Mode) override { bus_.enable(); }     // holds what is measured
  wam::Status read(wam::State& state) noexcept override {  // on the servo thread: no allocation, no lock
    return bus_.angles(state.q.data(), state.dq.data()) ? wam::Status::ok : wam::Status::stale;
  }
  wam::Status write(const wam::Command& command) noexcept override {  // the device refuses it after valid_until_ns
    return bus_.move(command.q.data(), command.valid_until_ns) ? wam::Status::ok : wam::Status::retry;
  }
  void deactivate() override { bus_.disable(); }
  void stop(wam::StopKind) noexcept override { bus_.halt(); }
  void close() noexcept override { bus_.close(); }

 private:
  Bus bus_;
};
