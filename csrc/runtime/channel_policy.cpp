#include "wamcore/channel_policy.h"

#include <cmath>
#include <string>

#include "wamcore/error.h"

namespace wam {
namespace {

[[noreturn]] void refuse(const std::string& what) { throw ConfigError("ChannelPolicy: " + what); }

void check_scale(const Channel& c) {
  if (!std::isfinite(c.scale) || c.scale == 0.0 || !std::isfinite(c.offset))
    refuse("a channel of joint " + std::to_string(c.joint) + " wants finite numbers and a scale other than 0");
}

}  // namespace

ChannelPolicy::ChannelPolicy(std::shared_ptr<Policy> inner, std::vector<Channel> actions, std::vector<Channel> states)
    : inner_(std::move(inner)), actions_(std::move(actions)), states_(std::move(states)) {
  if (!inner_) refuse("wants a policy, got none");
  if (inner_->dof() != static_cast<int>(actions_.size()))
    refuse("the policy has " + std::to_string(inner_->dof()) + " action channels, " + std::to_string(actions_.size()) +
           " are named");
  std::vector<bool> taken(actions_.size());
  for (const Channel& c : actions_) {
    check_scale(c);
    const auto j = static_cast<size_t>(c.joint);
    if (c.joint < 0 || j >= taken.size() || taken[j])
      refuse("actions want every joint once, got " + std::to_string(c.joint));
    taken[j] = true;
  }
  for (const Channel& c : states_) {
    check_scale(c);
    if (c.joint < 0 || static_cast<size_t>(c.joint) >= actions_.size())
      refuse("states want joints 0 to " + std::to_string(actions_.size() - 1) + ", got " + std::to_string(c.joint));
  }
}

const Observation& ChannelPolicy::to_channels(const Observation& obs) {
  if (obs.state.size() != actions_.size())
    throw InputError("ChannelPolicy.infer: wanted a state of " + std::to_string(actions_.size()) + " joints, got " +
                     std::to_string(obs.state.size()));
  seen_ = obs;
  seen_.state.clear();
  for (const Channel& c : states_)
    seen_.state.push_back((obs.state[static_cast<size_t>(c.joint)] - c.offset) / c.scale);
  return seen_;
}

void ChannelPolicy::to_joints(ActionChunk& chunk) const {
  const size_t dof = actions_.size();
  if (chunk.dof != static_cast<int>(dof) || chunk.q.size() % dof != 0) return;  // the safety filter refuses it
  std::vector<double> row(dof);
  for (size_t r = 0; r < chunk.q.size(); r += dof) {
    for (size_t i = 0; i < dof; ++i)
      row[static_cast<size_t>(actions_[i].joint)] = actions_[i].scale * chunk.q[r + i] + actions_[i].offset;
    std::copy(row.begin(), row.end(), chunk.q.begin() + static_cast<ptrdiff_t>(r));
  }
}

void ChannelPolicy::infer(const Observation& obs, ActionChunk& out) {
  inner_->infer(to_channels(obs), out);
  to_joints(out);
}

void ChannelPolicy::extend(const Observation& obs, const Continuation& plan, ActionChunk& out) {
  const size_t dof = actions_.size();
  plan_ = plan;
  for (size_t r = 0; r + dof <= plan.q.size(); r += dof)
    for (size_t i = 0; i < dof; ++i)
      plan_.q[r + i] = (plan.q[r + static_cast<size_t>(actions_[i].joint)] - actions_[i].offset) / actions_[i].scale;
  inner_->extend(to_channels(obs), plan_, out);
  to_joints(out);
}

}  // namespace wam
