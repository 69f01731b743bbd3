#include "session/sample_schedule.h"

#include <algorithm>
#include <cmath>

#include "wamcore/error.h"

namespace wam {
namespace {

SolverKind kind(const SampleConfig& c) { return c.solver == "euler" ? SolverKind::euler : SolverKind::unipc; }

FlowSchedule schedule(const SampleConfig& c) {
  return flow_schedule(c.steps, c.shift, kind(c) == SolverKind::euler ? kFirstEuler : kFirstUnipc);
}

// The video's noise levels: decoupled on request, never below stop_sigma.
FlowSchedule video_schedule(const SampleConfig& c, const Imagine& imagine) {
  FlowSchedule s = schedule(c);
  if (c.decoupled) s = decoupled_schedule(s, c.video_final_noise);
  for (double& sigma : s.sigma) sigma = std::max(sigma, imagine.stop_sigma);
  for (size_t i = 0; i < s.timestep.size(); ++i) s.timestep[i] = static_cast<int>(1000.0 * s.sigma[i] + 1e-9);
  return s;
}

// Steps until the video reaches its last noise level.
int moving_steps(const FlowSchedule& s) {
  int steps = 0;
  while (steps < s.steps() && s.sigma[static_cast<size_t>(steps) + 1] < s.sigma[static_cast<size_t>(steps)]) ++steps;
  return steps;
}

}  // namespace

SampleConfig resolve(const SampleConfig& config, const SampleOptions& o) {
  SampleConfig c = config;
  c.steps = o.steps.value_or(c.steps);
  c.guidance = o.guidance.value_or(c.guidance);
  c.shift = o.shift.value_or(c.shift);
  c.solver = o.solver.value_or(c.solver);
  c.step_mask = o.step_mask.value_or(c.step_mask);
  c.dynamic_skip = o.dynamic_skip.value_or(c.dynamic_skip);
  c.decoupled = o.decoupled.value_or(c.decoupled);
  c.video_final_noise = o.video_final_noise.value_or(c.video_final_noise);
  c.seed = o.seed.value_or(c.seed);
  schedule(c);  // throws on bad steps or shift
  if (c.solver != "unipc" && c.solver != "euler")
    throw ConfigError("SampleOptions: solver must be unipc or euler, got '" + c.solver + "'");
  if (!std::isfinite(c.guidance)) throw ConfigError("SampleOptions: guidance must be finite");
  if (!(o.imagine.stop_sigma >= 0.0 && o.imagine.stop_sigma < 1.0))
    throw ConfigError("SampleOptions: imagine.stop_sigma must lie in [0, 1), got " +
                      std::to_string(o.imagine.stop_sigma));
  if (o.imagine.frames < -1)
    throw ConfigError("SampleOptions: imagine.frames must be -1 or more, got " + std::to_string(o.imagine.frames));
  if (!c.step_mask.empty() && !c.dynamic_skip) {
    if (static_cast<int>(c.step_mask.size()) < c.steps)
      throw ConfigError("SampleOptions: step_mask has " + std::to_string(c.step_mask.size()) + " entries for " +
                        std::to_string(c.steps) + " steps");
    if (!c.step_mask[0]) throw ConfigError("SampleOptions: step_mask must run the first step");
  }
  return c;
}

SampleSchedule::SampleSchedule(const SampleConfig& c, const SampleOptions& options, int block)
    : solver(kind(c)),
      video(video_schedule(c, options.imagine)),
      action(schedule(c)),
      frames(block),
      imagined(options.imagine.frames < 0 ? block : std::min(options.imagine.frames, block)),
      video_steps(imagined > 0 ? moving_steps(video) : 0),
      guidance(c.guidance),
      fuse_observation(options.fuse_observation),
      dynamic(c.dynamic_skip),
      mask(c.step_mask) {
  for (size_t i = 0; i < action.timestep.size(); ++i) {
    Step step{.run = dynamic || mask.empty() || mask.at(i)};
    for (int f = 0; f < frames; ++f)  // frames that are not imagined stay at the first noise level
      step.timesteps.push_back(static_cast<float>(video.timestep[f < imagined ? i : 0]));
    step.timesteps.push_back(static_cast<float>(action.timestep[i]));
    steps.push_back(std::move(step));
  }
  for (size_t i = 0; i < steps.size(); ++i)
    steps[i].guided = steps[i].run && guidance != 1.0 && video_matters(i, options.actions_only);
}

// Guidance changes the video alone. So the unconditional branch of an executed step is needed only if its velocity
// moves the video, in this step or in those that use it again, and if somebody looks at that video: a later pass, or
// whoever asks for it. Dynamic skipping compares the velocities that came before a step, so all but the last matter.
bool SampleSchedule::video_matters(size_t executed, bool actions_only) const {
  if (dynamic && executed + 1 < steps.size()) return true;
  size_t next = executed + 1;
  while (next < steps.size() && !steps[next].run) ++next;
  const bool moves = static_cast<int>(executed) < video_steps;
  return moves && (next < steps.size() || !actions_only);
}

int SampleSchedule::branches() const {
  return std::any_of(steps.begin(), steps.end(), [](const Step& s) { return s.guided; }) ? 2 : 1;
}

std::vector<double> SampleSchedule::video_sigma() const {
  return {video.sigma.begin(), video.sigma.begin() + std::max(video_steps, 1) + 1};
}

}  // namespace wam
