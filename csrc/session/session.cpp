#include "wamcore/session.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>

#include "core/thread_pool.h"
#include "session/context.h"
#include "session/image_pipeline.h"
#include "session/noise.h"
#include "session/normalizer.h"
#include "session/prompt.h"
#include "session/sampler.h"
#include "wamcore/error.h"

namespace wam {
namespace {

std::shared_ptr<const DreamZeroModel> as_dreamzero(const std::shared_ptr<const Model>& model) {
  auto out = std::dynamic_pointer_cast<const DreamZeroModel>(model);
  if (!out) throw ConfigError("Session: wanted a loaded model");
  return out;
}

}  // namespace

class Session::State {
 public:
  State(std::shared_ptr<const Model> any, const SampleOptions& options)
      : model(as_dreamzero(any)),
        sample(resolve(model->config.sample, options)),
        schedule(sample, options, static_cast<int>(model->config.dit.num_frame_per_block)),
        branches(schedule.branches()),
        denoiser(model->dit, branches),
        context(model, denoiser),
        sampler(schedule, denoiser),
        pipeline(model->embodiment(), static_cast<int>(model->config.target_height),
                 static_cast<int>(model->config.target_width)),
        states(model->embodiment().state),
        actions(model->embodiment().action) {
    frame_offsets = options.frame_offsets.value_or(model->embodiment().frame_offsets);
    check_offsets();
    sampler.prepare();
    actions_only = options.actions_only;
    const DitConfig& c = model->config.dit;
    text = Tensor({c.text_len, c.text_dim});
    state = Tensor({c.num_state_per_block, c.max_state_dim});
    noise_video = Tensor(model->latent_shape());
    noise_action = Tensor({c.num_action_per_block, c.action_dim});
    plan_target = Tensor(noise_action.shape());
    plan_weight = Tensor(noise_action.shape());
    reserve();
    prefix_strength = options.prefix_strength.value_or(sample.steps < 10 ? 5.0 : 10.0);
    if (!(prefix_strength >= 0.0 && prefix_strength <= 1e3))
      throw ConfigError("SampleOptions: prefix_strength wants 0 to 1000");
    prefix_rows = options.trained_prefix.value_or(true) ? c.trained_prefix : 0;
    if (options.trained_prefix.value_or(false) && c.trained_prefix == 0)
      throw ConfigError("SampleOptions: trained_prefix wants a checkpoint with trained_prefix_rows");
    fixed_noise = options.fixed_noise;
    Shape shape = model->latent_shape();
    predicted = Tensor(shape);
    ++shape[1];
    predicted_with_first = Tensor(shape);
  }

  void set_tokens(const std::vector<int64_t>& ids, const std::vector<int64_t>& negative);
  void infer(const Observation& obs, const Noise* noise, const float* latents, ActionChunk& out,
             const Continuation* plan = nullptr);
  Tensor decode();
  void check_imagined(const std::string& who) const;
  void check_open(const std::string& who) const;

  std::shared_ptr<const DreamZeroModel> model;
  SampleConfig sample;
  SampleSchedule schedule;
  int branches;
  Denoiser denoiser;
  Context context;
  Sampler sampler;
  ImagePipeline pipeline;
  Normalizer states, actions;
  Tracer tracer;
  std::vector<int> frame_offsets;
  bool fixed_noise = false, actions_only = false;
  uint64_t drawn = 0;           // chunks since the session was made or reset
  std::vector<int64_t> prompt;  // empty: none yet
  Tensor text, state, noise_video, noise_action, predicted, predicted_with_first;
  Tensor plan_target, plan_weight;  // [horizon, action_dim of the model]
  double prefix_strength = 0.0;
  int64_t prefix_rows = 0;              // at most that many rows of a plan are given clean; 0: plans pull
  std::vector<double> plan_q;           // [rows, dof]: what is left of the plan, scaled for the model
  std::vector<double> plan_anchor;      // [state_dim]: the state that relative targets are measured from, negated
  std::vector<float> plan_row_weights;  // [horizon]
  std::vector<float> pixels;            // [frames, height, width, 3]
  std::vector<double> normalized;
  int observed = 0;  // leading frames of the last prediction
  bool predicted_any = false;
  uint64_t sequence = 0;
  std::atomic<uint32_t> epoch{0};  // reset() comes from any thread; infer() acts on it
  uint32_t context_epoch = 0;
  std::unique_ptr<VaeStream> decode_stream;
  std::string closed;  // what failed in the middle of a chunk or a prompt; empty: nothing
  std::mutex busy;     // a new prompt may come from another thread while a chunk is inferred

