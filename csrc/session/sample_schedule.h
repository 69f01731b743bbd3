#pragma once

#include <vector>

#include "flow/schedule.h"
#include "flow/solver.h"
#include "model/families/dreamzero_config.h"
#include "wamcore/session.h"

namespace wam {

/// The checkpoint's sampling with the session's changes applied and checked. Throws ConfigError.
SampleConfig resolve(const SampleConfig& config, const SampleOptions& options);

/// What the steps of a session's chunks do, as far as that does not depend on what the model says.
struct SampleSchedule {
  struct Step {
    bool run = true;               // the model; else the last velocity is used again. Dynamic skipping overrides it
    bool guided = false;           // the unconditional branch is run as well
    std::vector<float> timesteps;  // [frames + 1], the actions' last
  };
  /// `config` as resolve() gives it; `frames` latent frames a block.
  SampleSchedule(const SampleConfig& config, const SampleOptions& options, int frames);

  SolverKind solver = SolverKind::unipc;
  FlowSchedule video, action;
  int frames = 0;       // latent frames of a block
  int imagined = 0;     // leading frames that are denoised
  int video_steps = 0;  // steps that move the video
  double guidance = 1.0;
  std::optional<bool> fuse_observation;
  bool dynamic = false;  // steps are skipped by similarity
  std::vector<bool> mask;
  std::vector<Step> steps;

  int branches() const;                     // that are ever run: with one there is no unconditional memory either
  std::vector<double> video_sigma() const;  // of the steps that move the video and where they end

 private:
  bool video_matters(size_t executed, bool actions_only) const;
};

}  // namespace wam
