#include "session/sampler.h"

#include <algorithm>

#include "wamcore/error.h"

namespace wam {
namespace {

Shape latents(const DreamZero& m) {
  return {m.config().out_dim, m.config().num_frame_per_block, m.grid().height, m.grid().width};
}
Shape actions(const DreamZero& m) { return {m.config().num_action_per_block, m.config().action_dim}; }

}  // namespace

Sampler::Sampler(SampleSchedule schedule, Denoiser& denoiser)
    : denoiser_(denoiser),
      schedule_(std::move(schedule)),
      multistep_(schedule_.solver == SolverKind::unipc),
      video_solver_(schedule_.solver, schedule_.video_sigma(), numel(latents(denoiser.model()))),
      action_solver_(schedule_.solver, schedule_.action.sigma, numel(actions(denoiser.model()))),
      skipper_({schedule_.mask, schedule_.dynamic}, numel(latents(denoiser.model()))),
      video_(latents(denoiser.model())),
      action_(actions(denoiser.model())),
      velocity_(latents(denoiser.model())),
      unconditional_(latents(denoiser.model())),
      action_velocity_(actions(denoiser.model())),
      unused_action_(actions(denoiser.model())),
      guided_action_(actions(denoiser.model())),
      pulls_(schedule_.steps.size()) {
  steps_run_.reserve(schedule_.steps.size());
  const DitConfig& c = denoiser.model().config();
  const int64_t rows = denoiser.branches() * (schedule_.frames * c.frame_seqlen + c.num_action_per_block);
  fuse_ = schedule_.fuse_observation.value_or(rows < denoiser.model().backend().weight_bound_rows());
  if (c.trained_prefix > 0) action_times_ = static_cast<size_t>(c.num_action_per_block);
  timesteps_.reserve(static_cast<size_t>(1 + schedule_.frames) + action_times_);
}

bool Sampler::fuses(const ObservedFrames& observed, int start) const {
  return fuse_ && denoiser_.fits_one_pass(observed, schedule_.frames, start);
}

// The first chunk of a context follows one frame, the others a block each, until the window is full.
std::vector<Sampler::Kind> Sampler::kinds() const {
  const int block = schedule_.frames, window = static_cast<int>(denoiser_.model().config().local_attn_size);
  std::vector<Kind> out = {{1, 1}};
  for (int start = 1 + block; start < window; start += block) out.push_back({block, start});
  return out;
}

void Sampler::prepare() {
  // Dynamic skipping looks at velocities between the steps, and rows that are given clean change the timesteps from
  // chunk to chunk: these stay with the host, pass by pass.
  if (!schedule_.dynamic && denoiser_.model().config().trained_prefix == 0) {
    std::vector<ChunkSpec> specs;
    for (const Kind& kind : kinds()) specs.push_back(describe(kind));
    chunks_ = denoiser_.model().backend().chunks(specs);
  }
  if (chunks_) return;
  for (const Kind& kind : kinds()) {
    const ObservedFrames observed{.frames = kind.observed, .start = kind.start - kind.observed};
    if (fuses(observed, kind.start))
      denoiser_.prepare(DreamZero::Pass::observe_denoise, schedule_.frames, kind.start);
    else
      denoiser_.prepare(DreamZero::Pass::prefill, kind.observed, kind.start - kind.observed);
    denoiser_.prepare(DreamZero::Pass::denoise, schedule_.frames, kind.start);
  }
}

ChunkSpec Sampler::describe(const Kind& kind) const {
  const bool fused = fuses({.frames = kind.observed, .start = kind.start - kind.observed}, kind.start);
  ChunkSpec spec{.guidance = schedule_.guidance};
  if (!fused) spec.update = denoiser_.pass(DreamZero::Pass::prefill, kind.observed, kind.start - kind.observed);
  for (int branch = 0; branch < denoiser_.branches(); ++branch) {
    spec.memory.push_back(denoiser_.memory(branch).read(0));
    spec.memory.back().read[spec.memory.back().reads++] = {0, kind.start * denoiser_.model().config().frame_seqlen};
    spec.context.push_back(denoiser_.context(branch));
  }
  const ChunkPass pass = denoiser_.pass(DreamZero::Pass::denoise, schedule_.frames, kind.start);
  for (const SampleSchedule::Step& step : schedule_.steps)
    spec.steps.push_back({.run = step.run, .guided = step.guided, .pass = pass, .timesteps = step.timesteps});
  if (fused) {
    spec.steps[0].pass = denoiser_.pass(DreamZero::Pass::observe_denoise, schedule_.frames, kind.start);
    spec.steps[0].timesteps.insert(spec.steps[0].timesteps.begin(), 0.0f);
  }
  const auto levels = [](const FlowSchedule& s) { return std::vector<double>(s.sigma.begin(), s.sigma.end() - 1); };
  spec.video = {.steps = solver_steps(schedule_.solver, schedule_.video_sigma()),
                .sigma = levels(schedule_.video),
                .count = video_.numel(),
                .area = video_.dim(2) * video_.dim(3),
                .frames = schedule_.frames,
                .held = schedule_.imagined};
  spec.video.steps.resize(static_cast<size_t>(schedule_.video_steps));
  spec.action = {.steps = solver_steps(schedule_.solver, schedule_.action.sigma),
                 .sigma = levels(schedule_.action),
                 .count = action_.numel()};
  return spec;
}

void Sampler::remember(const ObservedFrames& observed, Tracer& trace) {
  if (observed.frames == 0) return;
  const ScopedStage stage(&trace, Stage::memory);
  for (int branch = 0; branch < denoiser_.branches(); ++branch)
    denoiser_.prefill(branch, observed.frames, observed.start, observed.x, observed.y);
}

// One executed step: both guidance branches on the same noisy input, each with its own prompt and memory.
void Sampler::velocities(int step, const Inputs& in) {
  const SampleSchedule::Step& now = schedule_.steps[static_cast<size_t>(step)];
  const bool fused = step == 0 && fuses(in.observed, in.start);
  timesteps_.assign(fused ? 1 : 0, 0.0f);
  timesteps_.insert(timesteps_.end(), now.timesteps.begin(), now.timesteps.end() - 1);
  for (size_t i = 0; i < action_times_; ++i)
    timesteps_.push_back(static_cast<int64_t>(i) < clean_rows_ ? 0.0f : now.timesteps.back());
  Denoiser::Arrays arrays{.x = video(),
                          .y = in.y,
                          .timesteps = timesteps_.data(),
                          .action = action(),
                          .state = in.state,
                          .velocity = velocity_.data<float>(),
                          .action_velocity = action_velocity_.data<float>()};
  const auto pass = [&](int branch) {
    if (fused)
      denoiser_.observe_denoise(branch, in.observed, schedule_.frames, in.start, arrays);
    else
      denoiser_.denoise(branch, schedule_.frames, in.start, arrays);
  };
  pass(Denoiser::kConditional);
  if (!now.guided) return;
  arrays.velocity = unconditional_.data<float>();
  arrays.action_velocity = unused_action_.data<float>();
  pass(Denoiser::kUnconditional);
  const double guidance = schedule_.guidance;
  denoiser_.model().backend().ops().combine({.out = velocity_.data<float>(),
                                             .n = velocity_.numel(),
                                             .count = 2,
                                             .term = {unconditional_.data<float>(), velocity_.data<float>()},
                                             .coefficient = {1.0 - guidance, guidance}});
}

double Sampler::pull(int step, const PrefixGuidance& guidance) const {
  const double* sigma = schedule_.action.sigma.data() + step;
  return prefix_pull(sigma[0], sigma[1], guidance.strength, multistep_);
}

// The actions' velocity of a step. The model's own stays as it is: a skipped step uses it again, from another point.
const float* Sampler::action_velocity(int step, const PrefixGuidance* guidance) {
  if (!guidance || guidance->clean_rows > 0) return action_velocity_.data<float>();
  guide_velocity(*guidance, schedule_.action.sigma[static_cast<size_t>(step)], pull(step, *guidance), action(),
                 action_velocity_.data<float>(), guided_action_.data<float>(), guided_action_.numel());
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
    for (int64_t f = schedule_.imagined; f < schedule_.frames; ++f)
      std::copy_n(noise + (c * schedule_.frames + f) * frame, frame, video() + (c * schedule_.frames + f) * frame);
}

void Sampler::run(const Inputs& in, Tracer& trace) {
  steps_run_.clear();
  if (chunks_) return run_whole(in, trace);
  if (!fuses(in.observed, in.start)) remember(in.observed, trace);
  Ops& ops = denoiser_.model().backend().ops();
  std::copy_n(in.video_noise, video_.numel(), video());
  std::copy_n(in.action_noise, action_.numel(), action());
  clean_rows_ = in.guidance ? in.guidance->clean_rows : 0;
  put_clean_rows(in.guidance);
  skipper_.begin();
  for (int i = 0; i < schedule_.action.steps(); ++i) {
    if (skipper_.run(i)) {
      velocities(i, in);
      skipper_.executed(velocity_.data<float>());
      steps_run_.push_back(i);
      trace.add(Counter::steps_run);
    } else {
      trace.add(Counter::steps_skipped);
    }
    if (i < schedule_.video_steps) {
      video_solver_.step(i, video(), velocity_.data<float>(), ops);
      if (schedule_.imagined < schedule_.frames) hold_unimagined(in.video_noise);
    }
    action_solver_.step(i, action(), action_velocity(i, in.guidance), ops);
    put_clean_rows(in.guidance);
  }
}

void Sampler::run_whole(const Inputs& in, Tracer& trace) {
  // Of the kinds, in their order, the one that starts there.
  const size_t kind = static_cast<size_t>((in.start - 1) / schedule_.frames);
  if (in.observed.frames != (kind == 0 ? 1 : schedule_.frames) || in.observed.start + in.observed.frames != in.start)
    throw Error("Sampler: a chunk from frame " + std::to_string(in.start) + " after " +
                std::to_string(in.observed.frames) + " observed frames has not been prepared");
  const bool fused = fuses(in.observed, in.start);
  const MemoryView stored = denoiser_.store(in.observed), read = denoiser_.read(schedule_.frames);
  ChunkInputs inputs{.clean = in.observed.x,
                     .clean_condition = in.observed.y,
                     .condition = in.y,
                     .state = in.state,
                     .video_noise = in.video_noise,
                     .action_noise = in.action_noise,
                     .stored = &stored,
                     .read = &read};
  if (in.guidance) {
    for (size_t i = 0; i < pulls_.size(); ++i) pulls_[i] = static_cast<float>(pull(static_cast<int>(i), *in.guidance));
    inputs.pull = pulls_, inputs.target = in.guidance->target, inputs.weight = in.guidance->weight;
  }
  chunks_->run(kind, inputs, video(), action());
  int passes = fused ? 0 : denoiser_.branches();
  for (size_t i = 0; i < schedule_.steps.size(); ++i) {
    const SampleSchedule::Step& step = schedule_.steps[i];
    trace.add(step.run ? Counter::steps_run : Counter::steps_skipped);
    if (step.run) steps_run_.push_back(static_cast<int>(i));
    passes += (step.run ? 1 : 0) + (step.guided ? 1 : 0);
  }
  denoiser_.count_forwards(passes);
}

}  // namespace wam
