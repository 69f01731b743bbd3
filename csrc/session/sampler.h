#pragma once

#include <vector>

#include "core/trace.h"
#include "flow/denoiser.h"
#include "flow/prefix_guidance.h"
#include "flow/schedule.h"
#include "flow/solver.h"
#include "flow/step_skip.h"
#include "wamcore/session.h"

namespace wam {

/// The checkpoint's sampling with the session's changes applied and checked. Throws ConfigError.
SampleConfig resolve(const SampleConfig& config, const SampleOptions& options);

/// Denoises video latents and actions together, step by step (guidance on video only).
class Sampler {
 public:
  Sampler(const SampleConfig& config, const Imagine& imagine, Denoiser& denoiser);

  /// Fills video() and action() from the given noise. `start` is the context frame of the block, y its conditioning
  /// latents or nullptr, state [max_state_dim]. `guidance` pulls the actions toward a plan; nullptr = nothing does.
  void run(int start, const float* y, const float* state, const float* video_noise, const float* action_noise,
           Tracer& trace, const PrefixGuidance* guidance = nullptr);

  float* video() { return video_.data<float>(); }    // [channels, frames, height, width]
  float* action() { return action_.data<float>(); }  // [horizon, action_dim]
  const std::vector<int>& steps_run() const { return steps_run_; }

 private:
  void velocities(int step, int start, const float* y, const float* state);
  void put_clean_rows(const PrefixGuidance* guidance);
  const float* action_velocity(int step, const PrefixGuidance* guidance);
  void hold_unimagined(const float* video_noise);

  Denoiser& denoiser_;
  double guidance_;
  int frames_;    // latent frames of a block
  int imagined_;  // leading frames that are denoised
  FlowSchedule video_schedule_, action_schedule_;
  int video_steps_ = 0;  // steps that move the video
  bool multistep_;       // the solvers work on predicted data
  Solver video_solver_, action_solver_;
  StepSkipper skipper_;
  Tensor video_, action_, velocity_, unconditional_, action_velocity_, unused_action_, guided_action_, timesteps_;
  std::vector<int> steps_run_;
  int64_t clean_rows_ = 0;  // of the actions of this chunk
};

}  // namespace wam
