#pragma once

#include <memory>
#include <vector>

#include "wamcore/policy.h"

namespace wam {

/// Which joint a channel of a model means, and how: joint = scale * channel + offset, in the joint's unit.
struct Channel {
  int joint = 0;
  double scale = 1.0;
  double offset = 0.0;  // rad (m for a sliding joint)
};

/// A policy for a robot whose joints differ from the model's channels in order, unit or zero: observations and chunks
/// are translated on their way in and out. What is outside, limits and safety included, speaks of joints only.
class WAMCORE_API ChannelPolicy final : public Policy {
 public:
  /// `actions` has an entry for each channel of the inner policy's chunks and names every joint once; `states` has one
  /// for each entry of the state that it wants. Throws ConfigError.
  ChannelPolicy(std::shared_ptr<Policy> inner, std::vector<Channel> actions, std::vector<Channel> states);

  void infer(const Observation& obs, ActionChunk& out) override;
  Continuity continuity() const noexcept override { return inner_->continuity(); }
  void extend(const Observation& obs, const Continuation& plan, ActionChunk& out) override;
  double dt() const override { return inner_->dt(); }
  int horizon() const override { return inner_->horizon(); }
  int dof() const override { return static_cast<int>(actions_.size()); }
  std::vector<int> frame_offsets() const override { return inner_->frame_offsets(); }
  uint32_t epoch() const noexcept override { return inner_->epoch(); }

 private:
  const Observation& to_channels(const Observation& obs);
  void to_joints(ActionChunk& chunk) const;

  std::shared_ptr<Policy> inner_;
  std::vector<Channel> actions_, states_;
  Observation seen_;   // the model's view of the last observation; kept for its memory
  Continuation plan_;  // likewise
};

}  // namespace wam
