#include "session/sampler.h"

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

std::vector<double> first(const std::vector<double>& sigma, int steps) {
  return {sigma.begin(), sigma.begin() + steps + 1};
}

Shape latents(const DreamZero& m) {
  return {m.config().out_dim, m.config().num_frame_per_block, m.grid().height, m.grid().width};
}
Shape actions(const DreamZero& m) { return {m.config().num_action_per_block, m.config().action_dim}; }

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

Sampler::Sampler(const SampleConfig& c, const Imagine& imagine, Denoiser& denoiser)
    : denoiser_(denoiser),
      guidance_(c.guidance),
      frames_(static_cast<int>(denoiser.model().config().num_frame_per_block)),
      imagined_(imagine.frames < 0 ? frames_ : std::min(imagine.frames, frames_)),
      video_schedule_(video_schedule(c, imagine)),
      action_schedule_(schedule(c)),
      video_steps_(imagined_ > 0 ? moving_steps(video_schedule_) : 0),
      multistep_(kind(c) == SolverKind::unipc),
      video_solver_(kind(c), first(video_schedule_.sigma, std::max(video_steps_, 1)), numel(latents(denoiser.model()))),
      action_solver_(kind(c), action_schedule_.sigma, numel(actions(denoiser.model()))),
      skipper_({c.step_mask, c.dynamic_skip}, numel(latents(denoiser.model()))),
      video_(latents(denoiser.model())),
      action_(actions(denoiser.model())),
      velocity_(latents(denoiser.model())),
      unconditional_(latents(denoiser.model())),
      action_velocity_(actions(denoiser.model())),
      unused_action_(actions(denoiser.model())),
      guided_action_(actions(denoiser.model())),
      timesteps_({frames_ + (denoiser.model().config().trained_prefix > 0 ? action_.dim(0) : 1)}) {
  steps_run_.reserve(static_cast<size_t>(c.steps));
}

// One executed step: both guidance branches on the same noisy input, each with its own prompt and memory.
void Sampler::velocities(int step, int start, const float* y, const float* state) {
  const size_t at = static_cast<size_t>(step);
  float* t = timesteps_.data<float>();
  for (int f = 0; f < frames_; ++f)
    t[f] = static_cast<float>(f < imagined_ ? video_schedule_.timestep[at] : video_schedule_.timestep[0]);
  for (int64_t i = 0; frames_ + i < timesteps_.numel(); ++i)
    t[frames_ + i] = i < clean_rows_ ? 0.0f : static_cast<float>(action_schedule_.timestep[at]);
  Denoiser::Arrays arrays{.x = video(),
                          .y = y,
                          .timesteps = t,
                          .action = action(),
                          .state = state,
                          .velocity = velocity_.data<float>(),
                          .action_velocity = action_velocity_.data<float>()};
  denoiser_.denoise(Denoiser::kConditional, frames_, start, arrays);
  if (guidance_ == 1.0) return;
  arrays.velocity = unconditional_.data<float>();
  arrays.action_velocity = unused_action_.data<float>();
  denoiser_.denoise(Denoiser::kUnconditional, frames_, start, arrays);
  denoiser_.model().backend().ops().combine({.out = velocity_.data<float>(),
                                             .n = velocity_.numel(),
                                             .count = 2,
                                             .term = {unconditional_.data<float>(), velocity_.data<float>()},
                                             .coefficient = {1.0 - guidance_, guidance_}});
}

// The actions' velocity of a step. The model's own stays as it is: a skipped step uses it again, from another point.
const float* Sampler::action_velocity(int step, const PrefixGuidance* guidance) {
  if (!guidance || guidance->clean_rows > 0) return action_velocity_.data<float>();
  const double sigma = action_schedule_.sigma[static_cast<size_t>(step)];
  const double pull =
      prefix_pull(sigma, action_schedule_.sigma[static_cast<size_t>(step) + 1], guidance->strength, multistep_);
  guide_velocity(*guidance, sigma, pull, action(), action_velocity_.data<float>(), guided_action_.data<float>(),
                 guided_action_.numel());
  return guided_action_.data<float>();
}

// Rows that are known stay what they are, whatever the solver makes of them.
void Sampler::put_clean_rows(const PrefixGuidance* guidance) {
  if (clean_rows_ > 0) std::copy_n(guidance->target, clean_rows_ * action_.dim(1), action());
}

// Frames that are not imagined stay the noise they were.
void Sampler::hold_unimagined(const float* noise) {
  const int64_t channels = video_.dim(0), frame = video_.dim(2) * video_.dim(3);
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t f = imagined_; f < frames_; ++f)
      std::copy_n(noise + (c * frames_ + f) * frame, frame, video() + (c * frames_ + f) * frame);
}

void Sampler::run(int start, const float* y, const float* state, const float* video_noise, const float* action_noise,
                  Tracer& trace, const PrefixGuidance* guidance) {
  Ops& ops = denoiser_.model().backend().ops();
  std::copy_n(video_noise, video_.numel(), video());
  std::copy_n(action_noise, action_.numel(), action());
  clean_rows_ = guidance ? guidance->clean_rows : 0;
  put_clean_rows(guidance);
  steps_run_.clear();
  skipper_.begin();
  for (int i = 0; i < action_schedule_.steps(); ++i) {
    if (skipper_.run(i)) {
      velocities(i, start, y, state);
      skipper_.executed(velocity_.data<float>());
      steps_run_.push_back(i);
      trace.add(Counter::steps_run);
    } else {
      trace.add(Counter::steps_skipped);
    }
    if (i < video_steps_) {
      video_solver_.step(i, video(), velocity_.data<float>(), ops);
      if (imagined_ < frames_) hold_unimagined(video_noise);
    }
    action_solver_.step(i, action(), action_velocity(i, guidance), ops);
    put_clean_rows(guidance);
  }
}

}  // namespace wam
