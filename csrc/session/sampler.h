#pragma once

#include <memory>
#include <vector>

#include "core/trace.h"
#include "flow/denoiser.h"
#include "flow/prefix_guidance.h"
#include "flow/solver.h"
#include "flow/step_skip.h"
#include "session/sample_schedule.h"

namespace wam {

/// Remembers the observed frames, then denoises video latents and actions together, step by step (guidance on video
/// only). A backend that knows whole chunks runs them as one list; here, pass by pass, is what they are compared with.
class Sampler {
 public:
  Sampler(SampleSchedule schedule, Denoiser& denoiser);
  /// Every program of a whole context now, so that no chunk compiles or allocates one.
  void prepare();

  struct Inputs {
    ObservedFrames observed;
    int start = 0;                 // context frame of the block
    const float* y = nullptr;      // its conditioning latents; nullptr: none
    const float* state = nullptr;  // [max_state_dim]
    const float *video_noise = nullptr, *action_noise = nullptr;
    const PrefixGuidance* guidance = nullptr;  // pulls the actions toward a plan; nullptr: nothing does
  };
  /// Fills video() and action() from the given noise.
  void run(const Inputs& in, Tracer& trace);

  float* video() { return video_.data<float>(); }    // [channels, frames, height, width]
  float* action() { return action_.data<float>(); }  // [horizon, action_dim]
  const std::vector<int>& steps_run() const { return steps_run_; }
  bool whole_chunks() const { return chunks_ != nullptr; }

 private:
  struct Kind {  // of chunk: the passes depend on where in the context it lies
    int observed = 0, start = 0;
  };
  std::vector<Kind> kinds() const;
  ChunkSpec describe(const Kind& kind) const;
  void run_whole(const Inputs& in, Tracer& trace);
  bool fuses(const ObservedFrames& observed, int start) const;
  void remember(const ObservedFrames& observed, Tracer& trace);
  void velocities(int step, const Inputs& in);
  void put_clean_rows(const PrefixGuidance* guidance);
  const float* action_velocity(int step, const PrefixGuidance* guidance);
  double pull(int step, const PrefixGuidance& guidance) const;
  void hold_unimagined(const float* video_noise);

  Denoiser& denoiser_;
  SampleSchedule schedule_;
  bool multistep_;  // the solvers work on predicted data
  Solver video_solver_, action_solver_;
  StepSkipper skipper_;
  Tensor video_, action_, velocity_, unconditional_, action_velocity_, unused_action_, guided_action_;
  bool fuse_ = false;             // observed frames and the first step's pass are one
  std::vector<float> timesteps_;  // of the pass that is run: 0 if it observes, [frames], [1 or actions]
  size_t action_times_ = 1;       // actions have one time, or each its own where some may be given clean
  int64_t clean_rows_ = 0;        // of the actions of this chunk
  std::vector<int> steps_run_;
  std::vector<float> pulls_;              // [steps]
  std::unique_ptr<ChunkSampler> chunks_;  // nullptr: pass by pass
};

}  // namespace wam