 private:
  // What inference fills grows here and not in the loop.
  void reserve() {
    const size_t horizon = static_cast<size_t>(noise_action.dim(0));
    const size_t states_wide = static_cast<size_t>(model->embodiment().state_dim());
    plan_q.reserve(horizon * static_cast<size_t>(model->embodiment().action_dim()));
    plan_anchor.reserve(states_wide);
    plan_row_weights.assign(horizon, 0.0f);
    normalized.reserve(states_wide);
    const auto frames = std::max(static_cast<size_t>(context.most_frames()), frame_offsets.size());
    pixels.reserve(frames * 3 * static_cast<size_t>(model->height * model->width));
  }
  void check_offsets() const;
  void check(const Observation& obs, const Noise* noise) const;
  template <class Body>
  void or_close(Body&& body);
  void sample_chunk(const Observation& obs, const Noise* noise, const float* latents, ActionChunk& out,
                    const PrefixGuidance* guidance, int frames);
  void encode_text(int branch, const std::vector<int64_t>& ids);
  void draw_noise();
  PrefixGuidance guide_to(const Continuation& plan, const Observation& obs);
  void finish(const Observation& obs, ActionChunk& out);
};

void Session::State::check_offsets() const {
  const size_t wanted = model->embodiment().frame_offsets.size();
  if (frame_offsets.size() != wanted || frame_offsets.back() != 0)
    throw ConfigError("SampleOptions: frame_offsets wants " + std::to_string(wanted) + " ticks, the last 0");
  for (size_t i = 1; i < frame_offsets.size(); ++i)
    if (frame_offsets[i] <= frame_offsets[i - 1]) throw ConfigError("SampleOptions: frame_offsets must rise");
}

void Session::State::encode_text(int branch, const std::vector<int64_t>& ids) {
  model->text->encode(ids, model->config.dit.text_len, text.data<float>());
  denoiser.set_text(branch, text.data<float>());
  tracer.add(Counter::text_encodes);
}

void Session::State::set_tokens(const std::vector<int64_t>& ids, const std::vector<int64_t>& negative) {
  const int64_t most = model->config.dit.text_len, vocab = model->config.text.vocab;
  for (const auto* list : {&ids, &negative}) {
    if (static_cast<int64_t>(list->size()) > most)
      throw InputError("Session::set_prompt: wanted at most " + std::to_string(most) + " tokens, got " +
                       std::to_string(list->size()));
    for (const int64_t id : *list)
      if (id < 0 || id >= vocab)
        throw InputError("Session::set_prompt: token " + std::to_string(id) + " is not in the vocabulary of " +
                         std::to_string(vocab));
  }
  if (ids.empty()) throw InputError("Session::set_prompt: the prompt is empty");
  if (branches > 1 && negative.empty())
    throw InputError("Session::set_prompt: guidance " + std::to_string(sample.guidance) + " needs negative tokens");
  const std::scoped_lock lock(busy);
  check_open("Session::set_prompt");
  const ScopedStage stage(&tracer, Stage::text);
  or_close([&] {
    encode_text(Denoiser::kConditional, ids);
    if (branches > 1) encode_text(Denoiser::kUnconditional, negative);
  });
  if (ids != prompt) context.forget();
  prompt = ids;
}

void Session::State::check(const Observation& obs, const Noise* noise) const {
  if (prompt.empty()) throw InputError("Session::infer: no prompt yet: call set_prompt");
  const Embodiment& e = model->embodiment();
  if (static_cast<int>(obs.state.size()) != e.state_dim())
    throw ShapeError("Session::infer: state wants " + std::to_string(e.state_dim()) + " values, got " +
                     std::to_string(obs.state.size()));
  for (size_t i = 0; i < obs.state.size(); ++i)
    if (!std::isfinite(obs.state[i]))
      throw InputError("Session::infer: state[" + std::to_string(i) + "] is not finite");
  if (noise && (static_cast<int64_t>(noise->video.size()) != noise_video.numel() ||
                static_cast<int64_t>(noise->action.size()) != noise_action.numel()))
    throw ShapeError("Session::infer: noise wants video " + shape_string(noise_video.shape()) + " and action " +
                     shape_string(noise_action.shape()));
}

void Session::State::infer(const Observation& obs, const Noise* noise, const float* latents, ActionChunk& out,
                           const Continuation* plan) {
  const std::scoped_lock lock(busy);
  check_open("Session::infer");
  check(obs, noise);
  PrefixGuidance guidance;
  if (plan) guidance = guide_to(*plan, obs);
  const OnCore here(model->backend->caller_core());
  // A model that was trained with clean prefixes is not pulled, also where the plan freezes nothing.
  const bool continues = plan && (prefix_rows == 0 || guidance.clean_rows > 0);
  const int frames = pipeline.check(obs);  // throws before anything changes
  if (const uint32_t now = epoch.load(); now != context_epoch) {
    context.forget();
    context_epoch = now;
    drawn = 0;
  }
  const bool restart = context.restarts(frames);
  if (!restart && !latents) context.stretched(frames);
  or_close([&] { sample_chunk(obs, noise, latents, out, continues ? &guidance : nullptr, frames); });
}

// After a failure in the middle nobody knows what memory holds: the session is closed, never half-updated.
template <class Body>
void Session::State::or_close(Body&& body) {
  try {
    body();
  } catch (const std::exception& e) {
    closed = e.what();
    throw;
  }
}

void Session::State::check_open(const std::string& who) const {
  if (!closed.empty()) throw DeviceError(who + ": the session was closed by an earlier failure: " + closed);
}

void Session::State::sample_chunk(const Observation& obs, const Noise* noise, const float* latents, ActionChunk& out,
                                  const PrefixGuidance* guidance, int frames) {
  const bool restart = context.restarts(frames);
  tracer.next_chunk();
  const uint64_t before = denoiser.forwards();
  {
    const ScopedStage stage(&tracer, Stage::preprocess);
    pixels.resize(static_cast<size_t>(frames) * 3 * static_cast<size_t>(model->height * model->width));
    pipeline.run(obs, pixels.data());
    normalized.assign(obs.state.begin(), obs.state.end());
    states.normalize(normalized.data());
    std::fill_n(state.data<float>(), state.numel(), 0.0f);
    for (int64_t s = 0; s < state.dim(0); ++s)
      for (size_t i = 0; i < normalized.size(); ++i)
        state.data<float>()[s * state.dim(1) + static_cast<int64_t>(i)] = static_cast<float>(normalized[i]);
  }
  if (restart)
    context.restart(pixels.data(), frames, tracer);
  else
    context.observe(pixels.data(), frames, latents, tracer);
  {
    const ScopedStage stage(&tracer, Stage::denoise);
    if (!noise) draw_noise();
    sampler.run({.observed = context.observed(),
                 .start = context.start(),
                 .y = context.condition(),
                 .state = state.data<float>(),
                 .video_noise = noise ? noise->video.data() : noise_video.data<float>(),
                 .action_noise = noise ? noise->action.data() : noise_action.data<float>(),
                 .guidance = guidance},
                tracer);
  }
  context.advance();
  observed = restart ? 1 : 0;
  tracer.add(Counter::dit_forwards, denoiser.forwards() - before);
  finish(obs, out);
}

// The plan's absolute targets in the model's range: relative to the new state where the model's are, then scaled with
// the statistics of the row they now fall on.
PrefixGuidance Session::State::guide_to(const Continuation& plan, const Observation& obs) {
  const int64_t dim = plan_target.dim(1);
  const int dof = model->embodiment().action_dim(), horizon = static_cast<int>(plan_target.dim(0));
  if (plan.rows < 0 || plan.frozen < 0 || plan.q.size() != static_cast<size_t>(plan.rows) * static_cast<size_t>(dof))
    throw InputError("Session::extend: the plan wants " + std::to_string(dof) + " joints a row, got " +
                     std::to_string(plan.q.size()) + " numbers for " + std::to_string(plan.rows) + " rows");
  for (const double q : plan.q)
    if (!std::isfinite(q)) throw InputError("Session::extend: a target of the plan is not finite");
  const int rows = std::min(plan.rows, horizon);
  plan_q.assign(plan.q.begin(), plan.q.begin() + static_cast<ptrdiff_t>(rows) * dof);
  plan_anchor.assign(obs.state.begin(), obs.state.end());
  for (double& s : plan_anchor) s = -s;
  add_relative_state(model->embodiment(), plan_anchor.data(), plan_q.data(), rows);
  actions.renormalize(plan_q.data(), rows);
  prefix_weights(plan.frozen, rows, plan_row_weights);
  std::fill_n(plan_target.data<float>(), plan_target.numel(), 0.0f);
  std::fill_n(plan_weight.data<float>(), plan_weight.numel(), 0.0f);
  for (int i = 0; i < rows; ++i)
    for (int j = 0; j < dof; ++j) {
      const double target = plan_q[static_cast<size_t>(i * dof + j)];
      if (std::isnan(target)) continue;  // a channel that never varies needs no guidance
      plan_target.data<float>()[i * dim + j] = static_cast<float>(target);
      plan_weight.data<float>()[i * dim + j] = plan_row_weights[static_cast<size_t>(i)];
    }
  return {.target = plan_target.data<float>(),
          .weight = plan_weight.data<float>(),
          .strength = prefix_strength,
          .clean_rows = std::min<int64_t>({plan.frozen, rows, prefix_rows})};
}

// Fresh noise for every chunk: with the same noise each time a policy that hesitates once hesitates for good.
void Session::State::draw_noise() {
  constexpr uint64_t kOdd = 0xD1342543DE82EF95u;  // spreads neighbouring chunks over the generator's sequence
  const uint64_t seed = sample.seed + (fixed_noise ? 0 : kOdd * drawn);
  fill_normal(seed, noise_video.data<float>(), noise_video.numel());
  fill_normal(seed + 1, noise_action.data<float>(), noise_action.numel());
  ++drawn;
}

// Network output to absolute joint targets, and the latents kept for whoever asks.
void Session::State::finish(const Observation& obs, ActionChunk& out) {
  const ScopedStage stage(&tracer, Stage::decode_actions);
  const int64_t dim = noise_action.dim(1);
  out.horizon = static_cast<int>(noise_action.dim(0));
  out.dof = model->embodiment().action_dim();
  out.dt = 1.0 / model->embodiment().control_hz;
  out.obs_tick = obs.tick;
  out.obs_ns = obs.t_ns;
  out.sequence = sequence++;
  out.epoch = context_epoch;
  out.q.resize(static_cast<size_t>(out.horizon) * static_cast<size_t>(out.dof));
  for (int i = 0; i < out.horizon; ++i)
    for (int j = 0; j < out.dof; ++j) out.q[static_cast<size_t>(i * out.dof + j)] = sampler.action()[i * dim + j];
  actions.denormalize(out.q.data(), out.horizon);
  add_relative_state(model->embodiment(), obs.state.data(), out.q.data(), out.horizon);
  if (actions_only) return;
  std::copy_n(sampler.video(), predicted.numel(), predicted.data<float>());
  predicted_any = true;
  if (!observed) return;
  const int64_t channels = predicted.dim(0), area = predicted.dim(2) * predicted.dim(3), n = predicted.dim(1);
  for (int64_t c = 0; c < channels; ++c) {
    float* to = predicted_with_first.data<float>() + c * (n + 1) * area;
    std::copy_n(context.first_latent().data<float>() + c * area, area, to);
    std::copy_n(predicted.data<float>() + c * n * area, n * area, to + area);
  }
}

void Session::State::check_imagined(const std::string& who) const {
  check_open(who);
  if (actions_only) throw InputError(who + ": this session samples actions only (SampleOptions::actions_only)");
  if (!predicted_any) throw InputError(who + ": nothing predicted yet: call infer");
}

Tensor Session::State::decode() {
  check_imagined("Session::decode");
  if (!model->vae->has_decoder()) throw WeightError("Session::decode: the checkpoint has no decoder weights");
  const ScopedStage stage(&tracer, Stage::decode_video);
  if (!decode_stream) decode_stream = std::make_unique<VaeStream>(*model->vae);
  decode_stream->reset_decoder();
  const Tensor& latents = observed ? predicted_with_first : predicted;
  const int64_t frames = model->vae->pixel_frames(latents.dim(1), *decode_stream);
  const int64_t skip = observed ? 1 : 0;  // the observed frame decodes to one picture, which nobody imagined
  Tensor video({frames, model->height, model->width, 3}),
      out({frames - skip, model->height, model->width, 3}, DType::u8);
  model->vae->decode({latents.data<float>(), latents.dim(1), latents.dim(2), latents.dim(3)}, video.data<float>(),
                     *decode_stream);
  const float* from = video.data<float>() + skip * model->height * model->width * 3;
  for (int64_t i = 0; i < out.numel(); ++i)
    out.data<uint8_t>()[i] = static_cast<uint8_t>(std::lround((std::clamp(from[i], -1.0f, 1.0f) + 1.0f) * 127.5f));
  tracer.add(Counter::images_decoded, static_cast<uint64_t>(frames));
  return out;
}

Session::Session(std::shared_ptr<const Model> model, const SampleOptions& options)
    : state_(std::make_unique<State>(std::move(model), options)) {}
Session::~Session() = default;

void Session::set_prompt(const std::string& instruction) {
  const DreamZeroModel& m = *state_->model;
  if (!m.tokenizer)
    throw InputError("Session::set_prompt: this checkpoint has no tokenizer.json; give token ids to set_prompt_tokens");
  const std::vector<int64_t> ids = m.tokenizer->encode(format_prompt(m.embodiment().prompt_template, instruction));
  state_->set_tokens(ids, state_->branches > 1 ? m.tokenizer->encode(kNegativePrompt) : std::vector<int64_t>{});
}
void Session::set_prompt_tokens(const std::vector<int64_t>& ids, const std::vector<int64_t>& negative) {
  state_->set_tokens(ids, negative);
}
void Session::infer(const Observation& obs, ActionChunk& out) { state_->infer(obs, nullptr, nullptr, out); }
ActionChunk Session::infer(const Observation& obs, const Noise* noise, const float* latents) {
  ActionChunk out;
  state_->infer(obs, noise, latents, out);
  return out;
}
void Session::extend(const Observation& obs, const Continuation& plan, ActionChunk& out) {
  state_->infer(obs, nullptr, nullptr, out, &plan);
}
ActionChunk Session::extend(const Observation& obs, const Continuation& plan, const Noise* noise) {
  ActionChunk out;
  state_->infer(obs, noise, nullptr, out, &plan);
  return out;
}
Continuity Session::continuity() const noexcept {
  return state_->prefix_rows > 0 ? Continuity::trained : Continuity::guided;
}
double Session::dt() const { return 1.0 / state_->model->embodiment().control_hz; }
int Session::horizon() const { return state_->model->horizon(); }
int Session::dof() const { return state_->model->embodiment().action_dim(); }
std::vector<int> Session::frame_offsets() const { return state_->frame_offsets; }
uint32_t Session::epoch() const noexcept { return state_->epoch.load(); }
void Session::reset() { ++state_->epoch; }
const Tensor& Session::predicted_latents() const {
  state_->check_imagined("Session::predicted_latents");
  return state_->observed ? state_->predicted_with_first : state_->predicted;
}
int Session::observed_frames() const { return state_->observed; }
Tensor Session::decode() { return state_->decode(); }
const Model& Session::model() const { return *state_->model; }
const Trace& Session::trace() const { return state_->tracer.trace(); }
std::vector<OperationReport> Session::operations() const {
  std::vector<OperationReport> out = state_->model->backend->operations();
  out.push_back({"resample", cpu_isa(), "float32", state_->pipeline.resized()});
  return out;
}
void Session::time_operations(bool on) { state_->model->backend->time_operations(on); }
std::vector<OperationTime> Session::operation_times() const { return state_->model->backend->operation_times(); }
int Session::context_start() const { return state_->context.start(); }
const std::vector<int>& Session::steps_run() const { return state_->sampler.steps_run(); }
Tensor Session::memory(int layer, int branch) const {
  const Denoiser& d = state_->denoiser;
  state_->check_open("Session::memory");
  if (branch < 0 || branch >= state_->branches || layer < 0 || layer >= d.model().config().num_layers)
    throw InputError("Session::memory: no layer " + std::to_string(layer) + " of branch " + std::to_string(branch));
  std::vector<float> k, v;
  d.memory(branch).copy(layer, k, v);
  const int64_t inner = d.model().config().dim;
  Tensor out({2, static_cast<int64_t>(k.size()) / inner, inner});
  std::copy(k.begin(), k.end(), out.data<float>());
  std::copy(v.begin(), v.end(), out.data<float>() + k.size());
  return out;
}

}  // namespace wam
